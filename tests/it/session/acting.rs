//! One user acts as another, and comes back.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    AtLimit, Client, MemoryStore, Session, SessionError, SessionLayer, SessionStore, Sessions,
    TestClock,
};
use support::{Browser, builder, routes};

const MINUTE: Duration = Duration::from_secs(60);

type Store = FaultyStore<MemoryStore>;

struct Setup {
    clock: TestClock,
    spy: Store,
    sessions: Sessions<Store>,
    app: Router,
}

fn setup() -> Setup {
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone()).clock(clock.clone()).build().unwrap();
    Setup {
        clock,
        spy,
        sessions: layer.sessions(),
        app: app(layer),
    }
}

fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    async fn act_as(
        session: Session,
        Path(user): Path<String>,
    ) -> Result<&'static str, SessionError> {
        session.act_as(user)?;
        Ok("done")
    }
    async fn stop(session: Session) -> Result<String, SessionError> {
        Ok(session.stop_acting().await?.to_string())
    }
    async fn stop_and_insert(session: Session) -> Result<String, SessionError> {
        session.insert("lost", "acted")?;
        session.stop_acting().await?;
        session.insert("note", "back")?;
        Ok(format!("{:?}", session.user().map(|user| user.to_string())))
    }
    async fn who(session: Session) -> String {
        let name = |user: Option<cloakroom::UserId>| {
            user.map_or_else(|| "nobody".into(), |user| user.to_string())
        };
        format!("{} by {}", name(session.user()), name(session.actor()))
    }
    async fn log_in_and_act(session: Session) -> Result<(), SessionError> {
        session.log_in("ada")?;
        session.act_as("bob")
    }
    async fn recent(session: Session) -> Result<&'static str, SessionError> {
        session.require_recent_login(5 * MINUTE)?;
        Ok("recent")
    }
    async fn steps(session: Session, Path(steps): Path<String>) -> Result<(), SessionError> {
        for step in steps.split(',') {
            match step {
                "act_as" => session.act_as("bob")?,
                "act_as_eve" => session.act_as("eve")?,
                "log_in" => session.log_in("carol")?,
                "log_in_again" => session.log_in("ada")?,
                "log_out" => session.log_out()?,
                "destroy" => session.destroy()?,
                "stop" => assert!(session.stop_acting().await?),
                _ => panic!("{step}"),
            }
        }
        Ok(())
    }
    async fn client(session: Session) -> Result<(), SessionError> {
        session.set_client(Client::new().with_user_agent("Admin's browser"))
    }
    routes()
        .route("/act_as/{user}", get(act_as))
        .route("/stop", get(stop))
        .route("/stop_and_insert", get(stop_and_insert))
        .route("/who", get(who))
        .route("/log_in_and_act", get(log_in_and_act))
        .route("/recent", get(recent))
        .route("/client", get(client))
        .route("/steps/{steps}", get(steps))
        .layer(layer)
}

async fn logged_in(app: &Router, user: &str) -> Browser {
    let mut browser = Browser::new(app);
    let path = format!("/log_in/{user}");
    browser.get(&path).await.assert(200, "done");
    browser
}

/// Ada, who acts as Bob.
async fn acting(app: &Router) -> Browser {
    let mut browser = logged_in(app, "ada").await;
    browser.get("/act_as/bob").await.assert(200, "done");
    browser
}

