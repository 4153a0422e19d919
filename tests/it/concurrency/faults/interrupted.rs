//! Requests that are dropped, fail or panic at any of their steps.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use cloakroom::testing::StoreCall::{FindByUser, Insert, Load, Remove, Replace};
use cloakroom::testing::{Fault, FaultyStore};
use cloakroom::{AtLimit, MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer};
use http::Request;
use http::header::COOKIE;
use support::{Browser, app, key};
use tower::{Layer, ServiceExt};

use super::rig::{Rig, Scenario};

#[tokio::test]
async fn a_request_that_is_dropped_at_any_await_is_written_whole_or_not_at_all() {
    let visitor = Scenario {
        before: &["/insert/theme/dark"],
        ..Scenario::default()
    };
    let scenarios = [
        Scenario {
            path: "/two_changes",
            calls: &[Load, Replace],
            waits: 1,
            states: &[
                "visitor theme=\"dark\"",
                "visitor first=1 second=2 theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/two_changes",
            is_lazy: true,
            calls: &[Load, Replace],
            waits: 1,
            states: &[
                "visitor theme=\"dark\"",
                "visitor first=1 second=2 theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/two_changes",
            before: &[],
            calls: &[Insert],
            waits: 1,
            states: &["nothing", "visitor first=1 second=2"],
            ..visitor
        },
        Scenario {
            path: "/regenerate",
            calls: &[Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | visitor theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            calls: &[Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | ada theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/stay",
            calls: &[Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | visitor theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_out",
            calls: &[Load, Remove],
            states: &["visitor theme=\"dark\"", "nothing"],
            ..visitor
        },
        // The documentation says that these two requests have two steps. They may stop between the
        // steps.
        Scenario {
            path: "/log_in/grace",
            before: &["/log_in/ada", "/insert/theme/dark"],
            calls: &[Load, Insert, Remove],
            states: &[
                "ada theme=\"dark\" | nothing",
                "ada theme=\"dark\" | grace",
                "nothing | grace",
            ],
            ..visitor
        },
        Scenario {
            path: "/destroy_and_insert",
            calls: &[Load, Remove, Insert],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | nothing",
                "nothing | visitor first=1",
            ],
            ..visitor
        },
        // The login is complete before the layer ends the session that is one too many. If the
        // request stops between the two, the next login ends that session.
        Scenario {
            path: "/log_in/ada",
            cap: Some(AtLimit::EndOldest),
            is_elsewhere: true,
            calls: &[Load, Replace, FindByUser, Remove],
            states: &[
                "visitor theme=\"dark\" | nothing | ada",
                "nothing | ada theme=\"dark\" | ada",
                "nothing | ada theme=\"dark\" | nothing",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            cap: Some(AtLimit::RefuseLogin),
            calls: &[Load, FindByUser, Replace, FindByUser],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "nothing | ada theme=\"dark\"",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            cap: Some(AtLimit::RefuseLogin),
            is_elsewhere: true,
            calls: &[Load, FindByUser],
            states: &["visitor theme=\"dark\" | ada"],
            ..visitor
        },
        // After the other request's write there is a state of its own.
        Scenario {
            path: "/two_changes",
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace],
            waits: 1,
            states: &[
                "visitor theme=\"dark\"",
                "visitor theme=\"dark\" visits=1",
                "visitor first=1 second=2 theme=\"dark\" visits=1",
            ],
            ..visitor
        },
        Scenario {
            path: "/update/visits",
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace],
            states: &[
                "visitor theme=\"dark\"",
                "visitor theme=\"dark\" visits=1",
                "visitor theme=\"dark\" visits=2",
            ],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace],
            states: &[
                "visitor theme=\"dark\" | nothing",
                "visitor theme=\"dark\" visits=1 | nothing",
                "nothing | ada theme=\"dark\" visits=1",
            ],
            ..visitor
        },
    ];
    for scenario in scenarios {
        // Nothing happens to this request. It shows the calls, and the token that the request may
        // get.
        let whole = Rig::new(&scenario).await;
        let new_token = whole.browser.send(scenario.path, &[]).await.token();
        let new_token = new_token.filter(|token| !token.is_empty());
        assert_eq!(whole.store.calls(), scenario.calls, "{scenario:?}");

        let mut states: Vec<String> = Vec::new();
        for polls in 0.. {
            let rig = Rig::new(&scenario).await;
            let request = rig.browser.send(scenario.path, &[]);
            let is_done = rig.store.poll(request, polls).is_some();
            // If the other request did not run, no later request may run it.
            drop(rig.store.meanwhile.lock().unwrap().take());
            let until_it_is_loaded = match scenario.calls {
                [Load, ..] if !scenario.is_lazy => 2,
                _ => 0,
            };
            let kept = std::mem::take(&mut *rig.kept.lock().unwrap());
            assert_eq!(kept.len() == 1, polls > until_it_is_loaded, "{scenario:?}");
            for extensions in kept {
                let error = late_insert(&extensions).unwrap_err();
                assert_eq!(error.kind(), SessionErrorKind::Sealed, "{scenario:?}");
            }
            let state = rig.state(new_token.as_ref()).await;
            if states.last() != Some(&state) {
                states.push(state);
            }
            for token in rig.old_token().iter().chain(&new_token) {
                rig.assert_not_blocked(token).await;
            }
            if is_done {
                // A request stops before and after the effect of each call, and at each wait of the
                // handler.
                let stops = 2 * scenario.calls.len() + scenario.waits;
                assert_eq!(polls, stops + 1, "{scenario:?}");
                break;
            }
        }
        assert_eq!(states, scenario.states, "{scenario:?}");
    }
}

/// For each call of the store there are two tests: the call fails before its effect, or its answer
/// is lost.
#[tokio::test]
async fn a_fault_at_any_store_call_leaves_the_old_token_good_or_the_new_one_and_never_none() {
    let visitor = Scenario {
        before: &["/insert/theme/dark"],
        calls: &[Load, Replace],
        ..Scenario::default()
    };
    let overtaken = Scenario {
        is_overtaken: true,
        calls: &[Load, Replace, Load, Replace],
        ..visitor
    };
    let of_another_user = Scenario {
        path: "/log_in/grace",
        before: &["/log_in/ada", "/insert/theme/dark"],
        calls: &[Load, Insert, Remove],
        ..visitor
    };
    let end_oldest = Scenario {
        path: "/log_in/ada",
        cap: Some(AtLimit::EndOldest),
        is_elsewhere: true,
        ..visitor
    };
    let refuse = Scenario {
        path: "/log_in/ada",
        cap: Some(AtLimit::RefuseLogin),
        ..visitor
    };
    const OLD: &str = "visitor theme=\"dark\" | nothing";
    const OLD_AFTER_ANOTHER: &str = "visitor theme=\"dark\" visits=1 | nothing";
    let scenarios = [
        Scenario {
            path: "/regenerate",
            states: &[OLD, "nothing | visitor theme=\"dark\""],
            ..visitor
        },
        Scenario {
            path: "/regenerate",
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | visitor theme=\"dark\" visits=1",
            ],
            ..overtaken
        },
        Scenario {
            path: "/stay",
            states: &[OLD, "nothing | visitor theme=\"dark\""],
            ..visitor
        },
        Scenario {
            path: "/stay",
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | visitor theme=\"dark\" visits=1",
            ],
            ..overtaken
        },
        Scenario {
            path: "/log_in/ada",
            states: &[OLD, "nothing | ada theme=\"dark\""],
            ..visitor
        },
        Scenario {
            path: "/log_in/ada",
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | ada theme=\"dark\" visits=1",
            ],
            ..overtaken
        },
        Scenario {
            calls: &[Load, Replace, FindByUser, Remove],
            states: &[
                "visitor theme=\"dark\" | nothing | ada",
                "nothing | ada theme=\"dark\" | ada",
                "nothing | ada theme=\"dark\" | nothing",
            ],
            ..end_oldest
        },
        Scenario {
            is_overtaken: true,
            calls: &[Load, Replace, Load, Replace, FindByUser, Remove],
            states: &[
                "visitor theme=\"dark\" | nothing | ada",
                "visitor theme=\"dark\" visits=1 | nothing | ada",
                "nothing | ada theme=\"dark\" visits=1 | ada",
                "nothing | ada theme=\"dark\" visits=1 | nothing",
            ],
            ..end_oldest
        },
        Scenario {
            calls: &[Load, FindByUser, Replace, FindByUser],
            states: &[OLD, "nothing | ada theme=\"dark\""],
            ..refuse
        },
        Scenario {
            is_overtaken: true,
            calls: &[Load, FindByUser, Replace, Load, Replace, FindByUser],
            states: &[
                OLD,
                OLD_AFTER_ANOTHER,
                "nothing | ada theme=\"dark\" visits=1",
            ],
            ..refuse
        },
        Scenario {
            states: &[
                "ada theme=\"dark\" | nothing",
                "ada theme=\"dark\" | grace",
                "nothing | grace",
            ],
            ..of_another_user
        },
        Scenario {
            is_overtaken: true,
            states: &[
                "ada theme=\"dark\" | nothing",
                "ada theme=\"dark\" visits=1 | nothing",
                "ada theme=\"dark\" visits=1 | grace",
                "nothing | grace",
            ],
            ..of_another_user
        },
    ];
    for scenario in scenarios {
        let whole = Rig::new(&scenario).await;
        let new_token = whole.browser.send(scenario.path, &[]).await.token();
        assert_eq!(whole.store.calls(), scenario.calls, "{scenario:?}");

        let mut states: Vec<String> = Vec::new();
        for (number, call) in scenario.calls.iter().enumerate() {
            for fault in [Fault::Refused, Fault::AnswerLost] {
                let rig = Rig::new(&scenario).await;
                *rig.store.fault.lock().unwrap() = Some((number, fault));
                let reply = rig.browser.send(scenario.path, &[]).await;
                *rig.store.fault.lock().unwrap() = None;
                drop(rig.store.meanwhile.lock().unwrap().take());
                let state = rig.state(new_token.as_ref()).await;
                let place = format!("{fault:?} of {call:?} {number}: {state}\n{scenario:?}");
                let seen: Vec<_> = state.split(" | ").collect();
                let is_old_good = seen[0] != "nothing";
                let is_new_good = seen[1] != "nothing";
                if (*call, fault) == (Insert, Fault::AnswerLost) {
                    // A login of another user has two steps. This test is like a request that was
                    // dropped between the steps. The client still has the first user's session.
                    // Nobody has the token of the other session.
                    assert!(is_old_good && is_new_good, "{place}");
                } else {
                    assert!(is_old_good != is_new_good, "{place}");
                }
                match reply.status.as_u16() {
                    200 => {
                        assert!(is_new_good, "{place}");
                        assert_eq!(reply.token(), new_token, "{place}");
                    }
                    status => {
                        assert_eq!(status, 503, "{place}");
                        reply.assert_no_cookie();
                    }
                }
                if !states.contains(&state) {
                    states.push(state);
                }
            }
        }
        assert_eq!(states, scenario.states, "{scenario:?}");
    }
}

