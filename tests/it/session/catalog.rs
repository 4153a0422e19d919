//! All sessions of a store: pages, filters, counts, and how they end.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use axum::routing::get;
use cloakroom::testing::{Fault, FaultyStore, StoreCall};
use cloakroom::{
    AnyStore, Client, Clock, Cursor, EndCause, MemoryStore, NearCache, RecordId, Session,
    SessionCatalog, SessionError, SessionErrorKind, SessionEventKind, SessionFilter, SessionInfo,
    SessionLayer, SessionStore, Sessions, SqliteStore, TestClock,
};
use support::dynamodb::Wire;
use support::servers::Server;
use support::{Browser, builder, key, routes};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const STEP: Duration = Duration::from_secs(5 * 60);

struct Site<S> {
    clock: TestClock,
    sessions: Sessions<S>,
    app: Router,
    heard: Arc<Mutex<Vec<String>>>,
}

impl<S: SessionStore + Clone> Site<S> {
    fn on(store: S) -> Self {
        Self::with_clock(store, TestClock::new())
    }

    fn with_clock(store: S, clock: TestClock) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let layer = builder(store)
            .clock(clock.clone())
            .client_from(|headers, _| client(headers))
            .on_event(move |event| {
                if event.kind() == SessionEventKind::Ended {
                    let (user, cause) = (event.user(), event.cause());
                    let by = event.asked_by().unwrap_or("nobody");
                    let user = user.map_or("a visitor", |user| user.as_str());
                    let cause = cause.map(|cause: EndCause| cause.to_string());
                    let line = format!("{user}, {}, by {by}", cause.unwrap_or_default());
                    hears.lock().unwrap().push(line);
                }
            })
            .build()
            .unwrap();
        Self {
            clock,
            sessions: layer.sessions(),
            app: app(layer),
            heard,
        }
    }

    async fn visitor(&self) -> (Browser, RecordId) {
        let mut browser = Browser::new(&self.app);
        browser.get("/insert/theme/dark").await.assert(200, "done");
        let id = support::id_of(&browser.token());
        (browser, id)
    }

    async fn user(&self, user: &str, agent: &str) -> (Browser, RecordId) {
        let mut browser = Browser::new(&self.app);
        let path = format!("/log_in/{user}");
        let agent = [("user-agent", agent)];
        browser.get_with(&path, &agent).await.assert(200, "done");
        let id = support::id_of(&browser.token());
        (browser, id)
    }

    fn heard(&self) -> Vec<String> {
        let mut heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.sort();
        heard
    }
}

fn client(headers: &HeaderMap) -> Client {
    let agent = headers.get(USER_AGENT).and_then(|it| it.to_str().ok());
    let client = Client::new().with_address("192.0.2.7");
    agent.map_or(client.clone(), |agent| client.with_user_agent(agent))
}

fn app<S: SessionStore>(layer: SessionLayer<S>) -> Router {
    async fn set(session: Session, Path(id): Path<String>) -> Result<String, SessionError> {
        session.set_external_id(id)?;
        Ok(session.external_id().unwrap_or_default())
    }
    async fn log_in_as(
        session: Session,
        Path((user, id)): Path<(String, String)>,
    ) -> Result<(), SessionError> {
        session.log_in(user)?;
        session.set_external_id(id)
    }
    routes()
        .route("/external/{id}", get(set))
        .route("/log_in_as/{user}/{id}", get(log_in_as))
        .route(
            "/external",
            get(|session: Session| async move { session.external_id().unwrap_or_default() }),
        )
        .layer(layer)
}

fn site() -> Site<MemoryStore> {
    Site::on(MemoryStore::new())
}

fn ids<'a>(sessions: impl IntoIterator<Item = &'a SessionInfo>) -> BTreeSet<RecordId> {
    sessions.into_iter().map(SessionInfo::id).collect()
}

