//! [`Guard`]: a layer that lets only some users through.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

pub use self::future::GuardFuture;
use super::answer::{Redirects, Target};
use super::lookup::{Start, Visit, failed};
use super::users::Users;
use crate::error::{SessionError, SessionErrorKind};
use crate::events;
use crate::session::lazy::SessionSlot;

mod future;

/// A layer that lets through only requests of users who are logged in. It is for
/// `Router::route_layer`, `Router::layer` and every other place for a Tower layer. Put it inside of
/// the session layer.
///
/// Its methods ask for more than a login, and say where to send those who are refused. The checks
/// run in the order in which they were added. See [`Guard`] for the answers.
///
/// ```
/// # use cloakroom::login::{BoxError, Users};
/// # use cloakroom::{IntoUserId, UserId};
/// # #[derive(Clone)]
/// # struct User { name: String, is_staff: bool }
/// # #[derive(Clone)]
/// # struct Db;
/// # impl Users for Db {
/// #     type User = User;
/// #     async fn find(&self, _: &UserId) -> Result<Option<User>, BoxError> { Ok(None) }
/// #     fn id(user: &User) -> impl IntoUserId { user.name.clone() }
/// # }
/// use std::time::Duration;
///
/// use axum::{Router, routing::{get, post}};
/// use cloakroom::login;
///
/// # fn routes() -> Router {
/// let members = login::required::<Db>().redirect_to("/login");
/// let staff = members.clone().when(|user| user.is_staff);
/// let payments = members.clone().recent(Duration::from_secs(5 * 60));
///
/// Router::new()
///     .route("/account", get("for members"))
///     .route_layer(members)
///     .merge(Router::new().route("/reports", get("for the staff")).route_layer(staff))
///     .merge(Router::new().route("/pay", post("after a recent login")).route_layer(payments))
/// # }
/// ```
#[doc(alias("login_required", "permission_required", "require_authenticated_user"))]
pub fn required<U: Users>() -> Guard<U> {
    Guard(Arc::new(Rules {
        checks: Vec::new(),
        redirects: Redirects::default(),
    }))
}

/// What [`required`] gives.
///
/// # What a request gets that is refused
///
/// | | page (GET, HEAD) | form (POST) | htmx | fetch, JSON, WebSocket |
/// | --- | --- | --- | --- | --- |
/// | nobody is logged in | 303 to the login, with `next` | 303 to the login | 401, `HX-Redirect` to the login, with `next` | 401 |
/// | the login is too old, or its level too low | 303 to the login, with `next` | 303 to the login | 401, `HX-Redirect` | 401 |
/// | refused by [`when`](Self::when), [`permission`](Self::permission), [`refuse_acting`](Self::refuse_acting) | 403 | 403 | 403 | 403 |
/// | the same, with [`or_redirect_to`](Self::or_redirect_to) | 303 | 303 | 403, `HX-Redirect` | 403 |
/// | a parallel request has just rotated the token | 409 | 409 | 409 | 409 |
/// | the store or the look-up fails | 503 | 503 | 503 | 503 |
///
/// Without [`redirect_to`](Self::redirect_to), each 303 to the login is a 401. A 401 has a
/// `WWW-Authenticate`. If the login is too old or its level too low, that header says which login
/// would do (RFC 9470). A 503 has a `Retry-After`. No answer is kept by a cache.
///
/// A request is one for a page if its `Sec-Fetch-Mode` is `navigate`. Old browsers, and browsers on
/// plain HTTP, do not send that header. From them, a request is one for a page if its `Accept` has
/// `text/html` (and not with `q=0`), unless it has `Upgrade: websocket` or
/// `X-Requested-With: XMLHttpRequest`. A request with `HX-Request: true` comes from htmx, and its
/// `next` is the page that the user sees. If htmx follows a link for the browser, which
/// `HX-Boosted: true` says, `next` is the page of the link.
///
/// A guard never redirects the login page to itself. If a guard is around the login page by
/// mistake, that page is a 401.
///
/// # Several guards
///
/// One guard may be inside another. Then all must let a request through, and the request still
/// makes only one look-up of the user. So a guard of all pages can send visitors to the login, and
/// an inner guard of some pages can send those whose login is too old to another page:
///
/// ```
/// # use cloakroom::login::{self, Guard, Users};
/// # use std::time::Duration;
/// # fn show<Db: Users>() -> (Guard<Db>, Guard<Db>) {
/// let outer = login::required::<Db>().redirect_to("/login");
/// let inner = login::required::<Db>().recent(Duration::from_secs(300)).redirect_to("/confirm");
/// # (outer, inner) }
/// ```
#[must_use = "a guard does nothing until it is a layer of a router"]
pub struct Guard<U: Users>(Arc<Rules<U>>);

struct Rules<U: Users> {
    checks: Vec<Check<U>>,
    redirects: Redirects,
}

type Predicate<User> = dyn Fn(&User) -> bool + Send + Sync;

