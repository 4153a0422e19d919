//! The log of the whole process, at the most detailed level, and the secrets that must not be in
//! it.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError};

use http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use http::{HeaderMap, Request};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;

/// The length of a token. The first letters are the record id, which may be in the log.
const TOKEN: usize = 70;
const RECORD_ID: usize = 22;

/// This many equal letters are not an accident. Every 15 letters in a row contain one whole piece.
const PIECE: usize = 8;

/// A shorter value may be a common word that the log contains for other reasons. So the watch does
/// not search for it.
const SHORTEST_VALUE: usize = 8;

/// The number of pieces that the watch searches for at once. If a test has more, the watch forgets
/// the older ones.
const MOST_PIECES: usize = 50_000;
const MOST_VALUES: usize = 100;

#[derive(Default)]
struct Watch {
    /// The log from `start` on.
    log: Vec<u8>,
    /// The length of the earlier log, which the watch has searched and thrown away.
    start: usize,
    /// The watch has searched the log up to here for all secrets that it knows.
    searched: usize,
    /// Requests that do not have their answer yet. The key is the length of the log when they
    /// began. The value is their number.
    in_flight: BTreeMap<usize, usize>,
    pieces: HashSet<[u8; PIECE]>,
    values: HashSet<String>,
}

static WATCH: LazyLock<Mutex<Watch>> = LazyLock::new(|| {
    let mut watch = Watch::default();
    // The values that the tests' routes insert themselves.
    watch.learn_value("was here");
    watch.learn_value("of a failed request");
    Mutex::new(watch)
});

fn watch() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    fn end(&self) -> usize {
        self.start + self.log.len()
    }

    fn learn_token(&mut self, token: &str) {
        if token.len() != TOKEN {
            return;
        }
        if self.pieces.len() > MOST_PIECES {
            self.pieces.clear();
        }
        let token = token.as_bytes();
        let starts = (RECORD_ID..TOKEN - PIECE).step_by(PIECE);
        for start in starts.chain([TOKEN - PIECE]) {
            let piece: [u8; PIECE] = token[start..start + PIECE].try_into().unwrap();
            // A piece with few different letters comes from a token that a test wrote by hand. A
            // record id that the test wrote may contain such a piece too.
            if HashSet::from(piece).len() > 4 {
                self.pieces.insert(piece);
            }
        }
    }

    fn learn_value(&mut self, value: &str) {
        if value.len() < SHORTEST_VALUE {
            return;
        }
        if self.values.len() > MOST_VALUES {
            self.values.clear();
        }
        self.values.insert(value.to_owned());
    }

    fn learn(&mut self, headers: &HeaderMap) {
        let texts = |name| {
            let values = headers.get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes()))
        };
        for header in texts(COOKIE).chain(texts(SET_COOKIE)) {
            for pair in header.split(';') {
                if let Some((_, value)) = pair.split_once('=') {
                    self.learn_token(value.trim());
                }
            }
        }
        let new_token = http::HeaderName::from_static("x-session-token");
        for header in texts(AUTHORIZATION).chain(texts(new_token)) {
            for word in header.split(' ') {
                self.learn_token(word);
            }
        }
    }

    /// A secret that is in the log after this position.
    fn found_since(&self, from: usize) -> Option<String> {
        let log = String::from_utf8_lossy(&self.log[from - self.start..]);
        let is_in_tokens = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        let piece = log
            .split(|letter| !is_in_tokens(letter))
            .flat_map(|word| word.as_bytes().windows(PIECE))
            .find(|piece| self.pieces.contains(*piece));
        let piece = piece.map(|piece| String::from_utf8_lossy(piece).into_owned());
        let value = || self.values.iter().find(|value| log.contains(&***value));
        let secret = piece.or_else(|| value().cloned())?;
        let line = log.lines().find(|line| line.contains(&secret));
        Some(format!("{secret:?} is in the log: {line:?}"))
    }

    /// Throws away the log that no open request needs any more.
    fn trim(&mut self) {
        let in_flight = self.in_flight.keys().next().copied();
        let needed = in_flight.map_or(self.searched, |oldest| oldest.min(self.searched));
        self.log.drain(..needed - self.start);
        self.start = needed;
    }
}

/// The log between a request and its answer.
pub struct Logged {
    from: usize,
}

impl Logged {
    pub fn start<B>(request: &Request<B>) -> Self {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(LevelFilter::TRACE)
                .with_span_events(FmtSpan::NEW)
                .with_ansi(false)
                .without_time()
                .with_writer(|| Writer)
                .finish()
                // The client of DynamoDB has some hundred lines for each call. Below `info`, it
                // also says what is in an item: see the page on operations.
                .with(
                    Targets::new()
                        .with_default(LevelFilter::TRACE)
                        .with_target("aws_", LevelFilter::INFO),
                );
            tracing::subscriber::set_global_default(subscriber).unwrap();
            log::set_logger(&Writer).unwrap();
            log::set_max_level(log::LevelFilter::Trace);
        });
        let mut watch = watch();
        watch.learn(request.headers());
        let inserted = request.uri().path().strip_prefix("/insert/");
        if let Some((_, value)) = inserted.and_then(|inserted| inserted.split_once('/')) {
            // The tests use only this escape in a path.
            watch.learn_value(&value.replace("%20", " "));
        }
        let from = watch.end();
        *watch.in_flight.entry(from).or_default() += 1;
        Self { from }
    }

    /// Panics if a secret is in the log. The secret may come from this request, its answer, or an
    /// earlier request.
    #[track_caller]
    pub fn assert_no_secret(self, answer: &HeaderMap) {
        let found = {
            let mut watch = watch();
            watch.learn(answer);
            let found = watch.found_since(self.from.min(watch.searched));
            watch.searched = watch.end();
            found
        };
        assert!(found.is_none(), "{}", found.unwrap_or_default());
    }
}

/// A dropped request ends here too.
impl Drop for Logged {
    fn drop(&mut self) {
        let mut watch = watch();
        if let Some(count) = watch.in_flight.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                watch.in_flight.remove(&self.from);
            }
        }
        watch.trim();
    }
}

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        watch().log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the log of client libraries that do not use `tracing`.
impl log::Log for Writer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!(
            "{} {}: {}\n",
            record.level(),
            record.target(),
            record.args()
        );
        watch().log.extend_from_slice(line.as_bytes());
    }

    fn flush(&self) {}
}