/// All sessions that match a filter, in pages of this size.
async fn all<S: SessionCatalog>(
    sessions: &Sessions<S>,
    filter: &SessionFilter,
    size: usize,
) -> Vec<SessionInfo> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = sessions.page(filter, after.as_ref(), size).await.unwrap();
        assert!(page.sessions.len() <= size);
        all.extend(page.sessions);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn refused<S: SessionCatalog>(
    sessions: &Sessions<S>,
    filter: SessionFilter,
) -> (SessionErrorKind, String) {
    let page = sessions.page(&filter, None, 10).await.unwrap_err();
    let count = sessions.count(&filter).await.unwrap_err();
    let end = sessions.end(&filter).await.unwrap_err();
    assert_eq!(page.to_string(), count.to_string());
    assert_eq!(page.to_string(), end.to_string());
    (end.kind(), end.to_string())
}

#[tokio::test]
async fn one_session_is_shown_by_its_id() {
    let site = site();
    let (mut browser, id) = site.user("ada", "Browser/1.0").await;
    browser.get("/external/sid-1").await.assert(200, "sid-1");
    let shown = site.sessions.get(id).await.unwrap().unwrap();
    assert_eq!(shown.id(), id);
    assert_eq!(shown.user().unwrap().as_str(), "ada");
    assert_eq!(shown.external_id(), Some("sid-1"));
    let client = shown.client().unwrap();
    assert_eq!(client.user_agent(), Some("Browser/1.0"));
    let (_, visitor) = site.visitor().await;
    let shown = site.sessions.get(visitor).await.unwrap().unwrap();
    assert_eq!(shown.user(), None);
    let nobodys = RecordId::from_bytes([0; 16]);
    assert!(site.sessions.get(nobodys).await.unwrap().is_none());
    site.sessions.revoke(id).await.unwrap();
    assert!(site.sessions.get(id).await.unwrap().is_none());
}

#[tokio::test]
async fn a_session_that_is_over_is_neither_shown_nor_listed_nor_counted() {
    let site = site();
    let (_, id) = site.user("ada", "x").await;
    site.clock.advance(DAY * 400);
    let everything = SessionFilter::new();
    assert!(site.sessions.get(id).await.unwrap().is_none());
    assert_eq!(site.sessions.count(&everything).await.unwrap(), 0);
    let page = site.sessions.page(&everything, None, 10).await.unwrap();
    assert!(page.sessions.is_empty() && page.next.is_none());
    assert_eq!(site.sessions.end_everything().await.unwrap(), 0);
}

async fn pages_show_each_session_once<S: SessionCatalog + Clone>(store: S) {
    let site = Site::on(store);
    let mut expected = BTreeSet::new();
    for number in 0..12 {
        expected.insert(site.visitor().await.1);
        expected.insert(site.user(&format!("user{number}"), "x").await.1);
    }
    let everything = SessionFilter::new();
    for size in [1, 5, 24, Sessions::<S>::MAX_PAGE] {
        let all = all(&site.sessions, &everything, size).await;
        assert_eq!(all.len(), 24);
        assert_eq!(ids(&all), expected);
    }
    assert_eq!(site.sessions.count(&everything).await.unwrap(), 24);
    let users = SessionFilter::new().logged_in(true);
    assert_eq!(site.sessions.count(&users).await.unwrap(), 12);
    assert_eq!(all(&site.sessions, &users, 5).await.len(), 12);
    assert_eq!(site.sessions.end(&users).await.unwrap(), 12);
    assert_eq!(site.sessions.count(&everything).await.unwrap(), 12);
    assert_eq!(site.sessions.end_everything().await.unwrap(), 12);
    assert_eq!(site.sessions.count(&everything).await.unwrap(), 0);
}

#[tokio::test]
async fn pages_show_each_session_once_in_memory() {
    pages_show_each_session_once(MemoryStore::new()).await;
}

#[tokio::test]
async fn pages_show_each_session_once_in_sqlite() {
    pages_show_each_session_once(SqliteStore::open(":memory:").await.unwrap()).await;
}

#[tokio::test]
async fn pages_show_each_session_once_in_dynamodb() {
    let server = Server::dynalite();
    let wire = Wire::to(&server);
    let store = AnyStore::from_catalog(wire.store("sessions").await);
    assert!(store.user_index().is_some());
    pages_show_each_session_once(store.session_catalog().unwrap()).await;
    let store = FaultyStore::new(wire.store("others").await);
    pages_show_each_session_once(store).await;
}

#[tokio::test]
async fn pages_show_each_session_once_behind_a_near_cache() {
    pages_show_each_session_once(NearCache::open(MemoryStore::new()).await.unwrap()).await;
}

