//! What a commit does for a session that the request did not change.

use super::lookup::{LoadedSession, TokenLookup, reload};
use super::request::{Activity, CommitRequest};
use super::{BaseOutcome, change, is_over};
use crate::context::LayerContext;
use crate::events;

/// Rotates the token of a session that the request did not change, or notes that its client has the
/// new one. If neither is due, this is a touch.
///
/// A rotation that fails spoils no answer: the old token stays good.
pub(super) async fn rotate_or_touch(
    context: &LayerContext,
    base: &mut LoadedSession,
    request: &mut CommitRequest,
) -> BaseOutcome {
    match change(context, base, request).await {
        Ok(became) => became,
        Err(error) => {
            events::rotation_failed(base.id(), &error);
            BaseOutcome::Kept
        }
    }
}

/// How often a touch looks again at a record that parallel requests keep changing.
const MAX_TOUCHES: usize = 4;

/// Moves the expiry of a session that was used, if that is due.
///
/// A touch that fails spoils no answer. It loses some minutes of idle time, and the failure has an
/// event.
pub(super) async fn touch(
    context: &LayerContext,
    base: &mut LoadedSession,
    activity: Activity,
) -> BaseOutcome {
    for _ in 0..MAX_TOUCHES {
        let now = context.now();
        if !is_over(context, base, now) {
            let renewal = match activity {
                Activity::Active => context.lifetimes().renewal(base.record.fields(), now),
                Activity::Passive => None,
            };
            let Some(expires_at) = renewal else {
                return BaseOutcome::Kept;
            };
            let touched = base.record.clone().with_expires_at(expires_at);
            match context.touch(base.id(), &touched).await {
                Ok(true) => {
                    base.record = touched;
                    base.was_nearly_over = false;
                    return BaseOutcome::Kept;
                }
                // Another request has written the record, and may not have moved the expiry.
                Ok(false) => {}
                Err(_) => return BaseOutcome::Kept,
            }
        }
        // A slow handler may have outlived what it loaded, but a parallel request may have kept
        // that alive.
        match Box::pin(reload(context, &base.token, base.was_nearly_over)).await {
            Ok(TokenLookup::Live(record, _)) => base.record = record,
            Ok(TokenLookup::Gone) => return BaseOutcome::Gone,
            Ok(TokenLookup::Rotated { .. } | TokenLookup::Reused(_)) | Err(_) => {
                return BaseOutcome::Kept;
            }
        }
    }
    BaseOutcome::Kept
}

/// Touches a session while its handler still runs. If that fails, the request's commit tries again.
pub(crate) async fn touch_early(context: &LayerContext, session: &mut LoadedSession) {
    touch(context, session, Activity::Active).await;
}