enum Check<U: Users> {
    When(Arc<Predicate<U::User>>),
    Permission(Arc<str>),
    Recent(Duration),
    Level(Arc<[&'static str]>),
    NotActing,
}

impl<U: Users> Guard<U> {
    fn with(mut self, change: impl FnOnce(&mut Rules<U>)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    fn checking(self, check: Check<U>) -> Self {
        self.with(|rules| rules.checks.push(check))
    }

    /// Sends to this page whoever must log in, or must log in again. The page that was asked for is
    /// in the query parameter `next`, and [`Next`](super::Next) reads it.
    ///
    /// `page` is a path of this site, `/login`. It may have a query. The page itself must not be
    /// behind a guard.
    ///
    /// With [`recent`](Self::recent) or [`level`](Self::level), users who are logged in come to
    /// this page as well. It must let them log in again.
    ///
    /// The session layer must be around the outermost router. Inside of a nested router it does not
    /// see the whole path, and `next` has only the end of it.
    pub fn redirect_to(self, page: &str) -> Self {
        self.with(|rules| rules.redirects.login = Some(Target::new(page)))
    }

    /// Lets through only users for whom `predicate` is true: a role, a paid plan, an address that
    /// is confirmed. Others get a 403.
    ///
    /// ```
    /// # use cloakroom::login::{self, Guard, Users};
    /// # struct User { is_staff: bool }
    /// # fn show<Db: Users<User = std::sync::Arc<User>>>() -> Guard<Db> {
    /// login::required::<Db>().when(|user| user.is_staff)
    /// # }
    /// ```
    #[doc(alias("role", "has_role", "authorize"))]
    pub fn when(self, predicate: impl Fn(&U::User) -> bool + Send + Sync + 'static) -> Self {
        self.checking(Check::When(Arc::new(predicate)))
    }

    /// Lets through only users who have this permission by
    /// [`has_permission`](Users::has_permission). Others get a 403. If that look-up fails, the
    /// answer is a 503.
    ///
    /// ```
    /// # use cloakroom::login::{self, Guard, Users};
    /// # fn show<Db: Users>() -> Guard<Db> {
    /// login::required::<Db>().permission("stock.read").permission("stock.write") // needs both
    /// # }
    /// ```
    pub fn permission(self, permission: impl Into<Arc<str>>) -> Self {
        self.checking(Check::Permission(permission.into()))
    }

    /// Asks for a login that is at most `max_age` old, as
    /// [`require_recent_login`](crate::Session::require_recent_login).
    ///
    /// ```
    /// # use cloakroom::login::{self, Guard, Users};
    /// # use std::time::Duration;
    /// # fn show<Db: Users>() -> Guard<Db> {
    /// login::required::<Db>().recent(Duration::from_secs(5 * 60)).redirect_to("/login")
    /// # }
    /// ```
    #[doc(alias("sudo", "step_up", "reauthenticate", "password_confirm"))]
    pub fn recent(self, max_age: Duration) -> Self {
        self.checking(Check::Recent(max_age))
    }

    /// Asks for a login of one of these levels, as
    /// [`require_level`](crate::Session::require_level).
    ///
    /// ```
    /// # use cloakroom::login::{self, Guard, Users};
    /// # fn show<Db: Users>() -> Guard<Db> {
    /// login::required::<Db>().level(&["aal2", "aal3"]).redirect_to("/second-factor")
    /// # }
    /// ```
    #[doc(alias("acr", "mfa", "two_factor", "second_factor"))]
    pub fn level(self, accepted: &[&'static str]) -> Self {
        self.checking(Check::Level(accepted.into()))
    }

    /// Refuses with a 403 whoever [acts as](crate::Session::act_as) another user. It is for what
    /// only the user may do: a new password, a payment.
    ///
    /// ```
    /// # use cloakroom::login::{self, Guard, Users};
    /// # fn show<Db: Users>() -> Guard<Db> {
    /// login::required::<Db>().refuse_acting()
    /// # }
    /// ```
    #[doc(alias("impersonation", "su", "switch_user"))]
    pub fn refuse_acting(self) -> Self {
        self.checking(Check::NotActing)
    }

    /// Sends to this page whoever is logged in, and is refused by [`when`](Self::when),
    /// [`permission`](Self::permission) or [`refuse_acting`](Self::refuse_acting). Without it, the
    /// answer is a 403. What is not a page gets the 403 in any case.
    ///
    /// ```
    /// # use cloakroom::login::{self, Guard, Users};
    /// # struct User { has_paid: bool }
    /// # fn show<Db: Users<User = std::sync::Arc<User>>>() -> Guard<Db> {
    /// login::required::<Db>().when(|user| user.has_paid).or_redirect_to("/upgrade")
    /// # }
    /// ```
    pub fn or_redirect_to(self, page: &str) -> Self {
        self.with(|rules| rules.redirects.refused = Some(Target::new(page)))
    }
}

impl<U: Users> Rules<U> {
    /// Whether the guard lets the request through. `None` says that somebody may have to wait for
    /// the answer.
    fn check_at_once(&self, start: &Start<U>) -> Option<Result<(), SessionError>> {
        let Start::Known(visit) = start else {
            return None;
        };
        let asks_users = |check: &Check<U>| matches!(check, Check::Permission(_));
        if self.checks.iter().any(asks_users) {
            return None;
        }
        match pin!(self.check(visit)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// Whether the guard lets the user of this visit through.
    async fn check(&self, visit: &Visit<U>) -> Result<(), SessionError> {
        let user = visit.require_user()?;
        let session = visit.session();
        for check in &self.checks {
            let is_allowed = match check {
                Check::When(predicate) => predicate(user),
                Check::Permission(permission) => {
                    let answer = visit.users()?.has_permission(user, permission);
                    Box::pin(answer).await.map_err(failed)?
                }
                Check::Recent(max_age) => {
                    session.require_recent_login(*max_age)?;
                    true
                }
                Check::Level(accepted) => {
                    session.require_level(accepted)?;
                    true
                }
                Check::NotActing => session.actor().is_none(),
            };
            if !is_allowed {
                return Err(SessionErrorKind::NotAllowed.into());
            }
        }
        Ok(())
    }
}

impl<U: Users> Clone for Guard<U> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<U: Users> Clone for Rules<U> {
    fn clone(&self) -> Self {
        Self {
            checks: self.checks.clone(),
            redirects: self.redirects.clone(),
        }
    }
}

impl<U: Users> Clone for Check<U> {
    fn clone(&self) -> Self {
        match self {
            Self::When(predicate) => Self::When(predicate.clone()),
            Self::Permission(permission) => Self::Permission(permission.clone()),
            Self::Recent(max_age) => Self::Recent(*max_age),
            Self::Level(accepted) => Self::Level(accepted.clone()),
            Self::NotActing => Self::NotActing,
        }
    }
}

impl<U: Users> fmt::Debug for Guard<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("checks", &self.0.checks)
            .field("redirects", &self.0.redirects)
            .finish()
    }
}

impl<U: Users> fmt::Debug for Check<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::When(_) => f.write_str("When(..)"),
            Self::Permission(permission) => write!(f, "Permission({permission:?})"),
            Self::Recent(max_age) => write!(f, "Recent({max_age:?})"),
            Self::Level(accepted) => write!(f, "Level({accepted:?})"),
            Self::NotActing => f.write_str("NotActing"),
        }
    }
}

impl<U: Users, S> Layer<S> for Guard<U> {
    type Service = GuardService<U, S>;