#[tokio::test]
async fn a_store_that_is_chosen_at_run_time_has_a_catalog_or_says_that_it_has_none() {
    let store = AnyStore::connect("memory:").await.unwrap();
    pages_show_each_session_once(store.session_catalog().unwrap()).await;
    let store = AnyStore::connect("sqlite::memory:").await.unwrap();
    assert!(store.session_catalog().is_some());
    assert!(
        AnyStore::new(MemoryStore::new())
            .session_catalog()
            .is_none()
    );
    let store = AnyStore::from_user_index(MemoryStore::new());
    assert!(store.session_catalog().is_none());
    let store = AnyStore::from_catalog(MemoryStore::new());
    assert!(store.session_catalog().is_some() && store.user_index().is_some());
}

#[tokio::test]
async fn a_page_stays_as_it_was_while_sessions_come_and_go() {
    let site = site();
    let mut stay = BTreeSet::new();
    for _ in 0..10 {
        stay.insert(site.visitor().await.1);
    }
    let everything = SessionFilter::new();
    let first = site.sessions.page(&everything, None, 4).await.unwrap();
    let next = first.next.unwrap();
    let mut shown = ids(&first.sessions);
    // The session behind which the next page begins ends as well.
    let last = first.sessions.last().unwrap().id();
    site.sessions.revoke(last).await.unwrap();
    let mut come = BTreeSet::new();
    for _ in 0..10 {
        come.insert(site.visitor().await.1);
    }
    let mut after = Some(next);
    while let Some(cursor) = after {
        let page = site.sessions.page(&everything, Some(&cursor), 4).await;
        let page = page.unwrap();
        for id in ids(&page.sessions) {
            assert!(shown.insert(id), "{id} is on two pages");
        }
        after = page.next;
    }
    assert!(shown.is_superset(&stay));
    assert!(shown.is_subset(&(&stay | &come)));
}

