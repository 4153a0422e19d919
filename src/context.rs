//! [`LayerContext`]: what the requests of one layer share. It has the layer's settings, and makes
//! every call of the store: with a time limit, measured, and with an event if it fails.

mod catalog;
pub(crate) mod commit_locks;
pub(crate) mod commit_rule;
pub(crate) mod describe;
pub(crate) mod ending;
pub(crate) mod keys;
mod report;
pub(crate) mod session_limit;
pub(crate) mod warnings;

#[cfg(feature = "login")]
use std::any::Any;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use http::Extensions;
use http::header::{HeaderMap, HeaderName};
use tokio::sync::Mutex;
use tokio::time::timeout;

use self::commit_locks::CommitLocks;
use self::commit_rule::CommitRule;
use self::describe::DescribeClient;
use self::session_limit::SessionLimit;
use self::warnings::Warnings;
#[cfg(feature = "jwt")]
use crate::assertion::Assertions;
#[cfg(feature = "dbsc")]
use crate::binding::device::devices::Devices;
use crate::binding::presented::PresentedProof;
use crate::binding::rotation::{Chance, Rotation, Step};
use crate::clock::{Clock, Timestamp};
use crate::error::{SessionError, StoreError};
use crate::events;
use crate::hooks::Hooks;
use crate::id::RecordId;
use crate::live::LiveSessions;
use crate::record::client::Client;
use crate::record::generations::Serial;
use crate::record::lifetime::Lifetimes;
use crate::record::realm::Realm;
use crate::record::user::UserId;
use crate::record::{Record, RecordFields, Version};
use crate::store::{Replaced, SessionStore, UserIndex};
use crate::token::presented::{EncodedToken, PresentedTokens};
use crate::token::random::RandomSource;
use crate::token::signer::Signer;
use crate::token::transport::TokenTransport;
use crate::token::{SessionToken, VerifiedTokens};

/// How much longer than its expiry a record stays in the store. The clocks of nodes differ, and a
/// node whose clock is ahead must not remove sessions that are live to the others.
const PURGE_MARGIN: Duration = Duration::from_secs(10 * 60);

/// When the layer loads a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Loading {
    /// Before the handler.
    #[default]
    Eager,
    /// When somebody first asks for the session.
    Lazy,
}

/// The settings of a layer, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) transport: TokenTransport,
    pub(crate) signer: Signer,
    pub(crate) random: RandomSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) store_timeout: Duration,
    pub(crate) commit_timeout: Duration,
    pub(crate) data_limit: usize,
    pub(crate) loading: Loading,
    pub(crate) clear_site_data: bool,
    pub(crate) session_limit: Option<SessionLimit>,
    pub(crate) realm: Realm,
    pub(crate) commit_rule: CommitRule,
    pub(crate) poll_interval: Duration,
    pub(crate) hooks: Hooks,
    /// How tokens rotate, if they do.
    pub(crate) rotation: Option<Rotation>,
    pub(crate) describe: Option<DescribeClient>,
    /// How sessions are bound to devices, if they are.
    #[cfg(feature = "dbsc")]
    pub(crate) devices: Option<Devices>,
    /// The application's users, for the room `login`.
    #[cfg(feature = "login")]
    pub(crate) users: Option<Arc<dyn Any + Send + Sync>>,
    /// What makes the layer's assertions, if it makes some.
    #[cfg(feature = "jwt")]
    pub(crate) assertions: Option<Assertions>,
}

/// What those requests of one layer share that have the same keys.
#[derive(Debug)]
pub(crate) struct LayerContext {
    store: Arc<dyn SessionStore>,
    settings: Settings,
    commit_locks: Arc<CommitLocks>,
    warnings: Arc<Warnings>,
    live: Arc<LiveSessions>,
    /// The context with the layer's first keys, if this one has later ones. `live` reports to it.
    _first: Option<Arc<Self>>,
}

/// The settings.
impl LayerContext {
    pub(crate) fn new(store: Arc<dyn SessionStore>, settings: Settings) -> Arc<Self> {
        Arc::new_cyclic(|context: &Weak<Self>| {
            let context = Weak::clone(context);
            let live = LiveSessions::new(
                store.clone(),
                settings.clock.clone(),
                settings.lifetimes.clone(),
                settings.poll_interval,
                settings.store_timeout,
                Box::new(move |id, record| {
                    if let Some(context) = context.upgrade() {
                        context.report_expired(id, record);
                    }
                }),
            );
            Self {
                store,
                settings,
                live: Arc::new(live),
                commit_locks: Arc::new(CommitLocks::new()),
                warnings: Arc::default(),
                _first: None,
            }
        })
    }

    pub(crate) fn transport(&self) -> &TokenTransport {
        &self.settings.transport
    }

    pub(crate) fn lifetimes(&self) -> &Lifetimes {
        &self.settings.lifetimes
    }

    pub(crate) fn commit_timeout(&self) -> Duration {
        self.settings.commit_timeout
    }

    pub(crate) fn data_limit(&self) -> usize {
        self.settings.data_limit
    }

    pub(crate) fn is_lazy(&self) -> bool {
        self.settings.loading == Loading::Lazy
    }

