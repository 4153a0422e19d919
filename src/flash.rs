//! [`Flash`]: messages that the next page shows once, such as "Saved." after a redirect.
//!
//! A handler that changes something answers with a redirect, and [`Flash`] keeps its message until
//! a page takes it. The messages are one value of the session, so that every store keeps them.
//!
//! ```
//! use axum::response::{Html, Redirect};
//! use cloakroom::{Flash, SessionError};
//!
//! async fn save(flash: Flash) -> Result<Redirect, SessionError> {
//!     flash.success("Your changes are saved.")?;
//!     Ok(Redirect::to("/"))
//! }
//!
//! async fn home(flash: Flash) -> Result<Html<String>, SessionError> {
//!     let mut page = String::new();
//!     for message in flash.take()? {
//!         // A template engine escapes the text. Here, no text comes from a user.
//!         page += &format!("<p class={}>{}</p>", message.level, message.text);
//!     }
//!     Ok(Html(page))
//! }
//! ```
//!
//! # What it keeps
//!
//! - A message stays until a page takes it: over several redirects, and while parallel requests
//!   change the session without showing it.
//! - If the handler answers with a 5xx, the layer drops the changes of the request. So the next
//!   page shows the messages that this request took, and nobody sees those that it pushed.
//! - `take` removes exactly the messages that it returns. If a parallel request pushes a message at
//!   the same time, a later page shows that message.
//! - Two pages that are made at the same moment can both show a message: each of them finds it
//!   before the other has removed it.
//! - A `HEAD` request and a prefetch of the browser run the page's handler too, and take the
//!   messages, although nobody sees the answer.
//! - A session keeps at most [`Flash::MAX_MESSAGES`] messages, and [`Flash::MAX_BYTES`] bytes of
//!   texts. What is more drops the oldest messages. So messages that no page shows cannot fill a
//!   session.
//! - [`log_in`](Session::log_in) keeps the messages of a visitor. A login over another user's
//!   session drops them with everything else of that session, and so do
//!   [`log_out`](Session::log_out), [`destroy`](Session::destroy) and [`clear`](Session::clear). So
//!   push after these calls.
//! - A page that finds no message writes nothing, and makes no session for a visitor.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "axum")]
use axum_core::extract::FromRequestParts;
#[cfg(feature = "axum")]
use http::request::Parts;
use serde::{Deserialize, Serialize};

use crate::commit::changes::DataChange;
use crate::error::SessionError;
#[cfg(doc)]
use crate::error::SessionErrorKind;
use crate::session::Session;
use crate::session::key::Key;

/// The messages that no page has taken yet, from the oldest on.
const KEPT: Key<Vec<Kept>> = Key::new("cloakroom.flash");

/// Messages that the next page shows once. It is an extractor of Axum. [The module](self) says what
/// it keeps, and when.
///
/// `Flash` and [`Session`] are two handles to one session, and a handler may have both:
///
/// ```
/// use axum::response::Redirect;
/// use cloakroom::{Flash, Session, SessionError};
///
/// async fn log_out(session: Session, flash: Flash) -> Result<Redirect, SessionError> {
///     session.log_out()?; // drops earlier messages
///     flash.info("You are logged out.")?;
///     Ok(Redirect::to("/"))
/// }
/// ```
#[derive(Clone, Debug)]
#[doc(alias = "Messages")]
pub struct Flash {
    session: Session,
}

impl Flash {
    /// How many messages a session keeps at most. One more drops the oldest.
    pub const MAX_MESSAGES: usize = 16;

    /// How many bytes the texts of all messages together may have. More drop the oldest messages,
    /// but never the newest.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// The messages of this session. A handler of Axum takes `Flash` as an extractor. This is for
    /// other services.
    ///
    /// ```
    /// use cloakroom::{Flash, Session, SessionError};
    ///
    /// fn save(request: &http::Request<String>) -> Result<(), SessionError> {
    ///     let session = Session::from_extensions(request.extensions())?;
    ///     Flash::new(&session).success("Your changes are saved.")
    /// }
    /// ```
    #[must_use]
    pub fn new(session: &Session) -> Self {
        Self::from(session.clone())
    }

    /// Adds a message, for the next page that takes the messages.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::TooLarge`] if the session's data would exceed the layer's limit.
    /// [`SessionErrorKind::Sealed`] after the response. [`SessionErrorKind::WrongType`] if the
    /// application keeps a value of its own under the name `cloakroom.flash`.
    /// [`SessionErrorKind::Random`] if the random generator failed. In all cases the session stays
    /// as it was.
    ///
    /// ```
    /// # use cloakroom::{Flash, SessionError};
    /// use cloakroom::flash::Level;
    ///
    /// fn report(flash: &Flash, failed: usize) -> Result<(), SessionError> {
    ///     let level = if failed == 0 { Level::Success } else { Level::Warning };
    ///     flash.push(level, format!("The import is done. {failed} lines are not in it."))
    /// }
    /// ```
    #[doc(alias = "add")]
    pub fn push(&self, level: Level, text: impl Into<String>) -> Result<(), SessionError> {
        let new = Kept {
            id: self.session.context().random_number()?,
            message: Message {
                level,
                text: text.into(),
            },
        };
        self.session.update_with(KEPT, new, |kept, new| {
            let mut kept = kept.unwrap_or_default();
            kept.push(new);
            drop_oldest(&mut kept);
            kept
        })?;
        Ok(())
    }

