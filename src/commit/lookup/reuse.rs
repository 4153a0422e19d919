//! What the layer does about tokens that two clients have.

use super::{Admission, InitialState, TokenLookup, reload_with};
use crate::binding::presented::PresentedProof;
use crate::context::LayerContext;
use crate::error::SessionError;
use crate::record::Record;
use crate::token::SessionToken;

/// Tokens of a request that two clients have, and the records of their sessions.
pub(super) type Reused = Vec<(SessionToken, Record)>;

/// Ends the sessions whose tokens two clients have.
///
/// A browser can send an old cookie beside the good one, if the site has changed the cookie's path
/// or domain. Then nobody has stolen anything.
pub(super) async fn end_reused(
    context: &LayerContext,
    reused: Reused,
    found: &InitialState,
    proof: &PresentedProof,
) -> Result<(), SessionError> {
    let live = found.live_sessions();
    for (token, mut record) in reused {
        let id = token.id();
        if live.iter().any(|session| session.id == id) {
            continue;
        }
        // Only while nobody has logged in again. So this is a compare-and-set.
        while !context
            .end_reused(id, &record, proof.client.as_ref())
            .await?
        {
            let admission = Admission::New {
                arrived_at: proof.arrived_at,
            };
            match reload_with(context, &token, admission).await? {
                TokenLookup::Reused(newer) => record = newer,
                _ => break,
            }
        }
    }
    Ok(())
}
