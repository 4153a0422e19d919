//! Pages about the crate as a whole. They are documentation only: no build contains this module.

#[doc = include_str!("../docs/how_it_works.md")]
pub mod how_it_works {}

#[doc = include_str!("../docs/concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("../docs/transports.md")]
pub mod transports {}

#[doc = include_str!("../docs/layer_order.md")]
pub mod layer_order {}

#[doc = include_str!("../docs/design.md")]
pub mod design {}

#[doc = include_str!("../docs/security.md")]
pub mod security {}

#[doc = include_str!("../docs/audit.md")]
pub mod audit {}

#[doc = include_str!("../docs/stolen_cookies.md")]
pub mod stolen_cookies {}

#[doc = include_str!("../docs/login.md")]
pub mod login {}

#[doc = include_str!("../docs/assertions.md")]
pub mod assertions {}

#[doc = include_str!("../docs/several_nodes.md")]
pub mod several_nodes {}

#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

#[doc = include_str!("../docs/writing_a_store.md")]
pub mod writing_a_store {}

#[doc = include_str!("../docs/faq.md")]
pub mod faq {}

#[doc = include_str!("../docs/integrations.md")]
pub mod integrations {}

#[doc = include_str!("../docs/moving_over.md")]
pub mod moving_over {
    // The programs are compiled and run by the tests in `moving-over/`, which has what they need.

    /// The shop with this crate.
    ///
    /// ```
    #[doc = include_str!("../docs/moving_over/after.rs")]
    /// ```
    #[cfg(not(doctest))]
    pub mod after {}

    /// The shop with tower-sessions 0.14 and axum-login 0.18.
    ///
    /// ```
    #[doc = include_str!("../docs/moving_over/axum_login_before.rs")]
    /// ```
    #[cfg(not(doctest))]
    pub mod axum_login_before {}

    /// The shop with axum_session 0.22.
    ///
    /// ```
    #[doc = include_str!("../docs/moving_over/axum_session_before.rs")]
    /// ```
    #[cfg(not(doctest))]
    pub mod axum_session_before {}

    /// The shop with actix-session 0.11.
    ///
    /// ```
    #[doc = include_str!("../docs/moving_over/actix_session_before.rs")]
    /// ```
    #[cfg(not(doctest))]
    pub mod actix_session_before {}

    /// tower-sessions 0.15 and this crate at once.
    ///
    /// ```
    #[doc = include_str!("../docs/moving_over/side_by_side.rs")]
    /// ```
    #[cfg(not(doctest))]
    pub mod side_by_side {}
}

#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}