    /// Adds a message for developers.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn debug(&self, text: impl Into<String>) -> Result<(), SessionError> {
        self.push(Level::Debug, text)
    }

    /// Adds a message that the user may want to know.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn info(&self, text: impl Into<String>) -> Result<(), SessionError> {
        self.push(Level::Info, text)
    }

    /// Adds a message about something that worked.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn success(&self, text: impl Into<String>) -> Result<(), SessionError> {
        self.push(Level::Success, text)
    }

    /// Adds a message about something that may soon fail.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn warning(&self, text: impl Into<String>) -> Result<(), SessionError> {
        self.push(Level::Warning, text)
    }

    /// Adds a message about something that failed.
    ///
    /// The handler must not answer with a 5xx: that drops the message with all other changes of the
    /// request.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push).
    pub fn error(&self, text: impl Into<String>) -> Result<(), SessionError> {
        self.push(Level::Error, text)
    }

    /// Takes the messages out of the session, from the oldest on. No later page shows them again.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::WrongType`] if the application keeps a value of its own under the name
    /// `cloakroom.flash`. [`SessionErrorKind::Sealed`] after the response, if there are messages.
    ///
    /// ```
    /// # use cloakroom::{Flash, SessionError};
    /// fn lines(flash: &Flash) -> Result<Vec<String>, SessionError> {
    ///     let messages = flash.take()?.into_iter();
    ///     Ok(messages.map(|message| message.text).collect())
    /// }
    /// ```
    #[doc(alias = "into_iter")]
    pub fn take(&self) -> Result<Vec<Message>, SessionError> {
        if self.kept()?.is_empty() {
            return Ok(Vec::new());
        }
        if self.session.id().is_none() {
            // No other request knows a session that has no id yet. So this removes nothing that
            // somebody else pushed, and leaves nothing to store.
            return Ok(messages(self.session.remove(KEPT)?.unwrap_or_default()));
        }
        let taken = Arc::new(Mutex::new(Taken::default()));
        let take = {
            let taken = taken.clone();
            move |kept: Option<Vec<Kept>>| {
                let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
                taken.remove_from(kept.unwrap_or_default())
            }
        };
        // Where no message is left, no empty list stays in the session.
        let tidy_up = |key: &str| Some(DataChange::RemoveEmptyList(key.into()));
        self.session.update_and(KEPT.name(), take, tidy_up)?;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.is_returned = true;
        Ok(messages(taken.messages.clone()))
    }

    /// The messages, from the oldest on. They stay in the session, and a later page shows them.
    ///
    /// # Errors
    ///
    /// [`SessionErrorKind::WrongType`] if the application keeps a value of its own under the name
    /// `cloakroom.flash`.
    ///
    /// ```
    /// # use cloakroom::{Flash, SessionError};
    /// use cloakroom::flash::Level;
    ///
    /// fn has_errors(flash: &Flash) -> Result<bool, SessionError> {
    ///     Ok(flash.peek()?.iter().any(|message| message.level == Level::Error))
    /// }
    /// ```
    pub fn peek(&self) -> Result<Vec<Message>, SessionError> {
        Ok(messages(self.kept()?))
    }

    fn kept(&self) -> Result<Vec<Kept>, SessionError> {
        Ok(self.session.get(KEPT)?.unwrap_or_default())
    }
}

impl From<Session> for Flash {
    fn from(session: Session) -> Self {
        Self { session }
    }
}

/// It fails as the extractor of [`Session`] does.
#[cfg(feature = "axum")]
impl<S: Sync> FromRequestParts<S> for Flash {
    type Rejection = SessionError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, SessionError> {
        Session::load_from(&parts.extensions).await.map(Self::from)
    }
}

/// A message for the user.
///
/// [`Display`](fmt::Display) gives the text, as it was pushed: whoever puts it into HTML must
/// escape it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// How good the news is.
    pub level: Level,
    /// What the user reads.
    pub text: String,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// How good the news of a message is: the levels of Django and of axum-messages.
///
/// The levels are in order, so that `message.level >= Level::Warning` finds what needs attention.
/// Serde and [`Display`](fmt::Display) write a level as [`as_str`](Self::as_str) does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For developers.
    Debug,
    /// Something that the user may want to know.
    Info,
    /// Something worked.
    Success,
    /// Something may soon fail.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    /// The name in lower case, which can be a CSS class: `debug`, `info`, `success`, `warning` or
    /// `error`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Success => "success",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A message in the session.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// Tells this message from an equal one. It is random, because two nodes may push at the same
    /// time. It stays the same when a commit applies the push to a newer record.
    id: u64,
    message: Message,
}

fn messages(kept: Vec<Kept>) -> Vec<Message> {
    kept.into_iter().map(|kept| kept.message).collect()
}

fn drop_oldest(kept: &mut Vec<Kept>) {
    let mut bytes = 0_usize;
    let fitting = kept.iter().rev().take(Flash::MAX_MESSAGES);
    let fitting = fitting.take_while(|kept| {
        bytes = bytes.saturating_add(kept.message.text.len());
        bytes <= Flash::MAX_BYTES
    });
    let old = kept.len().saturating_sub(fitting.count().max(1));
    kept.drain(..old);
}

/// What one [`Flash::take`] removes from the session.
#[derive(Default)]
struct Taken {
    messages: Vec<Kept>,
    /// The handler has the messages. From then on, a commit that applies the take to a newer record
    /// removes these messages and no other.
    is_returned: bool,
}

impl Taken {
    /// Returns what stays in the session.
    fn remove_from(&mut self, mut kept: Vec<Kept>) -> Vec<Kept> {
        if self.is_returned {
            kept.retain(|kept| self.messages.iter().all(|taken| taken.id != kept.id));
            kept
        } else {
            self.messages = kept;
            Vec::new()
        }
    }
}
