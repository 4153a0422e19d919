//! [`AnswerBody`]: how a layer makes the body of an answer of its own.

/// How a layer makes the body of an answer of its own.
///
/// Nobody needs to name this trait. It is the bound of a [`SessionLayer`](crate::SessionLayer) on
/// the body `B` of the responses. A layer without device binding takes every body with a
/// [`Default`]. A layer with it answers some requests with JSON, so the body must be
/// `From<String>` as well. axum's `Body`, `http_body_util::Full<Bytes>` and `String` are.
///
/// ```
/// use cloakroom::{AnswerBody, NoDevices};
///
/// fn takes<B, D: AnswerBody<B>>() {}
/// takes::<axum::body::Body, NoDevices>();
/// ```
#[diagnostic::on_unimplemented(
    message = "a session layer of this kind cannot answer with the body `{B}`",
    note = "the body of the responses needs `Default`, and `From<String>` as well after `bind_to_device`"
)]
pub trait AnswerBody<B>: sealed::Sealed + 'static {
    /// The body of this text.
    #[doc(hidden)]
    fn body(text: String) -> B;
}

/// The kind of a [`SessionLayer`](crate::SessionLayer) that binds no sessions to devices: the
/// default.
#[derive(Clone, Copy, Debug)]
pub enum NoDevices {}

/// The kind of a [`SessionLayer`](crate::SessionLayer) after
/// [`bind_to_device`](crate::SessionLayerBuilder::bind_to_device).
#[cfg(feature = "dbsc")]
#[derive(Clone, Copy, Debug)]
pub enum WithDevices {}

impl<B: Default> AnswerBody<B> for NoDevices {
    fn body(_: String) -> B {
        B::default()
    }
}

#[cfg(feature = "dbsc")]
impl<B: Default + From<String>> AnswerBody<B> for WithDevices {
    fn body(text: String) -> B {
        B::from(text)
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::NoDevices {}

    #[cfg(feature = "dbsc")]
    impl Sealed for super::WithDevices {}
}
