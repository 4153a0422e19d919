//! What the hooks of a layer hear: every kind of event, in order, with what it says, and no secret.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cloakroom::login::{Auth, Users as _};
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    AtLimit, Client, Clock as _, EndCause, MemoryStore, Session, SessionError, SessionEvent,
    SessionEventKind, SessionLayer, SessionLayerBuilder, SessionStore, Sessions, TestClock,
    Timestamp,
};
use support::{Browser, builder, id_of, routes};

use crate::login::site::{Db, Site};
use crate::secrecy::logging::Log;

const MINUTE: Duration = Duration::from_secs(60);

type Store = FaultyStore<MemoryStore>;
type Builder = SessionLayerBuilder<Store>;

/// What a hook has heard.
#[derive(Clone, Default)]
pub(crate) struct Heard(pub(super) Arc<Mutex<Vec<SessionEvent>>>);

impl Heard {
    pub(crate) fn hook(&self) -> impl Fn(&SessionEvent) + Send + Sync + 'static {
        let heard = self.clone();
        move |event| heard.0.lock().unwrap().push(event.clone())
    }

    /// The events since the last call.
    pub(crate) fn take(&self) -> Vec<SessionEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn take_one(&self) -> SessionEvent {
        let mut events = self.take();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    /// The events since the last call, each as a line.
    #[track_caller]
    fn assert(&self, expected: &[&str]) {
        let lines: Vec<_> = self.take().iter().map(line).collect();
        assert_eq!(lines, expected);
    }
}

/// Such as `ended revoked: bob (ada acts), asked by admin`.
fn line(event: &SessionEvent) -> String {
    let mut line = event.kind().as_str().to_owned();
    if let Some(cause) = event.cause() {
        line += &format!(" {cause}");
    }
    if let Some(user) = event.user() {
        line += &format!(": {user}");
    }
    if let Some(actor) = event.actor() {
        line += &format!(" ({actor} acts)");
    }
    if let Some(name) = event.asked_by() {
        line += &format!(", asked by {name}");
    }
    line
}

struct Setup {
    heard: Heard,
    clock: TestClock,
    spy: Store,
    sessions: Sessions<Store>,
    app: Router,
}

fn setup() -> Setup {
    setup_with(|builder| builder)
}

fn setup_with(set: impl FnOnce(Builder) -> Builder) -> Setup {
    let heard = Heard::default();
    let clock = TestClock::new();
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = builder(spy.clone())
        .clock(clock.clone())
        .on_event(heard.hook());
    let layer = set(layer).build().unwrap();
    Setup {
        heard,
        clock,
        spy,
        sessions: layer.sessions(),
        app: app(layer),
    }
}

fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    async fn steps(session: Session, Path(steps): Path<String>) -> Result<(), SessionError> {
        for step in steps.split(',') {
            match step {
                "ada" | "bob" => session.log_in(step)?,
                "act" => session.act_as("bob")?,
                "stop" => drop(session.stop_acting().await?),
                "log_out" => session.log_out()?,
                "is_over" => session.ends_by(Timestamp::from_millis(1))?,
                "phone" => {
                    let client = Client::new().with_user_agent("phone");
                    session.set_client(client.with_address("192.0.2.7"))?;
                }
                _ => panic!("{step}"),
            }
        }
        Ok(())
    }
    routes().route("/steps/{steps}", get(steps)).layer(layer)
}

async fn logged_in(app: &Router, user: &str) -> Browser {
    let mut browser = Browser::new(app);
    let path = format!("/log_in/{user}");
    browser.get(&path).await.assert(200, "done");
    browser
}

/// Ada, who acts as Bob.
async fn acting(setup: &Setup) -> Browser {
    let mut browser = logged_in(&setup.app, "ada").await;
    browser.get("/steps/act").await.assert(200, "");
    setup.heard.take();
    browser
}

#[tokio::test]
async fn the_life_of_a_session_is_heard_in_its_order() {
    let Setup { heard, app, .. } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/insert/theme/dark").await;
    heard.assert(&["created"]);
    browser.get("/log_in/ada").await;
    heard.assert(&["rotated: ada", "logged_in: ada"]);
    browser.get("/regenerate").await;
    heard.assert(&["rotated: ada"]);
    browser.get("/insert/theme/light").await;
    browser.get("/get/theme").await;
    heard.assert(&[]);
    browser.get("/log_out").await;
    heard.assert(&["ended logged_out: ada"]);

    logged_in(&app, "ada").await.get("/log_out").await;
    heard.assert(&["created: ada", "logged_in: ada", "ended logged_out: ada"]);
}

