//! A flash message is shown once: after a redirect, beside parallel requests, and across a login
//! and a logout.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::extract::Path;
use axum::response::Redirect;
use axum::routing::{get, post};
use cloakroom::flash::{Level, Message};
use cloakroom::testing::{self, FaultyStore, StoreCall};
use cloakroom::{
    Flash, MemoryStore, Session, SessionError, SessionErrorKind, SessionLayer, SessionStore,
    SqliteStore,
};
use http::header::COOKIE;
use http::{Request, Response, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{Browser, builder, key};
use tokio::task::JoinSet;
use tower::{Layer, ServiceExt, service_fn};

fn texts(messages: Vec<Message>) -> Vec<String> {
    messages.into_iter().map(|message| message.text).collect()
}

/// A browser that goes through a layer without an application, and the calls of its store.
struct Visitor {
    browser: testing::Browser<()>,
    layer: SessionLayer<FaultyStore<MemoryStore>>,
    store: FaultyStore<MemoryStore>,
}

impl Visitor {
    fn new() -> Self {
        let store = FaultyStore::new(MemoryStore::new());
        Self {
            browser: testing::Browser::new(()),
            layer: SessionLayer::new(store.clone(), key()),
            store,
        }
    }

    /// Sends a request with this handler.
    async fn request<T: Send>(
        &mut self,
        handler: impl FnOnce(&Session, &Flash) -> Result<T, SessionError> + Send,
    ) -> T {
        let handler = |session: &Session| handler(session, &Flash::new(session));
        let answer = self.browser.with_session(&self.layer, handler);
        answer.await.unwrap()
    }

    async fn push(&mut self, text: &str) {
        self.request(|_, flash| flash.success(text)).await;
    }

    async fn take(&mut self) -> Vec<String> {
        texts(self.request(|_, flash| flash.take()).await)
    }

    fn has_cookie(&self) -> bool {
        self.browser.cookie("__Host-session").is_some()
    }
}

/// An application with pages that push, redirect, show and fail.
fn pages() -> Router {
    async fn save(flash: Flash) -> Result<Redirect, SessionError> {
        flash.success("Saved.")?;
        Ok(Redirect::to("/old-home"))
    }
    async fn old_home(flash: Flash) -> Result<Redirect, SessionError> {
        flash.info("The page has moved.")?;
        Ok(Redirect::to("/home"))
    }
    async fn show(flash: Flash) -> Result<String, SessionError> {
        let lines = flash.take()?.into_iter();
        let lines = lines.map(|message| format!("{}: {message}", message.level));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
    async fn fail(flash: Flash) -> Result<StatusCode, SessionError> {
        assert_eq!(flash.take()?.len(), 2);
        flash.error("Nobody sees this.")?;
        Ok(StatusCode::INTERNAL_SERVER_ERROR)
    }
    async fn visit(session: Session, Path(page): Path<String>) -> Result<(), SessionError> {
        session.insert("last", page)
    }
    Router::new()
        .route("/save", post(save).get(save))
        .route("/old-home", get(old_home))
        .route("/home", get(show))
        .route("/fail", get(fail))
        .route("/visit/{page}", get(visit))
}

async fn messages_survive_redirects_and_failures(layer: SessionLayer<MemoryStore>) {
    let mut browser = Browser::new(&pages().layer(layer));
    let saved = browser.get("/save").await;
    assert_eq!(saved.header("location"), Some("/old-home"));
    let moved = browser.get("/old-home").await;
    assert_eq!(moved.header("location"), Some("/home"));
    browser.get("/visit/stock").await.assert(200, "");
    browser.get("/fail").await.assert(500, "");
    let both = "success: Saved.\ninfo: The page has moved.";
    let home = browser.get("/home").await;
    home.assert(200, both);
    assert_eq!(home.header("vary"), Some("Cookie"));
    browser.get("/home").await.assert(200, "");
}

#[tokio::test]
async fn messages_survive_redirects_and_failed_requests_and_are_shown_once() {
    let store = MemoryStore::new();
    messages_survive_redirects_and_failures(SessionLayer::new(store, key())).await;
}

#[tokio::test]
async fn a_lazy_layer_keeps_messages_too() {
    let layer = builder(MemoryStore::new()).lazy(true).build().unwrap();
    messages_survive_redirects_and_failures(layer).await;
}

#[tokio::test]
async fn without_a_layer_the_extractor_fails() {
    Browser::new(&pages()).get("/home").await.assert(500, "");
}

#[tokio::test]
async fn a_page_without_messages_writes_nothing() {
    let mut visitor = Visitor::new();
    assert!(visitor.take().await.is_empty());
    assert_eq!(visitor.store.take_calls(), []);
    assert!(!visitor.has_cookie());

    visitor.push("one").await;
    assert_eq!(visitor.take().await, ["one"]);
    visitor.store.take_calls();
    for _ in 0..2 {
        assert!(visitor.take().await.is_empty());
        visitor.request(|_, flash| flash.peek()).await;
    }
    assert_eq!(visitor.store.take_calls(), [StoreCall::Load; 4]);

    // A session that never had a message.
    let mut visitor = Visitor::new();
    visitor
        .request(|session, _| session.insert("theme", "dark"))
        .await;
    visitor.store.take_calls();
    assert!(visitor.take().await.is_empty());
    assert_eq!(visitor.store.take_calls(), [StoreCall::Load]);
}

#[tokio::test]
async fn a_visitor_whose_message_is_shown_at_once_gets_no_session() {
    let mut visitor = Visitor::new();
    let handler = |_: &Session, flash: &Flash| {
        flash.error("The name is taken.")?;
        flash.take()
    };
    assert_eq!(
        texts(visitor.request(handler).await),
        ["The name is taken."]
    );
    assert_eq!(visitor.store.take_calls(), []);
    assert!(!visitor.has_cookie());
}

#[tokio::test]
async fn a_page_that_shows_all_messages_leaves_nothing_in_the_session() {
    let mut visitor = Visitor::new();
    visitor.request(|_, flash| flash.info("a")).await;
    let left = |session: &Session, flash: &Flash| {
        flash.take()?;
        Ok((session.keys(), session.is_empty()))
    };
    assert_eq!(visitor.request(left).await, (vec![], true));
    let seen = |session: &Session, _: &Flash| Ok((session.keys(), session.is_empty()));
    assert_eq!(visitor.request(seen).await, (vec![], true));
}

#[tokio::test]
async fn messages_keep_their_order_level_and_text() {
    let mut visitor = Visitor::new();
    visitor
        .request(|session, flash| {
            flash.debug("1")?;
            flash.info("2")?;
            // Another handle to the same session.
            let other = Flash::from(session.clone());
            other.success(String::from("3 <b>&\"' \u{1f9e5}"))
        })
        .await;
    visitor
        .request(|_, flash| {
            flash.warning("4")?;
            flash.error("")?;
            flash.push(Level::Debug, "6")
        })
        .await;
    let seen = visitor.request(|_, flash| flash.peek()).await;
    let found = seen.iter().map(|message| (message.level, &*message.text));
    let expected = [
        (Level::Debug, "1"),
        (Level::Info, "2"),
        (Level::Success, "3 <b>&\"' \u{1f9e5}"),
        (Level::Warning, "4"),
        (Level::Error, ""),
        (Level::Debug, "6"),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!(visitor.request(|_, flash| flash.take()).await, seen);
}

#[test]
fn levels_are_ordered_and_have_the_names_of_css_classes() {
    let levels = [
        (Level::Debug, "debug"),
        (Level::Info, "info"),
        (Level::Success, "success"),
        (Level::Warning, "warning"),
        (Level::Error, "error"),
    ];
    assert!(levels.is_sorted());
    for (level, name) in levels {
        assert_eq!(level.as_str(), name);
        assert_eq!(format!("{level}|{level:>8}"), format!("{name}|{name:>8}"));
        assert_eq!(serde_json::to_value(level).unwrap(), name);
        assert_eq!(serde_json::from_value::<Level>(name.into()).unwrap(), level);
    }
}

#[tokio::test]
async fn a_message_is_json_for_a_client_and_its_text_in_a_template() {
    let mut visitor = Visitor::new();
    visitor.push("<Saved>").await;
    let message = visitor.request(|_, flash| flash.take()).await.remove(0);
    let json = serde_json::json!({"level": "success", "text": "<Saved>"});
    assert_eq!(serde_json::to_value(&message).unwrap(), json);
    assert_eq!(serde_json::from_value::<Message>(json).unwrap(), message);
    assert_eq!(format!("{message}|{message:>8}"), "<Saved>| <Saved>");
}

#[tokio::test]
async fn messages_that_no_page_shows_do_not_fill_the_session() {
    let mut visitor = Visitor::new();
    for n in 0..20 {
        visitor.push(&n.to_string()).await;
    }
    let newest = (4..20).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(newest.len(), Flash::MAX_MESSAGES);
    assert_eq!(visitor.take().await, newest);

    let part = "x".repeat(Flash::MAX_BYTES / 4);
    for n in 0..6 {
        visitor.push(&format!("{n}{}", &part[1..])).await;
    }
    let firsts = visitor.take().await;
    let firsts = firsts.iter().map(|text| &text[..1]);
    assert_eq!(firsts.collect::<Vec<_>>(), ["2", "3", "4", "5"]);

    // The newest stays, however long it is.
    let long = "x".repeat(Flash::MAX_BYTES + 1);
    visitor.push("short").await;
    visitor.push(&long).await;
    assert_eq!(visitor.take().await, [&*long]);
    visitor.push(&long).await;
    visitor.push("short").await;
    assert_eq!(visitor.take().await, ["short"]);
}

#[tokio::test]
async fn a_login_keeps_the_messages_and_a_logout_begins_with_new_ones() {
    let mut visitor = Visitor::new();
    visitor.push("Please log in.").await;
    visitor.request(|session, _| session.log_in("ada")).await;
    visitor.push("Hello, Ada.").await;
    let both = visitor.request(|_, flash| flash.peek()).await;
    assert_eq!(texts(both), ["Please log in.", "Hello, Ada."]);

    visitor
        .request(|session, flash| {
            session.log_out()?;
            flash.info("You are logged out.")
        })
        .await;
    assert!(visitor.has_cookie());
    assert_eq!(visitor.take().await, ["You are logged out."]);
    assert_eq!(
        visitor.request(|session, _| Ok(session.user())).await,
        None,
        "the message came with a visitor's session"
    );
}

#[tokio::test]
async fn another_user_does_not_see_the_messages_of_the_one_before() {
    let mut visitor = Visitor::new();
    visitor
        .request(|session, flash| {
            session.log_in("ada")?;
            flash.info("For Ada.")
        })
        .await;
    visitor
        .request(|session, flash| {
            flash.info("For Ada, too.")?;
            session.log_in("grace")?;
            flash.info("For Grace.")
        })
        .await;
    assert_eq!(visitor.take().await, ["For Grace."]);
}

#[tokio::test]
async fn destroy_and_clear_drop_the_messages() {
    for call in [Session::destroy, Session::clear] {
        let mut visitor = Visitor::new();
        visitor.push("before").await;
        visitor
            .request(|session, flash| {
                call(session)?;
                flash.info("after")
            })
            .await;
        assert_eq!(visitor.take().await, ["after"]);
    }
}

#[tokio::test]
async fn a_value_of_the_application_under_the_same_name_stays_as_it_is() {
    let mut visitor = Visitor::new();
    visitor
        .request(|session, flash| {
            session.insert("cloakroom.flash", 7)?;
            for refused in [flash.take().map(drop), flash.info("no")] {
                assert_eq!(refused.unwrap_err().kind(), SessionErrorKind::WrongType);
            }
            assert_eq!(session.get("cloakroom.flash")?, Some(7));
            Ok(())
        })
        .await;
}

/// Threads of one request share its session.
#[tokio::test]
async fn parallel_tasks_of_one_request_show_each_message_once() {
    for _ in 0..100 {
        let session = testing::session(|session| Flash::new(session).info("first"));
        let session = session.await.unwrap();
        let flash = Flash::new(&session);
        let taken = Mutex::new(Vec::new());
        let all_have_pushed = Barrier::new(4);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (flash, taken, all_have_pushed) = (&flash, &taken, &all_have_pushed);
                scope.spawn(move || {
                    for m in 0..3 {
                        flash.info(format!("{n}.{m}")).unwrap();
                        all_have_pushed.wait();
                        let messages = flash.take().unwrap();
                        taken.lock().unwrap().extend(texts(messages));
                    }
                });
            }
        });
        let mut taken = taken.into_inner().unwrap();
        assert_eq!(taken.len(), 13, "{taken:?}");
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), 13, "{taken:?}");
        assert!(flash.take().unwrap().is_empty());
    }
}

