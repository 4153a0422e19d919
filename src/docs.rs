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
