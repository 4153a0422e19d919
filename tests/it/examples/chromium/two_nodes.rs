//! The page of the example `two_nodes`, with scripts on.

use std::net::TcpListener;

use support::program::{Program, binary};
use support::servers::Server;

use super::*;

/// Two nodes that know each other.
fn start(redis: &Server) -> [Program; 2] {
    // Nobody takes these ports in the moment until the programs have them.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = listeners.map(|listener| listener.local_addr().unwrap().port().to_string());
    let url = format!("redis://{}/", redis.address());
    let keys = "5e".repeat(64);
    [(0, 1), (1, 0)].map(|(own, other)| {
        let other = format!("http://127.0.0.1:{}", ports[other]);
        let environment = [
            ("REDIS_URL", &*url),
            ("SESSION_KEYS", &*keys),
            ("PORT", &*ports[own]),
            ("OTHER", &*other),
        ];
        Program::start(binary("two_nodes"), &environment)
    })
}

/// What the page says of the two sockets, once both say the same.
async fn both(browser: &Chromium, beginning: &str) -> Result<[String; 2], CmdError> {
    let started = std::time::Instant::now();
    loop {
        let mut said = Vec::new();
        for cell in browser.0.find_all(Locator::Css("td:nth-child(2)")).await? {
            said.push(cell.text().await?);
        }
        if said.len() == 2 && said.iter().all(|text| text.starts_with(beginning)) {
            return Ok([said.remove(0), said.remove(0)]);
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_page_shows_that_a_logout_on_one_node_closes_the_sockets_of_both() {
    let redis = Server::redis(&[]);
    let nodes = start(&redis);
    let page = nodes[0].page("/").to_string();
    tell_without_demo(|driver| async move {
        let browser = driver.browser_with_scripts().await;
        browser.0.goto(&page).await?;
        both(&browser, "closed: nobody is logged in").await?;
        browser
            .0
            .find(Locator::Css("#login"))
            .await?
            .click()
            .await?;
        both(&browser, "open").await?;
        browser
            .0
            .find(Locator::Css("#logout"))
            .await?
            .click()
            .await?;
        let [own, other] = both(&browser, "closed after").await?;
        assert!(own.ends_with("ms: ended by this node"), "{own}");
        assert!(other.ends_with("ms: ended by another node"), "{other}");
        println!("this node: {own}; the other: {other}");
        // Whoever reloads the page is logged out.
        browser.0.refresh().await?;
        both(&browser, "closed: nobody is logged in").await?;
        Ok(())
    })
    .await;
    drop(nodes);
}