    fn layer(&self, inner: S) -> GuardService<U, S> {
        GuardService {
            rules: self.0.clone(),
            inner,
        }
    }
}

/// The service that a [`Guard`] puts around another.
pub struct GuardService<U: Users, S> {
    rules: Arc<Rules<U>>,
    inner: S,
}

impl<U: Users, S: Clone> Clone for GuardService<U, S> {
    fn clone(&self) -> Self {
        Self {
            rules: self.rules.clone(),
            inner: self.inner.clone(),
        }
    }
}

impl<U: Users, S: fmt::Debug> fmt::Debug for GuardService<U, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<U, S, RequestBody, ResponseBody> Service<Request<RequestBody>> for GuardService<U, S>
where
    U: Users,
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    RequestBody: Send + 'static,
    ResponseBody: Default,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = GuardFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let slot = match SessionSlot::from_extensions(request.extensions()) {
            Ok(slot) => slot,
            Err(error) => {
                events::refused(&error);
                return GuardFuture::refusing(error.to_response());
            }
        };
        let start = Start::at(slot);
        let answer = match self.rules.check_at_once(&start) {
            Some(answer) => answer,
            None => {
                let rules = self.rules.clone();
                let mut check = Box::pin(async move {
                    let visit = start.finish().await?;
                    rules.check(&visit).await
                });
                // If the users are in memory, nobody waits, and neither the request nor the service
                // needs a place to wait in. Otherwise the first poll of the response's future asks
                // again, with a waker that wakes.
                match check.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => return self.wait(check, request),
                }
            }
        };
        match answer {
            Ok(()) => GuardFuture::handling(self.inner.call(request)),
            Err(error) => GuardFuture::refusing(self.rules.redirects.answer(&error, &request)),
        }
    }
}

impl<U: Users, S> GuardService<U, S> {
    /// Hands over the request once the check lets it through.
    fn wait<RequestBody, ResponseBody>(
        &mut self,
        check: Pin<Box<dyn Future<Output = Result<(), SessionError>> + Send>>,
        request: Request<RequestBody>,
    ) -> GuardFuture<S::Future>
    where
        S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
        S: Clone + Send + 'static,
        S::Future: Send,
        RequestBody: Send + 'static,
        ResponseBody: Default,
    {
        // The service that is ready takes this request. Its clone takes the next.
        let not_ready = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, not_ready);
        let rules = self.rules.clone();
        GuardFuture::waiting(Box::pin(async move {
            match check.await {
                Ok(()) => ready.call(request).await,
                Err(error) => Ok(rules.redirects.answer(&error, &request)),
            }
        }))
    }
}