#[tokio::test]
async fn a_save_that_is_dropped_at_any_await_is_written_whole_or_not_at_all_and_can_be_repeated() {
    for (is_overtaken, calls, expected) in [
        (
            false,
            &[Replace][..],
            &["visitor theme=\"dark\"", "visitor first=1 theme=\"light\""][..],
        ),
        (
            true,
            &[Replace, Load, Replace],
            &[
                "visitor theme=\"dark\"",
                "visitor theme=\"dark\" visits=1",
                "visitor first=1 theme=\"light\" visits=1",
            ],
        ),
    ] {
        let mut states: Vec<String> = Vec::new();
        for polls in 0.. {
            let rig = Rig::new(&Scenario {
                before: &["/insert/theme/dark"],
                ..Scenario::default()
            })
            .await;
            let token = rig.old_token().unwrap();
            rig.browser.send("/", &[]).await.assert(200, "untouched");
            let extensions = rig.kept.lock().unwrap().pop().unwrap();
            let session = Session::from_extensions(&extensions).unwrap();
            let mut later = session.detach();
            later.insert("first", 1).unwrap();
            later.insert("theme", "light").unwrap();
            rig.forget();
            if is_overtaken {
                rig.overtake(&token);
            }
            let saved = rig.store.poll(later.save(), polls);
            drop(rig.store.meanwhile.lock().unwrap().take());
            let state = rig.state(None).await;
            if states.last() != Some(&state) {
                states.push(state);
            }
            if let Some(saved) = saved {
                saved.unwrap();
                assert_eq!(polls, 2 * calls.len() + 1);
                // The last call comes from `state`, which looks at the session.
                assert_eq!(rig.store.calls(), [calls, &[Load]].concat());
                break;
            }
            rig.assert_not_blocked(&token).await;
            later.save().await.unwrap();
            let state = rig.seen_by(&token).await;
            assert!(
                state.starts_with("visitor first=1 others=1 theme=\"light\""),
                "{state}"
            );
        }
        assert_eq!(states, expected);
    }
}

