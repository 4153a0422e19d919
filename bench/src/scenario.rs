//! What a request does in each scenario, and which session it finds.

use std::fmt;

use axum::body::Body;
use axum::http::header::{COOKIE, HeaderValue};
use axum::http::{Request, StatusCode};
use serde::{Deserialize, Serialize};

/// What one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// No cookie, and the handler does not ask for the session.
    A,
    /// A signed cookie, and the handler reads one key.
    B,
    /// A signed cookie, and the handler increments a counter.
    C,
    /// No cookie, and the handler puts one key into a new session.
    D,
    /// A signed cookie, and the handler does not ask for the session.
    E,
}

impl Scenario {
    pub const ALL: [Self; 5] = [Self::A, Self::B, Self::C, Self::D, Self::E];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.to_string() == name)
    }

    fn path(self) -> &'static str {
        match self {
            Self::A | Self::E => "/untouched",
            Self::B => "/read",
            Self::C => "/count",
            Self::D => "/create",
        }
    }

    pub fn request(self, cookie: &HeaderValue) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = axum::http::Uri::from_static(self.path());
        if matches!(self, Self::B | Self::C | Self::E) {
            request.headers_mut().insert(COOKIE, cookie.clone());
        }
        request
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// If a response has another status, a layer did not do its work.
pub const GOOD: StatusCode = StatusCode::OK;

/// The value that the handler reads.
pub const THEME: &str = "dark, with large print, little motion";

/// The content of a session. It has five keys, and 288 bytes of JSON with the names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    pub id: u64,
    pub name: String,
    pub email: String,
    pub roles: Vec<String>,
}

impl Profile {
    pub fn example() -> Self {
        Self {
            id: 4711,
            name: "Ada Lovelace".into(),
            email: "ada.lovelace@example.org".into(),
            roles: vec!["admin".into(), "editor".into()],
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
}

pub fn cart() -> Vec<Item> {
    let item = |sku: &str, quantity| Item {
        sku: sku.into(),
        quantity,
    };
    vec![item("A-1001", 2), item("B-2002", 1)]
}

/// It looks like a token against forged requests.
pub const NONCE: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";