    /// Whether a logout tells the browser to forget what it keeps of the site.
    pub(crate) fn clears_site_data(&self) -> bool {
        self.settings.clear_site_data
    }

    pub(crate) fn session_limit(&self) -> Option<&SessionLimit> {
        self.settings.session_limit.as_ref()
    }

    pub(crate) fn realm(&self) -> &Realm {
        &self.settings.realm
    }

    pub(crate) fn commit_rule(&self) -> &CommitRule {
        &self.settings.commit_rule
    }

    /// How sessions are bound to devices, if they are.
    #[cfg(feature = "dbsc")]
    pub(crate) fn devices(&self) -> Option<&Devices> {
        self.settings.devices.as_ref()
    }

    /// What makes the layer's assertions, if it makes some.
    #[cfg(feature = "jwt")]
    pub(crate) fn assertions(&self) -> Option<&Assertions> {
        self.settings.assertions.as_ref()
    }

    /// Where random bytes come from.
    #[cfg(any(feature = "dbsc", feature = "jwt"))]
    pub(crate) fn random(&self) -> &RandomSource {
        &self.settings.random
    }

    /// The application's users, if the layer has them.
    #[cfg(feature = "login")]
    pub(crate) fn users(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.settings.users.as_deref()
    }

    /// Where conflicting commits of this session wait for each other.
    pub(crate) fn commit_lock(&self, id: RecordId) -> &Mutex<()> {
        self.commit_locks.of(id)
    }

    pub(crate) fn warnings(&self) -> &Warnings {
        &self.warnings
    }

    /// The sessions that somebody in this process waits for.
    pub(crate) fn live(&self) -> &Arc<LiveSessions> {
        &self.live
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.settings.clock.now()
    }
}

/// Tokens.
impl LayerContext {
    /// What a request presents to prove that it comes from its session's device. Nothing, if the
    /// layer binds no sessions to devices.
    #[inline]
    pub(crate) fn presented_proof(&self, headers: &HeaderMap) -> PresentedProof {
        #[cfg(feature = "dbsc")]
        if let Some(devices) = self.devices() {
            return devices.presented(headers);
        }
        let _ = headers;
        PresentedProof::default()
    }

    /// The good tokens among those presented, if there are any.
    pub(crate) fn verify(&self, presented: &PresentedTokens) -> Option<VerifiedTokens> {
        let verified = self.settings.signer.verify(presented);
        verified
            .map_err(|reason| self.report_rejected(reason.as_str()))
            .ok()
    }

    pub(crate) fn new_record_id(&self) -> Result<RecordId, SessionError> {
        self.settings.random.bytes().map(RecordId::from_bytes)
    }

    /// A number that nobody can guess, and no other node gives.
    pub(crate) fn random_number(&self) -> Result<u64, SessionError> {
        self.settings.random.bytes().map(u64::from_ne_bytes)
    }

    /// A token of this id and serial with a new secret, and the text of it that the client gets.
    pub(crate) fn issue_token(
        &self,
        id: RecordId,
        serial: Serial,
    ) -> Result<(SessionToken, EncodedToken), SessionError> {
        self.settings
            .signer
            .issue(id, serial, &self.settings.random)
    }
}

/// Rotation.
impl LayerContext {
    /// Whether the layer rotates tokens by itself.
    pub(crate) fn rotates(&self) -> bool {
        self.settings.rotation.is_some()
    }

    /// What a request with this token, which is good, makes of a record's tokens.
    #[inline]
    pub(crate) fn rotation_step(
        &self,
        fields: &RecordFields,
        token: &SessionToken,
        chance: Chance,
        now: Timestamp,
    ) -> Option<Step> {
        let rotation = self.settings.rotation?;
        rotation.step(fields, token, now, chance)
    }

    /// The serial of a new session's token.
    pub(crate) fn first_serial(&self) -> Serial {
        match self.rotates() {
            true => Serial::FIRST,
            false => Serial::NONE,
        }
    }

    /// The serial of a token that takes the place of all others of this session.
    pub(crate) fn next_serial(&self, fields: &RecordFields) -> Serial {
        match fields.newest_serial() {
            // A layer without rotation counts no tokens, unless another one has begun to.
            Serial::NONE => self.first_serial(),
            newest => newest.next(),
        }
    }

    /// Whether the response can carry a new token, if the layer rotates tokens. Browsers say
    /// whether a request loads a page (Fetch Metadata, section 2.2).
    #[inline]
    pub(crate) fn rotation_chance(&self, headers: &HeaderMap) -> Chance {
        const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
        if !self.rotates() {
            return Chance::Never;
        }
        match headers.get(SEC_FETCH_MODE) {
            Some(mode) if mode != "navigate" => Chance::Late,
            _ => Chance::Now,
        }
    }