#[tokio::test]
async fn a_handler_that_panics_commits_nothing_and_blocks_nobody() {
    struct Panics;

    impl serde::Serialize for Panics {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("in the value")
        }
    }

    type Handler = fn(&Session) -> Result<(), SessionError>;
    let in_the_handler: [Handler; 4] = [
        |session| {
            session.insert("theme", "of the panic")?;
            session.log_in("eve")?;
            panic!("in the handler")
        },
        |session| {
            session.log_out()?;
            session.insert("theme", "of the panic")?;
            panic!("after the end")
        },
        |session| {
            session.insert("theme", "of the panic")?;
            session.regenerate()?;
            let in_the_update = |_: Option<u64>| panic!("in the update");
            session.update::<u64, _>("visits", in_the_update).map(drop)
        },
        |session| {
            session.insert("theme", "of the panic")?;
            session.insert("value", Panics)
        },
    ];
    // Another request has made the same count. So this closure runs a second time, during the
    // commit, and panics there.
    let in_the_commit: Handler = |session| {
        session.insert("theme", "of the panic")?;
        session.log_in("eve")?;
        let count = |n: Option<u64>| n.map_or(1, |n| panic!("again, with {n}"));
        session.update("visits", count).map(drop)
    };
    let in_the_handler = in_the_handler
        .into_iter()
        .map(|handler| (handler, false, &[Load][..]));
    let in_the_commit = (in_the_commit, true, &[Load, Replace, Load][..]);
    for (handler, is_overtaken, calls) in in_the_handler.chain([in_the_commit]) {
        let route = get(move |session: Session| async move { handler(&session) });
        let scenario = Scenario {
            before: &["/insert/theme/dark"],
            is_overtaken,
            ..Scenario::default()
        };
        let rig = Rig::with(&scenario, Router::new().route("/handler", route)).await;
        let token = rig.old_token().unwrap();
        let request = tokio::spawn(rig.browser.send("/handler", &[]));
        assert!(request.await.unwrap_err().is_panic());
        assert_eq!(rig.store.calls(), calls);
        let expected = match is_overtaken {
            true => "visitor theme=\"dark\" visits=1",
            false => "visitor theme=\"dark\"",
        };
        assert_eq!(rig.seen_by(&token).await, expected);
        assert_eq!(rig.store.store.len(), 1);
        let extensions = rig.kept.lock().unwrap().remove(0);
        let error = late_insert(&extensions).unwrap_err();
        assert_eq!(error.kind(), SessionErrorKind::Sealed);
        rig.assert_not_blocked(&token).await;
    }
}