#[tokio::test]
async fn an_event_says_whose_session_it_is_and_when_and_from_where() {
    let Setup {
        heard,
        clock,
        app,
        sessions,
        ..
    } = setup();
    let mut browser = Browser::new(&app);
    browser.get("/steps/ada,phone").await.assert(200, "");
    let id = id_of(&browser.token());
    let logged_in_at = clock.now();
    clock.advance(MINUTE);
    assert!(sessions.by("admin:7").revoke(id).await.unwrap());
    let events = heard.take();
    for event in &events {
        assert_eq!(event.record_id(), Some(id));
        assert_eq!(event.user().unwrap().as_str(), "ada");
        assert_eq!(event.client().unwrap().user_agent(), Some("phone"));
        assert_eq!(event.client().unwrap().address(), Some("192.0.2.7"));
        assert_eq!(event.reason(), None);
        assert_eq!(event.actor(), None);
    }
    let [created, logged_in, ended] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(created.kind(), SessionEventKind::Created);
    assert_eq!(created.at(), logged_in_at);
    assert_eq!(logged_in.kind(), SessionEventKind::LoggedIn);
    assert_eq!(logged_in.at(), logged_in_at);
    assert_eq!((logged_in.cause(), logged_in.asked_by()), (None, None));
    assert_eq!(ended.kind(), SessionEventKind::Ended);
    assert_eq!(ended.at(), logged_in_at + MINUTE);
    assert_eq!(ended.cause(), Some(EndCause::Revoked));
    assert_eq!(ended.asked_by(), Some("admin:7"));
    let at = ended.at();
    assert_eq!(
        serde_json::to_string(ended).unwrap(),
        format!(
            r#"{{"event":"ended","at":"{at}","record":"{id}","user":"ada","client":{{"user_agent":"phone","address":"192.0.2.7"}},"cause":"revoked","asked_by":"admin:7"}}"#
        )
    );
}

#[tokio::test]
async fn a_word_is_the_same_as_text_as_json_and_in_the_log() {
    for (kind, word) in [
        (SessionEventKind::Created, "created"),
        (SessionEventKind::LoggedIn, "logged_in"),
        (SessionEventKind::Rotated, "rotated"),
        (SessionEventKind::Retired, "retired"),
        (SessionEventKind::Ended, "ended"),
        (SessionEventKind::Expired, "expired"),
        (SessionEventKind::Rejected, "rejected"),
        (SessionEventKind::LoginRefused, "login_refused"),
        (SessionEventKind::Acting, "acting"),
        (SessionEventKind::StoppedActing, "stopped_acting"),
    ] {
        assert_eq!(kind.to_string(), word);
        assert_eq!(serde_json::to_value(kind).unwrap(), word);
    }
    for (cause, word) in [
        (EndCause::LoggedOut, "logged_out"),
        (EndCause::Destroyed, "destroyed"),
        (EndCause::LoggedOutEverywhere, "logged_out_everywhere"),
        (EndCause::Revoked, "revoked"),
        (EndCause::SwitchedUser, "switched_user"),
        (EndCause::Replaced, "replaced"),
        (EndCause::StoppedActing, "stopped_acting"),
        (EndCause::ActorEnded, "actor_ended"),
        (EndCause::SessionLimit, "session_limit"),
        (EndCause::LoginRefused, "login_refused"),
        (EndCause::LoginFailed, "login_failed"),
        (EndCause::CredentialsChanged, "credentials_changed"),
        (EndCause::Expired, "expired"),
    ] {
        assert_eq!(cause.to_string(), word);
        assert_eq!(serde_json::to_value(cause).unwrap(), word);
        assert_eq!(
            serde_json::from_value::<EndCause>(word.into()).unwrap(),
            cause
        );
    }

    let (log, _guard) = Log::start();
    let Setup {
        heard,
        app,
        sessions,
        ..
    } = setup_with(|builder| builder.session_limit(1, AtLimit::RefuseLogin));
    let mut browser = logged_in(&app, "ada").await;
    Browser::new(&app).get("/log_in/ada").await.assert(403, "");
    browser.get("/regenerate").await;
    browser.get("/steps/act").await;
    browser.get("/steps/stop").await;
    let id = id_of(&browser.token());
    sessions.by("admin:7").revoke(id).await.unwrap();
    browser.get("/").await;
    let log = log.take();
    let events = heard.take();
    assert!(events.len() >= 9, "{events:?}");
    for event in &events {
        let word = format!("event=\"{}\"", event.kind().as_str());
        assert!(log.contains(&word), "no {word} in {log}");
    }
    let revoked = log.lines().find(|line| line.contains("cause=\"revoked\""));
    assert!(revoked.unwrap().contains("asked_by=\"admin:7\""));
}