#[tokio::test]
async fn each_condition_of_a_filter_leaves_its_sessions() {
    let site = site();
    let start = site.clock.now();
    let (_, visitor) = site.visitor().await;
    let (mut ada, ada_phone) = site.user("ada", "Phone/1").await;
    site.clock.advance(STEP);
    let (_, ada_laptop) = site.user("ada", "LAPTOP/1").await;
    let (mut grace, graces) = site.user("grace", "Phone/2").await;
    grace.get("/external/sid-1").await.assert(200, "sid-1");
    site.clock.advance(STEP);
    ada.get("/user").await.assert(200, "ada");
    let filter = SessionFilter::new;
    let one = |id| BTreeSet::from([id]);
    let cases = [
        (
            filter(),
            BTreeSet::from([visitor, ada_phone, ada_laptop, graces]),
        ),
        (
            filter().user("ada"),
            BTreeSet::from([ada_phone, ada_laptop]),
        ),
        (filter().user("nobody"), BTreeSet::new()),
        (filter().logged_in(false), one(visitor)),
        (
            filter().logged_in(true),
            BTreeSet::from([ada_phone, ada_laptop, graces]),
        ),
        (filter().external_id("sid-1"), one(graces)),
        (filter().external_id("sid-1").user("ada"), BTreeSet::new()),
        (
            filter().client("phone"),
            BTreeSet::from([ada_phone, graces]),
        ),
        (filter().client("laptop").user("ada"), one(ada_laptop)),
        (
            filter().client("192.0.2.").logged_in(true),
            BTreeSet::from([ada_phone, ada_laptop, graces]),
        ),
        (filter().client("no such"), BTreeSet::new()),
        (
            filter().created_since(start + STEP),
            BTreeSet::from([ada_laptop, graces]),
        ),
        (
            filter().created_before(start + STEP),
            BTreeSet::from([visitor, ada_phone]),
        ),
        (
            filter()
                .created_since(start)
                .created_before(start + STEP)
                .logged_in(true),
            one(ada_phone),
        ),
        (filter().last_seen_since(start + STEP * 2), one(ada_phone)),
        (
            filter().last_seen_before(start + STEP * 2),
            BTreeSet::from([visitor, ada_laptop, graces]),
        ),
        (filter().device_bound(true), BTreeSet::new()),
        (
            filter().device_bound(false).logged_in(true),
            BTreeSet::from([ada_phone, ada_laptop, graces]),
        ),
    ];
    for (filter, expected) in cases {
        for size in [1, 10] {
            assert_eq!(ids(&all(&site.sessions, &filter, size).await), expected);
        }
        let count = site.sessions.count(&filter).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
}

#[tokio::test]
async fn what_a_filter_means_ends_and_nothing_else_and_the_hooks_hear_of_each() {
    let site = site();
    let (mut visitor, _) = site.visitor().await;
    let (mut ada, _) = site.user("ada", "Phone/1").await;
    let (mut laptop, _) = site.user("ada", "Laptop/1").await;
    let (mut grace, _) = site.user("grace", "Phone/2").await;
    let phones = SessionFilter::new().client("phone");
    let sessions = site.sessions.by("admin:root");
    assert_eq!(sessions.end(&phones).await.unwrap(), 2);
    ada.get("/user").await.assert(401, "");
    grace.get("/user").await.assert(401, "");
    laptop.get("/user").await.assert(200, "ada");
    visitor.get("/get/theme").await.assert(200, "dark");
    assert_eq!(
        site.heard(),
        [
            "ada, revoked, by admin:root",
            "grace, revoked, by admin:root"
        ]
    );
    assert_eq!(sessions.end(&phones).await.unwrap(), 0);
    assert_eq!(sessions.end_everything().await.unwrap(), 2);
    laptop.get("/user").await.assert(401, "");
    visitor.get("/get/theme").await.assert(200, "nothing");
}

#[tokio::test]
async fn an_empty_filter_ends_nothing() {
    let site = site();
    let (mut ada, _) = site.user("ada", "x").await;
    let error = site.sessions.end(&SessionFilter::new()).await.unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::InvalidFilter);
    assert_eq!(error.status(), 400);
    assert_eq!(
        error.to_string(),
        "the filter or the limit makes no sense: the filter has no condition; \
         `end_everything` ends all sessions"
    );
    ada.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_refused_and_ends_nothing() {
    let site = site();
    let (mut ada, _) = site.user("ada", "x").await;
    let now = site.clock.now();
    let filter = SessionFilter::new;
    for (filter, why) in [
        (filter().client(""), "the text of the client is empty"),
        (
            filter().external_id(""),
            "an external id has 1 to 255 bytes, none of them NUL",
        ),
        (
            filter().external_id("a\0b"),
            "an external id has 1 to 255 bytes, none of them NUL",
        ),
        (
            filter().external_id("x".repeat(256)),
            "an external id has 1 to 255 bytes, none of them NUL",
        ),
        (
            filter().created_since(now).created_before(now),
            "`created_since` is not before `created_before`",
        ),
        (
            filter().last_seen_since(now + DAY).last_seen_before(now),
            "`last_seen_since` is not before `last_seen_before`",
        ),
        (
            filter().user("ada").logged_in(false),
            "no visitor has a user or an external id",
        ),
        (
            filter().external_id("sid").logged_in(false),
            "no visitor has a user or an external id",
        ),
    ] {
        let (kind, text) = refused(&site.sessions, filter).await;
        assert_eq!(kind, SessionErrorKind::InvalidFilter);
        assert!(text.ends_with(why), "{text}");
    }
    for user in ["", "a\0b", &"x".repeat(256)] {
        let (kind, text) = refused(&site.sessions, filter().user(user)).await;
        assert_eq!(kind, SessionErrorKind::InvalidFilter);
        assert!(text.contains("1 to 255 bytes"), "{text}");
    }
    let error = site.sessions.end_external("").await.unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::InvalidFilter);
    ada.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn a_page_of_no_or_too_many_sessions_is_refused() {
    let site = site();
    for limit in [0, Sessions::<MemoryStore>::MAX_PAGE + 1, usize::MAX] {
        let everything = SessionFilter::new();
        let page = site.sessions.page(&everything, None, limit).await;
        let error = page.unwrap_err();
        assert_eq!(error.kind(), SessionErrorKind::InvalidFilter);
        assert!(error.to_string().ends_with("`limit` must be 1 to 1000"));
    }
}

#[tokio::test]
async fn a_cursor_that_nobody_made_is_refused() {
    let site = site();
    site.user("ada", "x").await;
    for filter in [
        SessionFilter::new(),
        SessionFilter::new().user("ada"),
        SessionFilter::new().external_id("sid"),
    ] {
        for text in ["0", "x.y.z", "0.begin", &"A".repeat(23)] {
            let cursor: Cursor = text.parse().unwrap();
            let page = site.sessions.page(&filter, Some(&cursor), 10).await;
            assert_eq!(page.unwrap_err().kind(), SessionErrorKind::InvalidCursor);
        }
    }
    for text in ["", "a b", "a/b", "ä", "%00", "a\0", &"a".repeat(8193)] {
        let error = text.parse::<Cursor>().unwrap_err();
        assert_eq!(error.kind(), SessionErrorKind::InvalidCursor);
        assert_eq!(error.status(), 400);
        assert!(serde_json::from_value::<Cursor>(text.into()).is_err());
    }
}

#[tokio::test]
async fn a_page_is_json_and_its_cursor_comes_back_from_it() {
    let site = site();
    for user in ["ada", "grace", "mary"] {
        site.user(user, "x").await;
    }
    let everything = SessionFilter::new();
    let page = site.sessions.page(&everything, None, 2).await.unwrap();
    let json = serde_json::to_value(&page).unwrap();
    assert_eq!(json["sessions"].as_array().unwrap().len(), 2);
    assert!(json["sessions"][0]["client"]["user_agent"] == "x");
    let next: Cursor = serde_json::from_value(json["next"].clone()).unwrap();
    let rest = site.sessions.page(&everything, Some(&next), 2).await;
    let rest = serde_json::to_value(rest.unwrap()).unwrap();
    assert_eq!(rest["sessions"].as_array().unwrap().len(), 1);
    assert!(rest["next"].is_null());
}

#[tokio::test]
async fn an_external_id_ends_its_sessions_of_all_users() {
    let site = site();
    let (mut ada, _) = site.user("ada", "x").await;
    let (mut other, _) = site.user("ada", "x").await;
    let (mut grace, _) = site.user("grace", "x").await;
    ada.get("/external/sid-1").await.assert(200, "sid-1");
    grace.get("/external/sid-1").await.assert(200, "sid-1");
    other.get("/external/sid-2").await.assert(200, "sid-2");
    assert_eq!(site.sessions.end_external("sid-1").await.unwrap(), 2);
    ada.get("/user").await.assert(401, "");
    grace.get("/user").await.assert(401, "");
    other.get("/user").await.assert(200, "ada");
    assert_eq!(site.sessions.end_external("sid-1").await.unwrap(), 0);
    assert_eq!(site.sessions.end_external("sid").await.unwrap(), 0);
}

#[tokio::test]
async fn an_external_id_belongs_to_one_login() {
    let site = site();
    let (mut ada, id) = site.user("ada", "x").await;
    ada.get("/external/sid-1").await.assert(200, "sid-1");
    ada.get("/regenerate").await.assert(200, "done");
    ada.get("/external").await.assert(200, "sid-1");
    ada.get("/log_in/ada").await.assert(200, "done");
    ada.get("/external").await.assert(200, "");
    assert_eq!(site.sessions.end_external("sid-1").await.unwrap(), 0);
    ada.get("/log_in_as/ada/sid-2").await.assert(200, "");
    ada.get("/external").await.assert(200, "sid-2");
    assert_eq!(support::id_of(&ada.token()), id);
    ada.get("/log_in_as/grace/sid-3").await.assert(200, "");
    assert_eq!(site.sessions.end_external("sid-2").await.unwrap(), 0);
    assert_eq!(site.sessions.end_external("sid-3").await.unwrap(), 1);
    ada.get("/user").await.assert(401, "");
}

#[tokio::test]
async fn an_external_id_of_before_a_login_is_not_taken_over() {
    async fn twice(session: Session) -> Result<String, SessionError> {
        session.set_external_id("of before")?;
        session.log_in("ada")?;
        Ok(session.external_id().unwrap_or_default())
    }
    let layer = SessionLayer::new(MemoryStore::new(), key());
    let sessions = layer.sessions();
    let app = routes().route("/twice", get(twice)).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/ada").await.assert(200, "done");
    browser.get("/twice").await.assert(200, "");
    assert_eq!(sessions.end_external("of before").await.unwrap(), 0);
    browser.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn an_external_id_needs_a_login_and_1_to_255_bytes_without_nul() {
    let site = site();
    let (mut visitor, _) = site.visitor().await;
    visitor.get("/external/sid").await.assert(401, "");
    let (mut ada, _) = site.user("ada", "x").await;
    let longest = "x".repeat(255);
    ada.get(&format!("/external/{longest}"))
        .await
        .assert(200, &longest);
    ada.get(&format!("/external/{longest}x"))
        .await
        .assert(500, "");
    ada.get("/external/a%00b").await.assert(500, "");
    ada.get("/external").await.assert(200, &longest);
}

#[tokio::test]
async fn the_same_external_id_again_writes_nothing() {
    let spy = FaultyStore::new(MemoryStore::new());
    let site = Site::on(spy.clone());
    let (mut ada, _) = site.user("ada", "x").await;
    ada.get("/external/sid").await.assert(200, "sid");
    spy.take_calls();
    ada.get("/external/sid").await.assert(200, "sid");
    assert_eq!(spy.take_calls(), [StoreCall::Load]);
}

#[tokio::test]
async fn users_of_another_realm_are_neither_shown_nor_ended() {
    let store = MemoryStore::new();
    let layer = |realm: &str, name: &str| {
        let builder = builder(store.clone()).realm(realm).cookie_name(name);
        builder.secure(false).build().unwrap()
    };
    let (shop, staff) = (layer("shop", "shop"), layer("staff", "staff"));
    let (of_shop, of_staff) = (shop.sessions(), staff.sessions());
    let (shop, staff) = (app(shop), app(staff));
    let mut ada = Browser::new(&shop);
    ada.get("/log_in_as/ada/sid").await.assert(200, "");
    let mut root = Browser::new(&staff);
    root.get("/log_in_as/ada/sid").await.assert(200, "");
    let id = support::id_of(&root.token());
    assert!(of_shop.get(id).await.unwrap().is_none());
    assert!(of_staff.get(id).await.unwrap().is_some());
    for filter in [
        SessionFilter::new(),
        SessionFilter::new().user("ada"),
        SessionFilter::new().external_id("sid"),
        SessionFilter::new().logged_in(true),
    ] {
        assert_eq!(of_shop.count(&filter).await.unwrap(), 1);
        assert_eq!(all(&of_shop, &filter, 10).await.len(), 1);
    }
    assert_eq!(of_shop.end_external("sid").await.unwrap(), 1);
    assert_eq!(of_shop.end_everything().await.unwrap(), 0);
    ada.get("/user").await.assert(401, "");
    root.get("/user").await.assert(200, "ada");
}

#[tokio::test]
async fn where_a_store_fails_the_call_says_so_and_works_again_later() {
    let spy = FaultyStore::new(MemoryStore::new());
    let site = Site::on(spy.clone());
    for user in ["ada", "grace", "mary"] {
        site.user(user, "x").await;
    }
    let users = SessionFilter::new().logged_in(true);
    spy.fail_once(StoreCall::Scan, Fault::Refused);
    let error = site.sessions.page(&users, None, 10).await.unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::Store);
    spy.fail_once(StoreCall::FindByExternalId, Fault::Refused);
    let error = site.sessions.end_external("sid").await.unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::Store);
    // Two of the three still end.
    spy.fail_once(StoreCall::Remove, Fault::Refused);
    let error = site.sessions.end(&users).await.unwrap_err();
    assert_eq!(error.kind(), SessionErrorKind::Store);
    assert_eq!(site.sessions.count(&users).await.unwrap(), 1);
    assert_eq!(site.sessions.end(&users).await.unwrap(), 1);
}

