//! What a guard costs: a read behind it, beside a read whose handler looks the user up by itself.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, HeaderValue};
use axum::http::{Request, Uri};
use axum::routing::get;
use cloakroom::login::{Auth, BoxError, Users, required};
use cloakroom::{
    CurrentUser, IntoUserId, MemoryStore, Session, SessionError, SessionLayer, SigningKey, Stamp,
    UserId,
};
use tower::Service;
use tower::layer::layer_fn;

use crate::count;
use crate::ready::{Ready, Result};
use crate::scenario::{NONCE, Profile, THEME, cart};

/// How much more a guarded read may cost than one that looks up the user by itself.
const TOLERANCE: f64 = 1.13;

/// How much more it may cost than the same behind a layer that does nothing. Axum boxes and clones
/// each layer of a route, whatever the layer does.
const TOLERANCE_OF_LAYER: f64 = 1.08;

/// A read, and what is around it.
const READS: [(&str, &str); 6] = [
    ("/plain", "reads a key of the session"),
    ("/by-hand", "the same, and looks up the user by hand"),
    ("/layer", "the same, behind a layer that does nothing"),
    ("/guarded", "the same, behind a guard, with `Auth`"),
    ("/twice", "the same, behind two guards"),
    (
        "/stamped",
        "behind one guard, with stamps of password hashes",
    ),
];

#[derive(Clone)]
struct User {
    id: u64,
    name: String,
    password_hash: String,
}

/// One user, whom it finds at once.
#[derive(Clone, Copy)]
struct Db<const HAS_STAMPS: bool>;

/// A layer's service that does nothing.
#[derive(Clone)]
struct Passing<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Passing<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
    }
}

impl<const HAS_STAMPS: bool> Users for Db<HAS_STAMPS> {
    type User = Arc<User>;

    async fn find(&self, id: &UserId) -> Result<Option<Arc<User>>, BoxError> {
        Ok(Some(Arc::new(User {
            id: id.parse()?,
            name: "Ada Lovelace".to_owned(),
            password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c29tZSBzYWx0IG9mIDE2$\
                            q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"
                .to_owned(),
        })))
    }

    fn id(user: &Arc<User>) -> impl IntoUserId {
        user.id
    }

    fn credentials(user: &Arc<User>) -> Stamp {
        match HAS_STAMPS {
            true => Stamp::of(&user.password_hash),
            false => Stamp::none(),
        }
    }
}

/// The instructions and allocations of each read. Fails if the guard costs too much.
pub fn run() -> Result<()> {
    let mut costs = Vec::new();
    for (path, what) in READS {
        let cost = count::measure_command(&["run-login", path])?;
        println!(
            "{:>8.0} {:>6.2}  {what}",
            cost.instructions, cost.allocations
        );
        costs.push(cost);
    }
    let [_, by_hand, layer, guarded, ..] = costs[..] else {
        return Err("no figures".into());
    };
    let mut is_good = true;
    for (what, cost, tolerance) in [
        ("the read by hand", by_hand, TOLERANCE),
        ("the same behind a layer", layer, TOLERANCE_OF_LAYER),
    ] {
        let ratio = guarded.instructions / cost.instructions;
        println!("guarded: {ratio:.3} times {what}; it may be {tolerance}");
        is_good &= ratio <= tolerance;
    }
    match is_good {
        true => Ok(()),
        false => Err("a guard costs too much".into()),
    }
}

/// Sends this many requests to the path.
pub async fn requests(path: &str, requests: usize) -> Result<()> {
    let routes = match path {
        "/stamped" => routes(Db::<true>)?,
        _ => routes(Db::<false>)?,
    };
    // As `axum::serve` does: Axum makes its routes now, and not again for each request.
    let mut ready = Ready::of(routes.with_state(())).await?;
    let uri: Uri = path.parse()?;
    let request = |cookie: &HeaderValue| {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(COOKIE, cookie.clone());
        request
    };
    let mut prepared: Vec<_> = std::iter::repeat_with(|| request(&ready.cookie))
        .take(requests.max(count::PREPARED))
        .collect();
    for request in prepared.drain(..requests) {
        ready.answer(request).await;
    }
    std::mem::forget((ready, prepared));
    Ok(())
}

fn routes<const HAS_STAMPS: bool>(db: Db<HAS_STAMPS>) -> Result<Router> {
    type Answer = Result<&'static str, SessionError>;

    let fill = move |session: Session| async move {
        let user = db.find(&UserId::from(4711)).await.unwrap().unwrap();
        session.log_in(Db::<HAS_STAMPS>::account(&user))?;
        session.insert("profile", Profile::example())?;
        session.insert("cart", cart())?;
        session.insert("nonce", NONCE)?;
        session.insert("theme", THEME)
    };
    let plain = |session: Session| async move { read(&session) };
    let by_hand = |id: CurrentUser, session: Session| async move {
        let user = Db::<HAS_STAMPS>.find(&id).await;
        assert_eq!(user.unwrap().unwrap().name, "Ada Lovelace");
        read(&session)
    };
    async fn with_auth<const HAS_STAMPS: bool>(
        Auth(user): Auth<Db<HAS_STAMPS>>,
        session: Session,
    ) -> Answer {
        assert_eq!(user.name, "Ada Lovelace");
        read(&session)
    }
    fn read(session: &Session) -> Answer {
        let theme: Option<String> = session.get("theme")?;
        assert_eq!(theme.as_deref(), Some(THEME));
        Ok("ok")
    }
    let guard = || required::<Db<HAS_STAMPS>>().redirect_to("/login");
    let guarded = get(with_auth::<HAS_STAMPS>).layer(guard());
    let layer = SessionLayer::builder(MemoryStore::new(), SigningKey::generate()?).users(db);
    Ok(Router::new()
        .route("/fill", get(fill))
        .route("/plain", get(plain))
        .route("/by-hand", get(by_hand))
        .route("/guarded", guarded.clone())
        .route("/layer", get(by_hand).layer(layer_fn(Passing)))
        .route("/stamped", guarded.clone())
        .route("/twice", guarded.layer(guard()))
        .layer(layer.build()?))
}