#[tokio::test]
async fn each_way_to_end_a_session_has_its_cause() {
    let setup = setup();
    let Setup {
        heard,
        app,
        sessions,
        ..
    } = &setup;

    logged_in(app, "ada").await.get("/destroy").await;
    assert_eq!(line(&heard.take()[2]), "ended destroyed: ada");

    let ada = id_of(&logged_in(app, "ada").await.token());
    heard.take();
    assert!(!sessions.revoke_owned("bob", ada).await.unwrap());
    heard.assert(&[]);
    assert!(sessions.by("ada").revoke_owned("ada", ada).await.unwrap());
    heard.assert(&["ended revoked: ada, asked by ada"]);
    assert!(!sessions.revoke(ada).await.unwrap());
    heard.assert(&[]);

    let kept = id_of(&logged_in(app, "ada").await.token());
    logged_in(app, "ada").await;
    logged_in(app, "bob").await;
    heard.take();
    assert_eq!(sessions.revoke_others("ada", kept).await.unwrap(), 1);
    heard.assert(&["ended revoked: ada"]);
    logged_in(app, "ada").await;
    heard.take();
    assert_eq!(sessions.by("a job").revoke_user("ada").await.unwrap(), 2);
    heard.assert(&[
        "ended revoked: ada, asked by a job",
        "ended revoked: ada, asked by a job",
    ]);
    assert_eq!(sessions.revoke_user("ada").await.unwrap(), 0);
    heard.assert(&[]);

    // Another user logs in, in the same browser.
    let mut browser = logged_in(app, "ada").await;
    heard.take();
    browser.get("/log_in/bob").await;
    heard.assert(&["created: bob", "logged_in: bob", "ended switched_user: ada"]);

    // A browser with the cookies of two sessions.
    let tokens = [
        logged_in(app, "ada").await.token(),
        logged_in(app, "bob").await.token(),
    ];
    let cookies = tokens.map(|token| format!("__Host-session={token}"));
    heard.take();
    let mut confused = Browser::new(app);
    let both = [("cookie", &*cookies.join("; "))];
    confused.get_with("/log_in/ada", &both).await;
    heard.assert(&[
        "rejected",
        "created: ada",
        "logged_in: ada",
        "ended replaced: ada",
        "ended replaced: bob",
    ]);
}

#[tokio::test]
async fn a_logout_everywhere_ends_each_session_once() {
    let heard = Heard::default();
    let layer = builder(MemoryStore::new())
        .on_event(heard.hook())
        .build()
        .unwrap();
    let sessions = layer.sessions();
    let everywhere = move |session: Session| async move {
        let ended = sessions.log_out_everywhere(&session).await?;
        Ok::<_, SessionError>(ended.to_string())
    };
    let app = Router::new()
        .route("/everywhere", get(everywhere))
        .merge(app(layer.clone()))
        .layer(layer);
    logged_in(&app, "ada").await;
    let mut browser = logged_in(&app, "ada").await;
    heard.take();
    browser.get("/everywhere").await.assert(200, "2");
    heard.assert(&["ended logged_out_everywhere: ada"; 2]);

    // A user who acts as another asks for it: that ends the other's sessions, and their own.
    let mut staff = logged_in(&app, "ada").await;
    staff.get("/steps/act").await.assert(200, "");
    heard.take();
    staff.get("/everywhere").await.assert(200, "1");
    heard.assert(&[
        "ended logged_out_everywhere: bob (ada acts), asked by ada",
        "ended logged_out_everywhere: ada, asked by ada",
    ]);
}