#[tokio::test]
async fn a_user_who_acts_as_another_is_the_other_and_comes_back_to_the_own_session() {
    let Setup { app, spy, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    browser.get("/insert/theme/dark").await;
    browser.get("/who").await.assert(200, "ada by nobody");
    browser.get("/act_as/bob").await.assert(200, "done");
    browser.get("/who").await.assert(200, "bob by ada");
    browser.get("/get/theme").await.assert(200, "nothing");
    browser.get("/insert/theme/light").await;
    browser.get("/stop").await.assert(200, "true");
    browser.get("/who").await.assert(200, "ada by nobody");
    browser.get("/get/theme").await.assert(200, "dark");
    assert_eq!(spy.inner().len(), 1, "the other user's session stayed");
}

#[tokio::test]
async fn each_step_gives_a_new_token_and_kills_the_one_before() {
    let Setup { app, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    let own = browser.clone();
    browser.get("/act_as/bob").await;
    let as_bob = browser.clone();
    browser.get("/stop").await.assert(200, "true");
    as_bob
        .clone()
        .get("/who")
        .await
        .assert(200, "nobody by nobody");
    // The own token was in the browser before, so that somebody may have seen it.
    own.clone()
        .get("/who")
        .await
        .assert(200, "nobody by nobody");
    browser.get("/who").await.assert(200, "ada by nobody");
}

#[tokio::test]
async fn the_end_of_the_actors_session_ends_the_acting_one() {
    let Setup {
        app, sessions, spy, ..
    } = setup();
    let mut browser = acting(&app).await;
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 1);
    browser.get("/who").await.assert(200, "nobody by nobody");
    assert_eq!(spy.inner().len(), 0, "the acting session stayed");
}

#[tokio::test]
async fn the_end_of_the_other_users_sessions_ends_the_acting_one() {
    let Setup { app, sessions, .. } = setup();
    let mut browser = acting(&app).await;
    assert_eq!(sessions.revoke_user("bob").await.unwrap(), 1);
    browser.get("/who").await.assert(200, "nobody by nobody");
}

#[tokio::test]
async fn a_write_of_a_request_that_runs_while_the_actors_session_ends_revives_nothing() {
    let Setup {
        app, sessions, spy, ..
    } = setup();
    let mut browser = acting(&app).await;
    let mut parallel = browser.clone();
    parallel.get("/insert/x/1").await.assert(200, "done");
    sessions.revoke_user("ada").await.unwrap();
    browser.get("/insert/theme/dark").await;
    // What is there now is a visitor's.
    browser.get("/who").await.assert(200, "nobody by nobody");
    for user in ["ada", "bob"] {
        assert!(sessions.list_for(user).await.unwrap().is_empty());
    }
    assert!(spy.inner().len() <= 1);
}

#[tokio::test]
async fn a_logout_while_acting_ends_both_sessions() {
    let Setup { app, spy, .. } = setup();
    let mut browser = acting(&app).await;
    browser.get("/log_out").await.assert(200, "done");
    assert_eq!(spy.inner().len(), 0);
    browser.get("/who").await.assert(200, "nobody by nobody");
}

/// The client loses its way to each session that it had.
#[tokio::test]
async fn a_logout_or_a_login_leaves_no_session_that_nobody_can_reach() {
    for (steps, left) in [
        ("act_as/log_out", 0),
        ("act_as/destroy", 0),
        ("act_as/log_in", 1),
        ("act_as;log_in", 1),
        ("act_as;log_in_again", 1),
        ("act_as;log_in/log_out", 0),
        ("act_as;stop/log_out", 0),
        ("act_as;stop/log_in", 1),
        ("act_as;stop/act_as_eve", 2),
        ("act_as;stop/act_as_eve/log_out", 0),
    ] {
        let Setup { app, spy, .. } = setup();
        let mut browser = logged_in(&app, "ada").await;
        for request in steps.split(';') {
            let request = request.replace('/', ",");
            browser.get(&format!("/steps/{request}")).await;
        }
        assert_eq!(spy.inner().len(), left, "{steps}");
    }
}

#[tokio::test]
async fn a_list_of_sessions_shows_who_acts_and_where_from() {
    let Setup { app, sessions, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    browser.get("/client").await;
    browser.get("/act_as/bob").await;
    let listed = sessions.list_for("bob").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].actor().unwrap().as_str(), "ada");
    assert_eq!(listed[0].user().unwrap().as_str(), "bob");
    let client = listed[0].client().unwrap();
    assert_eq!(client.user_agent(), Some("Admin's browser"));
    let own = sessions.list_for("ada").await.unwrap();
    assert_eq!(own.len(), 1);
    assert!(own[0].actor().is_none());
    // Bob may end what is done in his name.
    assert!(sessions.revoke_owned("bob", listed[0].id()).await.unwrap());
    browser.get("/who").await.assert(200, "nobody by nobody");
}

#[tokio::test]
async fn a_list_shows_no_acting_session_whose_actor_is_gone() {
    let Setup {
        app, sessions, spy, ..
    } = setup();
    let _browser = acting(&app).await;
    sessions.revoke_user("ada").await.unwrap();
    assert!(sessions.list_for("bob").await.unwrap().is_empty());
    assert_eq!(spy.inner().len(), 0);
}

#[tokio::test]
async fn nobody_acts_twice_or_as_themselves_or_without_a_session() {
    let Setup { app, .. } = setup();
    let mut browser = acting(&app).await;
    browser.get("/act_as/eve").await.assert(403, "");
    browser.get("/who").await.assert(200, "bob by ada");
    logged_in(&app, "ada")
        .await
        .get("/act_as/ada")
        .await
        .assert(403, "");
    Browser::new(&app).get("/act_as/bob").await.assert(401, "");
    let mut quick = Browser::new(&app);
    quick.get("/log_in_and_act").await.assert(403, "");
    quick.get("/act_as/").await.assert(404, "");
}