    /// Who the client of a request is, if the layer has a function that says so.
    #[inline]
    pub(crate) fn describe(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Option<Arc<Client>> {
        let describe = self.settings.describe.as_ref()?;
        Some(Arc::new(describe.client(headers, extensions)))
    }
}

/// What a store call gives. The functions below are not async themselves, because an async function
/// keeps its arguments in its future.
pub(crate) trait StoreAnswer<T>: Future<Output = Result<T, SessionError>> + Send {}

impl<T, F: Future<Output = Result<T, SessionError>> + Send> StoreAnswer<T> for F {}

/// A call of a store.
type StoreCall<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Store calls.
///
/// When one of these futures is dropped, the call may or may not take effect.
impl LayerContext {
    /// The store itself. An `Arc` of it is a store as well, but one that boxes each call once more.
    fn store(&self) -> &dyn SessionStore {
        &*self.store
    }

    pub(crate) fn load(&self, id: RecordId) -> impl StoreAnswer<Option<Record>> {
        self.bounded_then("load", self.store().load(id), Self::readable)
    }

    /// As `load`, but never from a cache.
    pub(crate) fn reload(&self, id: RecordId) -> impl StoreAnswer<Option<Record>> {
        self.bounded_then("load", self.store().reload(id), Self::readable)
    }

    /// Whether `reload` may know more than `load`.
    pub(crate) fn answers_from_cache(&self) -> bool {
        self.store().answers_from_cache()
    }

    pub(crate) fn insert<'a>(
        &'a self,
        id: RecordId,
        record: &'a Record,
    ) -> impl StoreAnswer<bool> + 'a {
        self.bounded("insert", self.store().insert(id, record))
    }

    pub(crate) fn replace<'a>(
        &'a self,
        id: RecordId,
        expected: Version,
        record: &'a Record,
    ) -> impl StoreAnswer<Replaced> + 'a {
        self.bounded("replace", self.store().replace(id, expected, record))
    }

    pub(crate) fn touch<'a>(
        &'a self,
        id: RecordId,
        record: &'a Record,
    ) -> impl StoreAnswer<bool> + 'a {
        self.bounded("touch", self.store().touch(id, record))
    }

    /// Removes expired records. It has no time limit: no request waits for it, and it may take
    /// longer than other calls.
    pub(crate) async fn purge_expired(&self) -> Result<u64, SessionError> {
        let stopwatch = events::Stopwatch::start();
        let expired = self.now().before(PURGE_MARGIN);
        let answer = self.store().purge_expired(expired).await;
        observe("purge_expired", stopwatch, answer)
    }

    /// The user's live sessions.
    pub(crate) async fn find_by_user(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
    ) -> Result<Vec<(RecordId, Record)>, SessionError> {
        let mut sessions = self.find_all_by_user(index, user).await?;
        let now = self.now();
        sessions.retain(|(_, record)| !self.lifetimes().is_over(record, now));
        Ok(sessions)
    }

    /// The user's sessions, even those that are over by this layer's timeouts. They may be live to
    /// another layer of the realm, or to a node with another clock.
    pub(crate) async fn find_all_by_user(
        &self,
        index: &dyn UserIndex,
        user: &UserId,
    ) -> Result<Vec<(RecordId, Record)>, SessionError> {
        let found = self.bounded("find_by_user", index.find_by_user(user));
        let mut sessions = found.await?;
        sessions.retain(|(_, record)| self.can_read(record));
        Ok(sessions)
    }

    /// A record that is still encrypted is no session, and by no means an empty one.
    #[inline]
    fn readable(&self, found: Option<Record>) -> Option<Record> {
        found.filter(|record| self.can_read(record))
    }

    #[inline]
    fn can_read(&self, record: &Record) -> bool {
        #[cfg(feature = "encryption")]
        if let Some(sealed) = record.sealed() {
            let reason = "no `EncryptedStore` is around the store";
            let count = self.warnings.unopened_record.next();
            events::unopened_record(sealed.id, reason, count);
        }
        record.is_open()
    }

    /// The store's answer, or an error after the store timeout.
    fn bounded<'a, T>(
        &'a self,
        operation: &'static str,
        call: StoreCall<'a, T>,
    ) -> impl StoreAnswer<T> + 'a
    where
        T: Send + 'a,
    {
        self.bounded_then(operation, call, |_, answer| answer)
    }

    /// What `then` makes of the store's answer, or an error after the store timeout.
    async fn bounded_then<'a, T>(
        &'a self,
        operation: &'static str,
        mut call: StoreCall<'a, T>,
        then: impl FnOnce(&Self, T) -> T,
    ) -> Result<T, SessionError> {
        let stopwatch = events::Stopwatch::start();
        // A store in this process has answered by now, and needs no timer. Another store takes much
        // longer than the box costs, and the box keeps the future of a request small.
        let answer = match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Ready(answer) => answer,
            Poll::Pending => Box::pin(timeout(self.settings.store_timeout, call))
                .await
                .unwrap_or_else(|_| Err(StoreError::timeout(self.settings.store_timeout))),
        };
        observe(operation, stopwatch, answer).map(|answer| then(self, answer))
    }
}

/// Records how long the store took, and logs its error.
fn observe<T>(
    operation: &'static str,
    stopwatch: events::Stopwatch,
    answer: Result<T, StoreError>,
) -> Result<T, SessionError> {
    stopwatch.stop(operation);
    answer.map_err(|error| {
        events::store_error(operation, &error);
        error.into()
    })
}
