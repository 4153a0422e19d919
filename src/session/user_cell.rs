//! [`UserCell`]: where the room `login` keeps the look-up of a request.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::Session;
use crate::record::login::Login;

/// The look-up of a request. Its session keeps it, without an allocation until there is one.
#[derive(Default)]
pub(super) struct UserCell(Mutex<Lookup>);

#[derive(Default)]
struct Lookup {
    found: Option<Found>,
    /// Whether somebody looks up the user. The others wait.
    is_running: bool,
    /// Wakes those who wait.
    waiting: Option<Arc<Notify>>,
}

/// What a look-up has found, and for which login.
struct Found {
    login: Login,
    /// Only the room `login` knows its type.
    user: Arc<dyn Any + Send + Sync>,
}

/// What to do about the user of a session.
pub(crate) enum UserStep<T> {
    /// Nothing: nobody is logged in.
    Visitor,
    /// Nothing: somebody has looked up the user.
    Take(Arc<T>),
    /// Look up the user.
    LookUp(Turn),
    /// Wait until somebody else has finished or given up, and ask again.
    Wait(OwnedNotified),
}

/// The right to look up the user of a login. Nobody else has it until this is dropped.
pub(crate) struct Turn {
    session: Session,
    login: Login,
    found: Option<Arc<dyn Any + Send + Sync>>,
}

impl Session {
    /// What to do about the user who is logged in now.
    pub(crate) fn user_step<T: Send + Sync + 'static>(&self) -> UserStep<T> {
        let state = self.read();
        let Some(login) = state.login() else {
            return UserStep::Visitor;
        };
        let mut lookup = self.0.user.lookup();
        if let Some(user) = lookup.found_for(login) {
            return UserStep::Take(user);
        }
        if lookup.is_running {
            let waiting = lookup.waiting.get_or_insert_default().clone();
            return UserStep::Wait(waiting.notified_owned());
        }
        lookup.is_running = true;
        UserStep::LookUp(Turn {
            session: self.clone(),
            login: login.clone(),
            found: None,
        })
    }
}

impl UserCell {
    fn lookup(&self) -> MutexGuard<'_, Lookup> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lookup {
    fn found_for<T: Send + Sync + 'static>(&self, login: &Login) -> Option<Arc<T>> {
        let found = self.found.as_ref()?;
        // The request may have logged in somebody else, or the same user with a new password.
        match found.login.is_of_same_users(login) {
            true => found.user.clone().downcast().ok(),
            false => None,
        }
    }
}

impl Turn {
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn login(&self) -> &Login {
        &self.login
    }

    /// Ends the turn, and keeps what the look-up has found.
    pub(crate) fn keep(mut self, user: Arc<dyn Any + Send + Sync>) -> Session {
        self.found = Some(user);
        self.session.clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let found = self.found.take().map(|user| Found {
            login: self.login.clone(),
            user,
        });
        let mut lookup = self.session.0.user.lookup();
        lookup.is_running = false;
        if let Some(waiting) = lookup.waiting.take() {
            waiting.notify_waiters();
        }
        // What it replaces is dropped after the lock: it may be code of the application.
        let _old = found.and_then(|found| lookup.found.replace(found));
        drop(lookup);
    }
}