/// Requests push and take at once, round after round. Twelve pushes and what is left of the round
/// before never drop a message.
async fn parallel_requests_lose_no_message(store: impl SessionStore) {
    async fn push(flash: Flash, Path(text): Path<String>) -> Result<(), SessionError> {
        tokio::task::yield_now().await;
        flash.info(text)
    }
    async fn take(flash: Flash) -> Result<String, SessionError> {
        let taken = texts(flash.take()?).join(",");
        tokio::task::yield_now().await;
        Ok(taken)
    }
    let app = Router::new()
        .route("/push/{text}", get(push))
        .route("/take", get(take))
        .layer(SessionLayer::new(store, key()));
    let mut browser = Browser::new(&app);
    browser.get("/push/first").await.assert(200, "");
    let mut shown = BTreeSet::new();
    for round in 0..8 {
        let mut requests = JoinSet::new();
        for n in 0..12 {
            requests.spawn(browser.send(&format!("/push/{round}.{n}"), &[]));
            if n % 3 == 0 {
                requests.spawn(browser.send("/take", &[]));
            }
        }
        let mut of_round = Vec::new();
        while let Some(reply) = requests.join_next().await {
            let reply = reply.unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
            of_round.push(reply.body);
        }
        of_round.push(browser.get("/take").await.body);
        let earlier = std::mem::take(&mut shown);
        for body in of_round {
            let texts = body.split(',').filter(|text| !text.is_empty());
            shown.extend(texts.map(str::to_owned));
        }
        // Pages of one round overlap, so several of them may show one message. A later round shows
        // none of them again.
        assert!(earlier.is_disjoint(&shown), "{earlier:?} {shown:?}");
        assert_eq!(shown.len(), 12 + usize::from(round == 0), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_no_message_in_memory() {
    parallel_requests_lose_no_message(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_requests_lose_no_message_in_sqlite() {
    let store = SqliteStore::open(":memory:").await.unwrap();
    parallel_requests_lose_no_message(store).await;
}

/// What a step of a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Push,
    Take,
}

/// A request that goes on only when it gets a turn: to load its session, before each act, and to
/// commit.
struct Page {
    name: usize,
    acts: Vec<Act>,
    turns: AtomicUsize,
    shown: Mutex<Vec<String>>,
}

impl Page {
    async fn turn(&self) {
        let take = |turns: usize| turns.checked_sub(1);
        let update = || {
            self.turns
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
        };
        poll_fn(|_| match update() {
            Ok(_) => Poll::Ready(()),
            Err(_) => Poll::Pending,
        })
        .await;
    }

    async fn handle(request: Request<()>) -> Result<Response<()>, Infallible> {
        let page = request.extensions().get::<Arc<Self>>().unwrap().clone();
        let session = Session::from_extensions(request.extensions()).unwrap();
        let flash = Flash::new(&session);
        for (n, act) in page.acts.iter().enumerate() {
            page.turn().await;
            match act {
                Act::Push => flash.info(format!("{}.{n}", page.name)).unwrap(),
                Act::Take => {
                    let taken = texts(flash.take().unwrap());
                    page.shown.lock().unwrap().extend(taken);
                }
            }
        }
        page.turn().await;
        Ok(Response::new(()))
    }

    /// The texts that the page pushes.
    fn pushed(&self) -> impl Iterator<Item = String> {
        let acts = self.acts.iter().enumerate();
        let pushes = acts.filter(|(_, act)| **act == Act::Push);
        pushes.map(|(n, _)| format!("{}.{n}", self.name))
    }
}

/// A page on its way, and the times at which it loaded and committed.
struct Running {
    page: Arc<Page>,
    answer: Pin<Box<dyn Future<Output = StatusCode> + Send>>,
    loaded: usize,
    committed: usize,
}

/// Runs these pages on one session with one message. `order` says whose turn it is. It has a turn
/// for each page to load, for each of its acts, and to commit.
async fn check_order(pages: &[Vec<Act>], order: &[usize]) {
    let mut visitor = Visitor::new();
    visitor.push("first").await;
    let cookie = visitor.browser.cookie("__Host-session").unwrap();
    let cookie = format!("__Host-session={cookie}");
    let app = visitor.layer.layer(service_fn(Page::handle));
    let mut running: Vec<Running> = pages
        .iter()
        .enumerate()
        .map(|(name, acts)| {
            let page = Arc::new(Page {
                name,
                acts: acts.clone(),
                turns: AtomicUsize::new(0),
                shown: Mutex::default(),
            });
            let request = Request::get("/").header(COOKIE, &cookie);
            let request = request.extension(page.clone()).body(()).unwrap();
            let answer = app.clone().oneshot(request);
            Running {
                page,
                answer: Box::pin(async { answer.await.unwrap().status() }),
                loaded: 0,
                committed: 0,
            }
        })
        .collect();
    let mut turns = vec![0; pages.len()];
    for (now, whose) in order.iter().enumerate() {
        let one = &mut running[*whose];
        if turns[*whose] == 0 {
            one.loaded = now;
        } else {
            one.page.turns.store(1, Ordering::SeqCst);
        }
        turns[*whose] += 1;
        if turns[*whose] == one.page.acts.len() + 2 {
            one.committed = now;
            assert_eq!(one.answer.as_mut().await, 200);
        } else {
            let mut context = Context::from_waker(Waker::noop());
            assert!(one.answer.as_mut().poll(&mut context).is_pending());
        }
    }

    let case = format!("{pages:?} in the order {order:?}");
    let left = visitor.take().await;
    let mut seen: BTreeSet<String> = left.iter().cloned().collect();
    assert_eq!(seen.len(), left.len(), "{left:?} twice, {case}");
    for (n, one) in running.iter().enumerate() {
        let shown = one.page.shown.lock().unwrap();
        let unique: BTreeSet<_> = shown.iter().cloned().collect();
        assert_eq!(unique.len(), shown.len(), "{shown:?} on one page, {case}");
        for text in &left {
            assert!(!shown.contains(text), "{text} is shown again, {case}");
        }
        for other in &running[n + 1..] {
            let overlap = one.loaded < other.committed && other.loaded < one.committed;
            let others = other.page.shown.lock().unwrap();
            let is_again = others.iter().any(|text| unique.contains(text));
            assert!(overlap || !is_again, "{others:?} again, {case}");
        }
        seen.extend(unique);
    }
    let pushed = running.iter().flat_map(|one| one.page.pushed());
    let pushed: BTreeSet<_> = pushed.chain(["first".to_owned()]).collect();
    assert_eq!(seen, pushed, "{case}");
}

/// All orders of `left` turns of each page.
fn orders(left: &mut [usize], so_far: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
    if left.iter().all(|left| *left == 0) {
        all.push(so_far.clone());
    }
    for whose in 0..left.len() {
        if left[whose] > 0 {
            left[whose] -= 1;
            so_far.push(whose);
            orders(left, so_far, all);
            so_far.pop();
            left[whose] += 1;
        }
    }
}

#[tokio::test]
async fn every_order_of_two_requests_shows_each_message() {
    use Act::{Push, Take};
    let pages = [
        vec![],
        vec![Push],
        vec![Take],
        vec![Push, Push],
        vec![Push, Take],
        vec![Take, Push],
    ];
    let mut count = 0;
    for one in &pages {
        for other in &pages {
            let mut left = [one.len() + 2, other.len() + 2];
            let mut all = Vec::new();
            orders(&mut left, &mut Vec::new(), &mut all);
            for order in &all {
                check_order(&[one.clone(), other.clone()], order).await;
            }
            count += all.len();
        }
    }
    assert_eq!(count, 1266);
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![Just(Act::Push), Just(Act::Take)]
}

/// Pages, and an order of all their turns.
fn pages_in_some_order() -> impl Strategy<Value = (Vec<Vec<Act>>, Vec<usize>)> {
    vec(vec(act(), 0..4), 2..6).prop_flat_map(|pages| {
        let turns = pages.iter().enumerate();
        let turns = turns.flat_map(|(n, acts)| std::iter::repeat_n(n, acts.len() + 2));
        let order = Just(turns.collect::<Vec<_>>()).prop_shuffle();
        (Just(pages), order)
    })
}

proptest! {
    #[test]
    fn any_order_of_many_requests_shows_each_message((pages, order) in pages_in_some_order()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check_order(&pages, &order));
    }
}

/// The second page found the first message, as the first page did. A second message of the same
/// text came after that.
#[tokio::test]
async fn a_late_page_does_not_take_a_newer_message_of_the_same_text() {
    let mut visitor = Visitor::new();
    visitor.push("Saved.").await;
    let mut late = visitor.browser.clone();
    let mut held = visitor.store.hold_next(StoreCall::Replace);
    let layer = visitor.layer.clone();
    let late = tokio::spawn(async move {
        let take = |session: &Session| Flash::new(session).take();
        texts(late.with_session(&layer, take).await.unwrap())
    });
    held.arrived().await;
    assert_eq!(visitor.take().await, ["Saved."]);
    visitor.push("Saved.").await;
    held.release();
    assert_eq!(late.await.unwrap(), ["Saved."]);
    assert_eq!(visitor.take().await, ["Saved."]);
    assert!(visitor.take().await.is_empty());
}
