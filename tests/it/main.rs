//! The integration tests, by subject. This list is the table of contents. The first lines of each
//! file say what it shows.
//!
//! All tests are one program, so the database clients are linked only once. nextest runs each test
//! in its own process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics is a test that fails"
)]

/// The promises of the public types.
mod api;

/// What a handler has: the session, its data, its user and its lifetime.
mod session {
    mod acting;
    mod authentication;
    mod catalog;
    mod clocks;
    mod detached;
    mod ended;
    mod flash;
    mod handlers;
    mod hooks;
    mod lazy;
    mod lifetime_names;
    mod lifetimes;
    mod rotation;
    mod users;
    mod values;
}

/// Users, guards for routes, and the way back after a login.
mod login {
    mod guards;
    mod next;
    pub(crate) mod site;
    mod users;
}

/// What a gateway tells the services behind it, and what they believe.
mod assertions {
    mod attacks;
    mod issuer_keys;
    mod issuing;
    mod jwks;
    mod keys;
    mod parties;
    mod service;
}

/// What clients send and get: cookies, tokens and headers. Also the settings of the layer.
mod http {
    mod bearer;
    mod config;
    mod cookies;
    mod cross_origin;
    mod devices;
    mod layers;
    mod responses;
    mod transports;
    mod watched_keys;
}

/// What holds if requests meet, or if something fails in the middle of a request.
mod concurrency {
    mod faults;
    mod history;
    mod interleavings;
    pub(crate) mod model;
    mod near_nodes;
    mod outages;
    mod parallel;
    mod processes;
}

/// What every store keeps, and what belongs to one store only.
mod stores {
    mod batch_faults;
    mod batches;
    mod catalog_plans;
    mod conformance;
    mod connections;
    mod dynamodb;
    mod dynamodb_catalog;
    mod dynamodb_repeats;
    mod encrypted;
    mod expiry;
    mod memory;
    mod names;
    pub(crate) mod near;
    mod opening;
    mod pgbouncer;
    mod records;
    mod redis;
    mod redis_feed;
    mod redis_index;
    mod redis_repeats;
    mod round_trips;
    mod sql;
    mod sql_feed;
    mod sqlite;
    mod sqlite_batches;
    mod strangers;
    mod tls;
}

/// What nobody may see: tokens and data in logs, in errors, in a store.
mod secrecy {
    mod dumps;
    pub(crate) mod logging;
    mod metrics;
    mod tokens;
}

/// What the pages of the documentation say, and how the source is divided.
mod docs {
    mod links;
    mod rooms;
    mod security_page;
}

/// The examples. Each one runs as its own process.
mod examples {
    mod admin;
    mod audit_trail;
    mod chromium;
    mod demo;
    mod gateway;
    mod long;
    mod oidc;
    mod permissions;
    mod sessions_command;
    mod short;
    mod starter;
    mod streams;
}

mod fuzz;
mod testing;
