//! Pages about the crate as a whole. They are documentation alone: the module is there in no build.

#[doc = include_str!("../docs/how_it_works.md")]
pub mod how_it_works {}

#[doc = include_str!("../docs/concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("../docs/security.md")]
pub mod security {}

#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

#[doc = include_str!("../docs/writing_a_store.md")]
pub mod writing_a_store {}

#[doc = include_str!("../docs/faq.md")]
pub mod faq {}

#[doc = include_str!("../docs/moving_over.md")]
pub mod moving_over {
    /// The shop with this crate.
    ///
    /// ```ignore
    #[doc = include_str!("../docs/moving_over/after.rs")]
    /// ```
    pub mod after {}

    /// The shop with tower-sessions 0.14 and axum-login 0.18.
    ///
    /// ```ignore
    #[doc = include_str!("../docs/moving_over/axum_login_before.rs")]
    /// ```
    pub mod axum_login_before {}

    /// The shop with axum_session 0.22.
    ///
    /// ```ignore
    #[doc = include_str!("../docs/moving_over/axum_session_before.rs")]
    /// ```
    pub mod axum_session_before {}

    /// The shop with actix-session 0.11.
    ///
    /// ```ignore
    #[doc = include_str!("../docs/moving_over/actix_session_before.rs")]
    /// ```
    pub mod actix_session_before {}

    /// tower-sessions 0.15 and this crate at once.
    ///
    /// ```ignore
    #[doc = include_str!("../docs/moving_over/side_by_side.rs")]
    /// ```
    pub mod side_by_side {}
}

#[doc = include_str!("../docs/comparison.md")]
pub mod comparison {}