#[tokio::test]
async fn a_user_with_many_sessions_has_pages_too() {
    let site = site();
    for _ in 0..7 {
        site.user("ada", "x").await;
    }
    let filter = SessionFilter::new().user("ada");
    assert_eq!(all(&site.sessions, &filter, 3).await.len(), 7);
    assert_eq!(ids(&all(&site.sessions, &filter, 3).await).len(), 7);
    let first = site.sessions.page(&filter, None, 7).await.unwrap();
    assert!(first.next.is_none());
    assert_eq!(site.sessions.end(&filter).await.unwrap(), 7);
}

#[tokio::test]
async fn a_user_gets_all_that_is_stored_of_them_and_no_secret_and_it_is_erased_by_one_call() {
    let site = site();
    let (mut phone, phone_id) = site.user("ada", "Phone/1").await;
    phone.get("/insert/diary/dear").await.assert(200, "done");
    phone.get("/external/sid-1").await.assert(200, "sid-1");
    let (mut laptop, _) = site.user("ada", "Laptop/1").await;
    let (mut grace, _) = site.user("grace", "Phone/2").await;
    let text = site.sessions.export_user("ada").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    let of_phone = json.as_array().unwrap().iter();
    let mut of_phone = of_phone.filter(|session| session["id"] == phone_id.to_string());
    let record = &of_phone.next().unwrap()["record"];
    assert_eq!(record["data"]["diary"], "dear");
    assert_eq!(record["login"]["user"], "__Host-session:ada");
    assert_eq!(record["login"]["external_id"], "sid-1");
    assert_eq!(record["client"]["user_agent"], "Phone/1");
    assert_eq!(record["client"]["address"], "192.0.2.7");
    assert!(!text.contains(&phone.token()) && !text.contains("Phone/2"));
    assert_eq!(site.sessions.export_user("nobody").await.unwrap(), "[]");
    assert_eq!(site.sessions.revoke_user("ada").await.unwrap(), 2);
    assert_eq!(site.sessions.export_user("ada").await.unwrap(), "[]");
    phone.get("/user").await.assert(401, "");
    laptop.get("/user").await.assert(401, "");
    grace.get("/user").await.assert(200, "grace");
}

