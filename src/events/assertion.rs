//! The events of assertions, at the gateway and at a service.

use std::error::Error;

use super::Who;
use crate::id::RecordId;

/// A gateway has made an assertion for this audience.
pub(crate) fn asserted(id: RecordId, Who { user, actor, .. }: Who<'_>, audience: &str) {
    event!(debug, "asserted", record = %id, user, actor, audience, "user asserted to a service");
}

/// A service refused an assertion. Anybody can send one, and nothing of it is shown.
pub(crate) fn rejected(reason: &'static str) {
    event!(info, "assertion_rejected", reason, "assertion refused");
}

/// A service has the keys of its issuer, as they are now.
pub(crate) fn jwks_fetched() {
    event!(debug, "jwks_fetched", "keys of the issuer fetched");
}

/// The old keys go on, if there are some.
pub(crate) fn jwks_failed(error: &(dyn Error + 'static)) {
    let cause = error.source().map(tracing::field::display);
    event!(warn, "jwks_failed", error = %error, cause, "the keys of the issuer could not be fetched");
}