/// An example is a timeout between the layer and the handler.
#[tokio::test]
async fn an_error_of_the_inner_service_writes_nothing_but_an_end_and_is_passed_on() {
    let spy = FaultyStore::new(MemoryStore::new());
    let layer = SessionLayer::new(spy.clone(), key());
    let app = app(layer.clone());
    let service = layer.layer(tower::service_fn(|request: Request<Body>| async move {
        let session = Session::from_extensions(request.extensions()).unwrap();
        match request.uri().path() {
            "/insert" => session.insert("theme", "late").unwrap(),
            "/log_in" => session.log_in("grace").unwrap(),
            _ => session.log_out().unwrap(),
        }
        Err::<http::Response<Body>, _>("too late")
    }));
    for (path, status) in [("/insert", 200), ("/log_in", 200), ("/log_out", 401)] {
        let mut browser = Browser::new(&app);
        browser.get("/log_in/ada").await;
        let mut request = support::request(path);
        let cookie = browser.cookies()[0].parse().unwrap();
        request.headers_mut().insert(COOKIE, cookie);
        let error = service.clone().oneshot(request).await.unwrap_err();
        assert_eq!(error, "too late");
        browser.get("/keys").await.assert(200, "");
        assert_eq!(browser.get("/user").await.status.as_u16(), status, "{path}");
    }
    // The layer also passes the error on if it cannot write the end.
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await;
    spy.fail_at(Remove, Fault::Refused);
    let mut request = support::request("/log_out");
    let cookie = browser.cookies()[0].parse().unwrap();
    request.headers_mut().insert(COOKIE, cookie);
    assert_eq!(service.oneshot(request).await.unwrap_err(), "too late");
}

/// Changes the session through a request that has its answer already, or never gets one.
fn late_insert(extensions: &http::Extensions) -> Result<(), SessionError> {
    Session::from_extensions(extensions)?.insert("late", 1)
}