#[tokio::test]
async fn who_acts_for_themselves_has_nothing_to_stop() {
    let Setup { app, .. } = setup();
    logged_in(&app, "ada")
        .await
        .get("/stop")
        .await
        .assert(200, "false");
    Browser::new(&app).get("/stop").await.assert(200, "false");
}

#[tokio::test]
async fn a_handler_that_stops_acting_goes_on_in_the_own_session() {
    let Setup { app, .. } = setup();
    let mut browser = acting(&app).await;
    let reply = browser.get("/stop_and_insert").await;
    reply.assert(200, "Some(\"ada\")");
    browser.get("/get/note").await.assert(200, "back");
    browser.get("/get/lost").await.assert(200, "nothing");
}

#[tokio::test]
async fn the_own_session_stays_alive_while_its_user_acts() {
    let Setup { app, clock, .. } = setup();
    let mut browser = acting(&app).await;
    for _ in 0..6 {
        clock.advance(20 * MINUTE);
        browser.get("/who").await.assert(200, "bob by ada");
    }
    browser.get("/stop").await.assert(200, "true");
    browser.get("/who").await.assert(200, "ada by nobody");
}

#[tokio::test]
async fn acting_ends_with_the_absolute_timeout_of_the_own_session() {
    let Setup { app, clock, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    // Eleven of the twelve hours.
    for _ in 0..33 {
        clock.advance(20 * MINUTE);
        browser.get("/who").await.assert(200, "ada by nobody");
    }
    browser.get("/act_as/bob").await.assert(200, "done");
    clock.advance(20 * MINUTE);
    browser.get("/who").await.assert(200, "bob by ada");
    clock.advance(20 * MINUTE);
    browser.get("/who").await.assert(200, "bob by ada");
    clock.advance(20 * MINUTE);
    browser.get("/who").await.assert(200, "nobody by nobody");
}

#[tokio::test]
async fn a_recent_login_is_that_of_the_user_who_acts() {
    let Setup { app, clock, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    clock.advance(6 * MINUTE);
    browser.get("/act_as/bob").await;
    browser.get("/recent").await.assert(401, "");
}

#[tokio::test]
async fn a_failed_store_is_no_logout_while_acting() {
    let Setup { app, spy, .. } = setup();
    let mut browser = acting(&app).await;
    spy.fail_at(StoreCall::Load, Fault::Refused);
    browser.get("/who").await.assert(503, "");
    spy.recover();
    browser.get("/who").await.assert(200, "bob by ada");
}

#[tokio::test]
async fn an_acting_session_takes_no_place_of_its_users_session_limit() {
    for at_limit in [AtLimit::EndOldest, AtLimit::RefuseLogin] {
        let layer = builder(MemoryStore::new())
            .session_limit(1, at_limit)
            .build()
            .unwrap();
        let app = app(layer);
        let mut bob = logged_in(&app, "bob").await;
        let mut ada = acting(&app).await;
        bob.get("/who").await.assert(200, "bob by nobody");
        ada.get("/who").await.assert(200, "bob by ada");
        // A login of Bob himself does not end it either.
        bob.get("/log_in/bob").await.assert(200, "done");
        ada.get("/who").await.assert(200, "bob by ada");
    }
}

#[tokio::test]
async fn a_login_in_an_acting_session_is_a_session_of_its_own() {
    let Setup { app, sessions, .. } = setup();
    let mut browser = acting(&app).await;
    browser.get("/insert/theme/dark").await;
    browser.get("/log_in/bob").await.assert(200, "done");
    browser.get("/who").await.assert(200, "bob by nobody");
    browser.get("/get/theme").await.assert(200, "nothing");
    sessions.revoke_user("ada").await.unwrap();
    browser.get("/who").await.assert(200, "bob by nobody");
}

#[tokio::test]
async fn a_store_that_fails_while_somebody_stops_acting_logs_nobody_out() {
    for call in [StoreCall::Load, StoreCall::Replace, StoreCall::Remove] {
        let Setup { app, spy, .. } = setup();
        let mut browser = acting(&app).await;
        spy.fail_at(call, Fault::Refused);
        browser.get("/stop").await.assert(503, "");
        spy.recover();
        browser.get("/who").await.assert(200, "bob by ada");
        browser.get("/stop").await.assert(200, "true");
        browser.get("/who").await.assert(200, "ada by nobody");
        assert_eq!(spy.inner().len(), 1, "{call:?}");
    }
}