#[tokio::test]
async fn who_acts_as_another_is_named() {
    let setup = setup();
    let Setup {
        heard,
        app,
        sessions,
        ..
    } = &setup;
    let mut browser = logged_in(app, "ada").await;
    let own = id_of(&browser.token());
    heard.take();
    browser.get("/steps/act").await.assert(200, "");
    heard.assert(&["created: bob (ada acts)", "acting: bob (ada acts)"]);
    browser.get("/steps/stop").await.assert(200, "");
    let events = heard.take();
    assert_eq!(
        events.iter().map(line).collect::<Vec<_>>(),
        [
            "rotated: ada",
            "ended stopped_acting: bob (ada acts), asked by ada",
            "stopped_acting: ada"
        ]
    );
    assert_eq!(events[2].record_id(), Some(own));

    acting(&setup).await.get("/log_out").await;
    heard.assert(&[
        "ended logged_out: ada, asked by ada",
        "ended logged_out: bob (ada acts), asked by ada",
    ]);

    // The own session ends, and the other one with it, at the next request or at the next list.
    for asks in [true, false] {
        let mut browser = acting(&setup).await;
        sessions.revoke_user("ada").await.unwrap();
        heard.take();
        match asks {
            true => {
                browser.get("/").await;
                heard.assert(&[
                    "ended actor_ended: bob (ada acts)",
                    "rejected: bob (ada acts)",
                ]);
            }
            false => {
                assert!(sessions.list_for("bob").await.unwrap().is_empty());
                heard.assert(&["ended actor_ended: bob (ada acts)"]);
            }
        }
    }
}

#[tokio::test]
async fn a_handler_that_fails_has_not_stopped_acting() {
    let setup = setup();
    let mut browser = acting(&setup).await;
    setup.spy.fail_once(StoreCall::Replace, Fault::Refused);
    browser.get("/steps/stop").await.assert(503, "");
    setup.heard.assert(&[]);
}

#[tokio::test]
async fn the_session_limit_is_heard() {
    let Setup { heard, app, .. } =
        setup_with(|builder| builder.session_limit(1, AtLimit::EndOldest));
    let mut browser = logged_in(&app, "ada").await;
    heard.take();
    logged_in(&app, "ada").await;
    heard.assert(&["created: ada", "logged_in: ada", "ended session_limit: ada"]);
    browser.get("/").await;
    heard.assert(&["rejected"]);

    let Setup { heard, app, .. } =
        setup_with(|builder| builder.session_limit(1, AtLimit::RefuseLogin));
    logged_in(&app, "ada").await;
    let mut visitor = Browser::new(&app);
    heard.take();
    visitor.get("/steps/phone,ada").await.assert(403, "");
    let refused = heard.take_one();
    assert_eq!(line(&refused), "login_refused: ada");
    assert_eq!(refused.record_id(), None);
    assert_eq!(refused.client().unwrap().user_agent(), Some("phone"));
    visitor.get("/insert/cart/book").await;
    visitor.get("/log_in/ada").await.assert(403, "");
    let events = heard.take();
    assert_eq!(line(&events[1]), "login_refused: ada");
    assert_eq!(events[1].record_id(), Some(id_of(&visitor.token())));
}

#[tokio::test]
async fn a_login_that_loses_a_race_at_the_limit_is_heard_of_to_its_end() {
    let setup = setup_with(|builder| builder.session_limit(1, AtLimit::RefuseLogin));
    let Setup {
        heard, app, spy, ..
    } = &setup;
    let mut gate = spy.hold_next(StoreCall::Insert);
    let slow = tokio::spawn(Browser::new(app).send("/log_in/ada", &[]));
    gate.arrived().await;
    logged_in(app, "ada").await;
    heard.take();
    gate.release();
    slow.await.unwrap().assert(403, "");
    heard.assert(&[
        "created: ada",
        "logged_in: ada",
        "ended login_refused: ada",
        "login_refused: ada",
    ]);
}

#[tokio::test]
async fn a_login_that_cannot_end_the_session_of_before_has_failed() {
    let Setup {
        heard, app, spy, ..
    } = setup();
    let mut browser = logged_in(&app, "ada").await;
    heard.take();
    spy.fail_times(2, StoreCall::Remove, Fault::Refused);
    browser.get("/log_in/bob").await.assert(503, "");
    heard.assert(&["created: bob", "logged_in: bob", "ended login_failed: bob"]);
}

