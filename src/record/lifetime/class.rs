//! [`LifetimeClass`]: which of the layer's lifetimes a session has.

use std::sync::Arc;

/// Which of the layer's lifetimes a session has. A record keeps the name and not the timeouts, so
/// that a new setting holds for the sessions of before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum LifetimeClass {
    /// A visitor's, even after a login.
    Visitor,
    /// It ends with the browser. Until a user logs in, it has a visitor's timeouts.
    #[default]
    Browser,
    Remembered,
    /// One that the application named.
    Named(Arc<str>),
}

impl LifetimeClass {
    pub(crate) fn remembered(remembered: bool) -> Self {
        match remembered {
            true => Self::Remembered,
            false => Self::Browser,
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Visitor => "visitor",
            Self::Browser => "browser",
            Self::Remembered => "remembered",
            Self::Named(name) => name,
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        matches!(self, Self::Browser)
    }
}

impl From<&str> for LifetimeClass {
    fn from(name: &str) -> Self {
        match name {
            "visitor" => Self::Visitor,
            "browser" => Self::Browser,
            "remembered" => Self::Remembered,
            name => Self::Named(name.into()),
        }
    }
}
