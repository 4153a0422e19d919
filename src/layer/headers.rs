//! The headers of a response that are about its session.

#[cfg(feature = "dbsc")]
use http::header::{HeaderMap, SET_COOKIE};
use http::{Response, StatusCode};

#[cfg(feature = "dbsc")]
use crate::binding::device::devices::Devices;
#[cfg(feature = "dbsc")]
use crate::binding::device::headers::REGISTRATION;
use crate::commit::CommitOutcome;
use crate::error::{SessionErrorKind, SessionHeaders, StepUp};
use crate::events;
use crate::session::{ResponseFlags, Session};
use crate::token::transport::{ClientTransport, TokenTransport};

/// Tells the client and caches what they must know of the session.
pub(super) fn write_session_headers<B>(
    session: &Session,
    flags: ResponseFlags,
    response: &mut Response<B>,
    outcome: &CommitOutcome,
) {
    let context = session.context();
    let transport = context.transport();
    if response.status() == StatusCode::UNAUTHORIZED {
        write_challenge(transport, session.has_dead_token(), response);
    }
    let headers = response.headers_mut();
    match outcome {
        CommitOutcome::Kept(_) if flags.varies => transport.vary(headers),
        CommitOutcome::Kept(_) => {}
        CommitOutcome::Issued { token, max_age, .. } => {
            if session.client().is_on_plain_http {
                let warning = &context.warnings().insecure_origin;
                warning.call(|| events::insecure_origin(transport.name()));
            }
            let client = || session.client_transport();
            transport.set_token(headers, token, *max_age, client);
        }
        CommitOutcome::Ended => transport.remove_token(headers, session.client().transport),
    }
    #[cfg(feature = "dbsc")]
    if let Some(devices) = context.devices() {
        write_device_headers(session, devices, flags.has_login, headers, outcome);
    }
    if flags.clears_site_data {
        TokenTransport::clear_site_data(headers);
    }
    let has_headers = flags.clears_site_data || !matches!(outcome, CommitOutcome::Kept(_));
    if has_headers && session.is_inside_another_layer() {
        let client = match outcome {
            CommitOutcome::Kept(_) => None,
            CommitOutcome::Issued { .. } => Some(session.client_transport()),
            CommitOutcome::Ended => Some(session.client().transport.without_choice()),
        };
        keep_for_outer_layers(transport, client, flags.clears_site_data, response);
    }
}

/// Offers the browser of a login to bind its session, and ends the bound cookie with its session.
#[cfg(feature = "dbsc")]
fn write_device_headers(
    session: &Session,
    devices: &Devices,
    has_login: bool,
    headers: &mut HeaderMap,
    outcome: &CommitOutcome,
) {
    let context = session.context();
    // The bound cookie of a session that is over. Who acts as another still needs that of their
    // own.
    let is_left_over = match outcome {
        CommitOutcome::Kept(_) => false,
        CommitOutcome::Ended => true,
        CommitOutcome::Issued { session: new, .. } => {
            let fields = new.record.fields();
            fields.device().is_none() && fields.actor().is_none()
        }
    };
    if is_left_over && session.client().presents_bound_cookie {
        headers.append(SET_COOKIE, devices.cookies().cookie().removal());
    }
    match outcome {
        CommitOutcome::Issued { session: new, .. }
            if has_login && context.transport().gives_cookie(session.client_transport()) =>
        {
            let Some(login) = new.record.fields().login() else {
                return;
            };
            let offer = devices.offer(new.id(), login.at(), context.now(), context.random());
            // If the random generator fails, the session stays as it would be in other browsers.
            if let Ok(Some(offer)) = offer {
                headers.insert(REGISTRATION, offer);
            }
        }
        _ => {}
    }
}

/// Says in a 401 of this crate what the client must present.
pub(super) fn write_challenge<B>(
    transport: &TokenTransport,
    is_token_dead: bool,
    response: &mut Response<B>,
) {
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(kind) = response.extensions().get::<SessionErrorKind>().copied()
    {
        let step_up = response.extensions().get::<StepUp>().cloned();
        let headers = response.headers_mut();
        transport.challenge(kind, step_up.as_ref(), is_token_dead, headers);
    }
}

/// Puts this layer's headers into the extensions as well. A layer further out may have to put an
/// error in the place of this response, and the client still needs the headers.
fn keep_for_outer_layers<B>(
    transport: &TokenTransport,
    client: Option<ClientTransport>,
    clears_site_data: bool,
    response: &mut Response<B>,
) {
    let mut own = transport.session_headers(response.headers(), client, clears_site_data);
    let extensions = response.extensions_mut();
    if let Some(inner) = extensions.remove::<SessionHeaders>() {
        own.0.extend(inner.0);
    }
    extensions.insert(own);
}