#[tokio::test]
async fn a_commit_that_fails_says_nothing() {
    let Setup {
        heard,
        app,
        spy,
        sessions,
        ..
    } = setup();
    let mut browser = Browser::new(&app);
    spy.fail_at(StoreCall::Insert, Fault::Refused);
    browser.get("/log_in/ada").await.assert(503, "");
    heard.assert(&[]);
    spy.recover();
    browser.get("/log_in/ada").await.assert(200, "done");
    heard.take();
    spy.fail_at(StoreCall::Replace, Fault::Refused);
    browser.get("/regenerate").await.assert(503, "");
    browser.get("/log_in/ada").await.assert(503, "");
    spy.fail_at(StoreCall::Remove, Fault::Refused);
    browser.get("/log_out").await.assert(503, "");
    let id = id_of(&browser.token());
    sessions.revoke(id).await.unwrap_err();
    spy.fail_at(StoreCall::RemoveByUser, Fault::Refused);
    sessions.revoke_user("ada").await.unwrap_err();
    spy.recover();
    browser.get("/fail/log_in").await.assert(500, "failed");
    browser.get("/fail/regenerate").await.assert(500, "failed");
    heard.assert(&[]);
    // The end of a session stays, though the handler fails.
    browser.get("/fail/destroy").await.assert(500, "failed");
    heard.assert(&["ended destroyed: ada"]);
}

#[tokio::test]
async fn parallel_ends_are_heard_of_once() {
    let Setup {
        heard,
        app,
        sessions,
        spy,
        ..
    } = setup();
    let browser = logged_in(&app, "ada").await;
    let id = id_of(&browser.token());
    heard.take();
    let mut gates = [(); 2].map(|()| spy.hold_next(StoreCall::Remove));
    let logouts = [(); 2].map(|()| tokio::spawn(browser.clone().send("/log_out", &[])));
    for gate in &mut gates {
        gate.arrived().await;
    }
    gates.into_iter().for_each(|gate| gate.release());
    for logout in logouts {
        logout.await.unwrap().assert(200, "done");
    }
    sessions.revoke(id).await.unwrap();
    heard.assert(&["ended logged_out: ada"]);
}

#[tokio::test]
async fn an_end_is_heard_of_though_its_first_answer_is_lost() {
    let Setup {
        heard, app, spy, ..
    } = setup();
    let mut browser = logged_in(&app, "ada").await;
    heard.take();
    spy.fail_once(StoreCall::Remove, Fault::AnswerLost);
    browser.get("/log_in/bob").await.assert(200, "done");
    heard.assert(&["created: bob", "logged_in: bob", "ended switched_user: ada"]);
}

#[tokio::test]
async fn an_end_is_heard_of_though_the_look_before_it_fails() {
    let Setup {
        heard,
        app,
        spy,
        sessions,
        ..
    } = setup();
    let id = id_of(&logged_in(&app, "ada").await.token());
    heard.take();
    spy.fail_at(StoreCall::Load, Fault::Refused);
    assert!(sessions.revoke(id).await.unwrap());
    let ended = heard.take_one();
    assert_eq!(line(&ended), "ended revoked");
    assert_eq!(ended.record_id(), Some(id));
    spy.recover();

    logged_in(&app, "ada").await;
    logged_in(&app, "ada").await;
    heard.take();
    spy.fail_at(StoreCall::FindByUser, Fault::Refused);
    assert_eq!(sessions.by("me").revoke_user("ada").await.unwrap(), 2);
    let ended = heard.take_one();
    assert_eq!(line(&ended), "ended revoked: ada, asked by me");
    assert_eq!(ended.record_id(), None);
}

#[tokio::test]
async fn an_expiry_is_heard_of_once_for_each_session() {
    let Setup {
        heard,
        app,
        clock,
        sessions,
        ..
    } = setup();
    let mut ada = logged_in(&app, "ada").await;
    let mut bob = logged_in(&app, "bob").await;
    heard.take();
    clock.advance(31 * MINUTE);
    for _ in 0..3 {
        ada.clone().get("/").await;
    }
    heard.assert(&["expired expired: ada"]);
    // A purge does not say what it removes.
    assert_eq!(sessions.purge_expired().await.unwrap(), 0);
    bob.clone().get("/").await;
    heard.assert(&["expired expired: bob"]);
    clock.advance(11 * MINUTE);
    assert_eq!(sessions.purge_expired().await.unwrap(), 2);
    heard.assert(&[]);
    ada.get("/").await;
    bob.get("/").await;
    heard.assert(&["rejected", "rejected"]);
}