#[tokio::test]
async fn after_a_restore_of_a_backup_one_call_ends_what_came_back() {
    let folder = tempfile::tempdir().unwrap();
    let (live, backup) = (folder.path().join("live"), folder.path().join("backup"));
    let site = Site::on(SqliteStore::open(&live).await.unwrap());
    let (mut ada, _) = site.user("ada", "x").await;
    let (mut visitor, _) = site.visitor().await;
    let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&live);
    connection = connection.read_only(true);
    let mut connection = sqlx::ConnectOptions::connect(&connection).await.unwrap();
    sqlx::query("VACUUM INTO ?")
        .bind(backup.to_str().unwrap())
        .execute(&mut connection)
        .await
        .unwrap();
    let stolen = ada.clone();
    ada.get("/log_out").await.assert(200, "done");
    // The backup has the session that has ended since. Its token is good again.
    let store = SqliteStore::open(&backup).await.unwrap();
    let restored = Site::with_clock(store, site.clock.clone());
    let mut back = Browser::new(&restored.app);
    back.adopt(&stolen);
    back.get("/user").await.assert(200, "ada");
    assert_eq!(restored.sessions.end_everything().await.unwrap(), 2);
    back.get("/user").await.assert(401, "");
    let mut again = Browser::new(&restored.app);
    again.adopt(&visitor);
    again.get("/get/theme").await.assert(200, "nothing");
    visitor.get("/get/theme").await.assert(200, "dark");
}

#[tokio::test]
async fn the_session_of_who_acts_as_another_is_shown_with_both_and_ends_with_the_own_one() {
    async fn act(session: Session) -> Result<(), SessionError> {
        session.act_as("customer")
    }
    let layer = SessionLayer::new(MemoryStore::new(), key());
    let sessions = layer.sessions();
    let app = routes().route("/act", get(act)).layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/log_in/support").await.assert(200, "done");
    browser.get("/act").await.assert(200, "");
    let everything = SessionFilter::new();
    let shown = all(&sessions, &everything, 10).await;
    let acting = shown.iter().find(|session| session.actor().is_some());
    let acting = acting.unwrap();
    assert_eq!(acting.user().unwrap().as_str(), "customer");
    assert_eq!(acting.actor().unwrap().as_str(), "support");
    let own = SessionFilter::new().user("support");
    assert_eq!(sessions.end(&own).await.unwrap(), 1);
    // The page finds out that the other one is over.
    assert!(all(&sessions, &everything, 10).await.is_empty());
    browser.get("/user").await.assert(401, "");
}
