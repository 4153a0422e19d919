//! The list of a user's sessions, and the handlers that end them.

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::Form;
use axum::extract::{ConnectInfo, State};
use axum::http::{Extensions, HeaderMap, header};
use axum::response::{Redirect, Response};
use cloakroom::login::{Auth, Users};
use cloakroom::{
    Client, RecordId, Session, SessionEvent, SessionEventKind, SessionInfo, Timestamp,
};
use serde::Deserialize;

use crate::app::{App, Devices};
use crate::error::Error;
use crate::pages::{self, FLASH, Flash, Frame, page};
use crate::users::Db;

/// A session, as the page shows it.
pub(crate) struct Device {
    /// The id is not a secret. It names the session, and does not give access to it.
    pub(crate) id: RecordId,
    pub(crate) browser: String,
    pub(crate) user_agent: String,
    pub(crate) address: String,
    pub(crate) created: String,
    pub(crate) last_seen_at: String,
    pub(crate) is_this: bool,
    /// How long ago the browser bound the session to its device.
    pub(crate) bound: Option<String>,
    /// Who acts as the user in this session.
    pub(crate) actor: Option<String>,
}

/// `GET /devices`
pub(crate) async fn list(
    State(app): State<App>,
    Auth(user): Auth<Db>,
    session: Session,
    frame: Frame,
) -> Result<Response, Error> {
    let Devices::Listed(sessions) = &app.devices else {
        return page(&pages::NoDevices { frame });
    };
    let now = Timestamp::from(SystemTime::now());
    let mut devices = Vec::new();
    for info in sessions.list_for(user.id).await? {
        let actor = match info.actor() {
            Some(id) => app.db.find(id).await.map_err(Error::Internal)?,
            None => None,
        };
        devices.push(Device {
            actor: actor.map(|actor| actor.name),
            ..describe(&info, session.id(), now)
        });
    }
    // The current session comes first. The others keep their order: the last used first.
    devices.sort_by_key(|device| !device.is_this);
    page(&pages::Devices { frame, devices })
}

fn describe(info: &SessionInfo, own: Option<RecordId>, now: Timestamp) -> Device {
    let user_agent = info
        .client()
        .and_then(|client| client.user_agent())
        .unwrap_or_default();
    let address = info
        .client()
        .and_then(|client| client.address())
        .unwrap_or("an unknown address");
    Device {
        id: info.id(),
        browser: browser(user_agent),
        user_agent: user_agent.to_owned(),
        address: address.to_owned(),
        created: pages::ago(now.since(info.created_at())),
        last_seen_at: pages::ago(now.since(info.last_seen_at())),
        bound: info.device_bound_at().map(|at| pages::ago(now.since(at))),
        is_this: own == Some(info.id()),
        actor: None,
    }
}

/// Returns a name for a browser. The user agent of a browser also names other browsers, so the
/// order of the list matters.
fn browser(user_agent: &str) -> String {
    let find = |names: &[(&str, &'static str)]| {
        names
            .iter()
            .find(|(part, _)| user_agent.contains(part))
            .map(|(_, name)| *name)
    };
    let browser = find(&[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ]);
    let system = find(&[
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, Some(system)) => format!("A browser on {system}"),
        (None, None) => "An unknown browser".to_owned(),
    }
}

#[derive(Deserialize)]
pub(crate) struct Revocation {
    id: String,
}

/// `POST /devices/revoke`
pub(crate) async fn revoke(
    State(app): State<App>,
    Auth(user): Auth<Db>,
    session: Session,
    Form(form): Form<Revocation>,
) -> Result<Redirect, Error> {
    // The id comes from the client, so it may name a session of any user. `revoke_owned` ends only
    // sessions of this user.
    let is_ended = match form.id.parse::<RecordId>() {
        Ok(id) if session.id() == Some(id) => {
            session.log_out()?;
            true
        }
        Ok(id) => match &app.devices {
            Devices::Listed(sessions) => sessions.revoke_owned(user.id, id).await?,
            Devices::Unknown => false,
        },
        Err(_) => false,
    };
    let flash = match is_ended {
        true => Flash::done("That device is logged out."),
        false => Flash::problem("There is no such session, or it has ended already."),
    };
    session.insert(FLASH, flash)?;
    Ok(Redirect::to("/devices"))
}

/// `POST /devices/revoke-others`
pub(crate) async fn revoke_others(
    State(app): State<App>,
    Auth(user): Auth<Db>,
    session: Session,
) -> Result<Redirect, Error> {
    let count = match (session.id(), &app.devices) {
        (Some(own), Devices::Listed(sessions)) => sessions.revoke_others(user.id, own).await?,
        _ => 0,
    };
    let flash = match count {
        0 => "There were no other sessions to end.".to_owned(),
        1 => "One other session is ended.".to_owned(),
        _ => format!("{count} other sessions are ended."),
    };
    session.insert(FLASH, Flash::done(flash))?;
    Ok(Redirect::to("/devices"))
}

/// The client that sent a request. The layer records it with a login, and when it gives the client
/// a new token.
pub(crate) fn client_of(headers: &HeaderMap, extensions: &Extensions) -> Client {
    let mut client = Client::new();
    // This is the address of the connection. The client can write anything into X-Forwarded-For,
    // unless your proxy sets that header.
    if let Some(ConnectInfo(peer)) = extensions.get::<ConnectInfo<SocketAddr>>() {
        client = client.with_address(&peer.ip().to_string());
    }
    let user_agent = headers.get(header::USER_AGENT);
    if let Some(user_agent) = user_agent.and_then(|value| value.to_str().ok()) {
        client = client.with_user_agent(user_agent);
    }
    client
}

/// Says that two clients had the token of one session. A real site tells the user too, and ends the
/// user's other sessions.
pub(crate) fn log_reuse(event: &SessionEvent) {
    if event.kind() != SessionEventKind::Reuse {
        return;
    }
    let address = |client: Option<&Client>| {
        let address = client.and_then(Client::address);
        address.unwrap_or("an unknown address").to_owned()
    };
    tracing::warn!(
        user = event.user().map(tracing::field::display),
        recorded = address(event.client()),
        presented_by = address(event.presented_by()),
        "a session token was stolen: two clients used it"
    );
}