#[tokio::test]
async fn a_session_that_a_handler_ends_in_the_past_has_expired() {
    let Setup { heard, app, .. } = setup();
    let mut browser = logged_in(&app, "ada").await;
    heard.take();
    browser.get("/steps/is_over").await.assert(200, "");
    heard.assert(&["expired expired: ada"]);
    browser.get("/").await;
    heard.assert(&[]);
}

#[tokio::test]
async fn a_login_that_new_credentials_retire_ends_because_of_them() {
    let heard = Heard::default();
    let site = Site::with(|builder| builder.on_event(heard.hook()));
    let name =
        |user: Option<Auth<Db>>| async { user.map_or("nobody".into(), |user| user.name.clone()) };
    let app = Router::new()
        .route("/", get(name))
        .layer(site.layer.clone());
    let mut browser = site.member(&app, "ada").await;
    let mut unused = site.member(&app, "ada").await;
    heard.take();
    site.db.set_password("ada", "the second");
    for _ in 0..2 {
        assert_eq!(browser.get("/").await.unwrap().body(), "nobody");
    }
    heard.assert(&["retired: ada"]);
    site.clock.advance(MINUTE);
    browser.get("/").await.unwrap();
    browser.get("/").await.unwrap();
    heard.assert(&["ended credentials_changed: ada"]);

    // A login saves the session. Later it expires as every session does.
    assert_eq!(unused.get("/").await.unwrap().body(), "nobody");
    let user = site.db.user("ada").unwrap();
    let fresh = Db::account(&user);
    let login = unused.with_session(&site.layer, |session| session.log_in(fresh));
    login.await.unwrap();
    heard.assert(&["retired: ada", "rotated: ada", "logged_in: ada"]);
    site.clock.advance(31 * MINUTE);
    unused.get("/").await.unwrap();
    heard.assert(&["expired expired: ada"]);
}

#[tokio::test]
async fn a_rejected_token_is_heard_of_with_the_reason() {
    let Setup {
        heard,
        app,
        sessions,
        ..
    } = setup();
    let forged = format!("__Host-session={}", "A".repeat(70));
    let mut visitor = Browser::new(&app);
    visitor.get_with("/", &[("cookie", &forged)]).await;
    let rejected = heard.take_one();
    assert_eq!(rejected.kind(), SessionEventKind::Rejected);
    assert_eq!(rejected.reason(), Some("bad signature"));
    assert_eq!(rejected.record_id(), None);

    let mut browser = logged_in(&app, "ada").await;
    let old = browser.clone();
    let id = id_of(&browser.token());
    browser.get("/regenerate").await;
    heard.take();
    old.clone().get("/").await;
    let rejected = heard.take_one();
    assert_eq!(rejected.reason(), Some("the token was rotated"));
    assert_eq!(rejected.record_id(), Some(id));
    assert_eq!(rejected.user().unwrap().as_str(), "ada");

    sessions.revoke(id).await.unwrap();
    heard.take();
    browser.get("/").await;
    let rejected = heard.take_one();
    assert_eq!(rejected.reason(), Some("no such session"));
    assert_eq!(rejected.record_id(), Some(id));

    let mut two = Vec::new();
    for user in ["ada", "bob"] {
        let token = logged_in(&app, user).await.token();
        two.push(format!("__Host-session={token}"));
    }
    heard.take();
    visitor.get_with("/", &[("cookie", &two.join("; "))]).await;
    let rejected = heard.take_one();
    assert_eq!(rejected.reason(), Some("two different tokens"));
}

/// A user of another realm may have the same id, and is somebody else.
#[tokio::test]
async fn a_token_of_another_realm_is_rejected_without_a_name() {
    let heard = Heard::default();
    let store = Arc::new(MemoryStore::new());
    let shops = builder(store.clone()).realm("shops").build().unwrap();
    let clients = builder(store)
        .realm("clients")
        .on_event(heard.hook())
        .build()
        .unwrap();
    let cookie = format!(
        "__Host-session={}",
        logged_in(&app(shops), "ada").await.token()
    );
    let mut browser = Browser::new(&app(clients));
    browser.get_with("/", &[("cookie", &cookie)]).await;
    let rejected = heard.take_one();
    assert_eq!(
        rejected.reason(),
        Some("the session belongs to a user of another realm")
    );
    assert_eq!(rejected.user(), None);
}

