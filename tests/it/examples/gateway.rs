//! The example `gateway`: it runs as a process, with the service behind it on a port of its own.

use cloakroom::assertion::Jwks;
use support::device::Device;
use support::program::{Program, binary, cookie};

/// Sends a request to the service itself, past the gateway.
fn ask_service(address: &str, header: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /orders HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{header}\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer[9..12].parse().unwrap(), answer)
}

#[test]
fn gateway_hands_requests_on_for_who_is_logged_in_and_the_service_believes_nobody_else() {
    let mut gateway = Program::start(binary("gateway"), &[]);
    let line = gateway.next_line();
    let service = line.rsplit("http://").next().unwrap().to_owned();

    assert_eq!(gateway.send("GET", "/orders", "").0, 401);
    let (status, head, _) = gateway.send("POST", "/login/ada", "");
    assert_eq!(status, 204);
    let ada = cookie(&head);
    let (status, _, body) = gateway.send("GET", "/orders", &ada);
    assert_eq!((status, &*body), (200, "ada has 2 orders: lamp, chair\n"));
    let bob = cookie(&gateway.send("POST", "/login/bob", "").1);
    assert_eq!(gateway.send("GET", "/orders", &bob).2, "no orders\n");

    // What a client says of itself does not reach the service.
    let forged = format!("{ada}Authorization: Bearer forged\r\n");
    assert_eq!(gateway.send("GET", "/orders", &forged).0, 200);
    let forged = Device::es256(1).token(
        r#"{"typ":"assertion+jwt","alg":"ES256","kid":"key 1"}"#,
        r#"{"iss":"https://shop.example","aud":"orders","sub":"ada"}"#,
    );
    let forged = format!("Authorization: Bearer {forged}\r\n");
    assert_eq!(gateway.send("GET", "/orders", &forged).0, 401);
    for header in ["", &*ada, &*forged] {
        let (status, answer) = ask_service(&service, header);
        assert_eq!(status, 401);
        assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
    }

    let (status, head, body) = gateway.send("GET", "/.well-known/jwks.json", "");
    assert_eq!(status, 200);
    assert!(head.contains("application/jwk-set+json"), "{head}");
    assert!(!head.contains("set-cookie"), "{head}");
    assert!(Jwks::parse(body).is_ok());

    assert_eq!(gateway.send("POST", "/logout", &ada).0, 204);
    assert_eq!(gateway.send("GET", "/orders", &ada).0, 401);
}

#[test]
fn gateway_takes_its_keys_from_a_file() {
    use cloakroom::assertion::AssertionKey;

    let keys = [(); 2].map(|()| AssertionKey::generate().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.pem");
    let pems = keys.each_ref().map(|key| key.to_pem().unwrap());
    std::fs::write(&file, pems.concat()).unwrap();
    let file = file.to_str().unwrap();
    let gateway = Program::start(binary("gateway"), &[("ASSERTION_KEYS", file)]);
    let (_, _, jwks) = gateway.send("GET", "/.well-known/jwks.json", "");
    for key in &keys {
        assert!(jwks.contains(key.kid()), "{jwks}");
    }
    let ada = cookie(&gateway.send("POST", "/login/ada", "").1);
    assert_eq!(gateway.send("GET", "/orders", &ada).0, 200);
}