#[tokio::test]
async fn a_hook_that_panics_spoils_neither_the_request_nor_the_other_hooks() {
    let (log, _guard) = Log::start();
    let second = Heard::default();
    let Setup { heard, app, .. } = setup_with(|builder| {
        builder
            .on_event(|_| panic!("a mistake in a hook"))
            .on_event(second.hook())
    });
    let mut browser = logged_in(&app, "ada").await;
    let expected = ["created: ada", "logged_in: ada"];
    heard.assert(&expected);
    second.assert(&expected);
    let line = log.assert("ERROR", "hook_panicked");
    assert!(line.contains("hooked=\"logged_in\""), "{line}");
    browser.get("/user").await.assert(200, "ada");
    browser.get("/log_out").await.assert(200, "done");
    heard.assert(&["ended logged_out: ada"]);
}

#[tokio::test]
async fn only_a_hook_costs_store_calls() {
    use StoreCall::{FindByUser, Insert, Load, Remove, RemoveByUser};

    for has_hook in [false, true] {
        let spy = FaultyStore::new(MemoryStore::new());
        let layer = builder(spy.clone());
        let layer = match has_hook {
            true => layer.on_event(|_| ()).build().unwrap(),
            false => layer.build().unwrap(),
        };
        let sessions = layer.sessions();
        let app = app(layer);
        let mut browser = logged_in(&app, "ada").await;
        browser.get("/log_out").await;
        // The request has loaded its session anyway.
        assert_eq!(spy.take_calls(), [Insert, Load, Remove]);
        let mut browser = logged_in(&app, "ada").await;
        browser.get("/log_in/bob").await;
        assert_eq!(spy.take_calls(), [Insert, Load, Insert, Remove]);

        let id = id_of(&browser.token());
        sessions.revoke(id).await.unwrap();
        sessions.revoke_user("ada").await.unwrap();
        let expected = match has_hook {
            false => vec![Remove, RemoveByUser],
            true => vec![Load, Remove, FindByUser, RemoveByUser],
        };
        assert_eq!(spy.take_calls(), expected);
        logged_in(&app, "ada").await;
        spy.take_calls();
        sessions.revoke_owned("ada", id).await.unwrap();
        assert_eq!(spy.take_calls(), [FindByUser]);
    }
}

#[tokio::test]
async fn no_event_holds_a_token_or_data() {
    let Setup {
        heard,
        app,
        clock,
        sessions,
        ..
    } = setup_with(|builder| builder.session_limit(1, AtLimit::EndOldest));
    let mut browser = Browser::new(&app);
    let mut tokens = Vec::new();
    for path in [
        "/insert/diary/dear%20diary",
        "/regenerate",
        "/log_in/ada",
        "/log_in/bob",
        "/log_in/ada",
        "/steps/phone,act",
        "/insert/diary/dear%20diary",
        "/steps/stop",
        "/log_out",
        "/insert/diary/dear%20diary",
        "/log_in/ada",
        "/remove/diary",
    ] {
        let old = browser.clone();
        browser.get(path).await;
        if let Some(cookie) = browser.cookies().first() {
            tokens.push(cookie.split_once('=').unwrap().1.to_owned());
        }
        // It may have a token that is dead now.
        old.clone().get("/").await;
    }
    logged_in(&app, "ada").await;
    sessions.revoke_user("ada").await.unwrap();
    let mut last = logged_in(&app, "ada").await;
    last.get("/insert/diary/dear%20diary").await;
    clock.advance(31 * MINUTE);
    last.get("/").await;
    tokens.push(last.token());

    let events = heard.take();
    let kinds: std::collections::HashSet<_> = events.iter().map(SessionEvent::kind).collect();
    assert!(kinds.len() >= 7, "{kinds:?}");
    let said: String = events
        .iter()
        .map(|event| format!("{event:?} {}\n", serde_json::to_string(event).unwrap()))
        .collect();
    assert!(!said.contains("diary"), "{said}");
    assert!(tokens.len() >= 9, "{tokens:?}");
    for token in tokens {
        // After the record id come the secret and its signature.
        for start in (24..token.len() - 8).step_by(8) {
            let part = &token[start..start + 8];
            assert!(!said.contains(part), "{part} of {token} is in:\n{said}");
        }
    }
}
