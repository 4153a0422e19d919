//! The two paths that the layer answers itself, so that browsers bind sessions to their devices.
//!
//! A client that is not the browser of the session may ask here too. So nothing is written for
//! somebody who cannot prove the device, and each refusal has an event. One answer has none: a
//! client that has no token of any live session learns only that its session is over. Each browser
//! asks after a logout, and gets this answer.

use std::sync::Arc;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
    ORIGIN, SET_COOKIE, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::binding::device::challenge::Purpose;
use crate::binding::device::devices::{Devices, Endpoint, over};
use crate::binding::device::headers::{self, CHALLENGE, RESPONSE, SESSION_ID};
use crate::binding::device::proof::Proof;
use crate::binding::device::refusal::Refusal;
use crate::binding::presented::PresentedProof;
use crate::clock::Timestamp;
use crate::commit::device::write_device;
use crate::commit::lookup::{InitialState, LoadedSession, find_presented};
use crate::context::LayerContext;
use crate::error::SessionError;
use crate::id::RecordId;
use crate::record::Record;
use crate::record::device::BoundDevice;
use crate::token::SessionToken;

/// Answers a request to one of the two paths.
pub(super) async fn answer(
    context: Arc<LayerContext>,
    endpoint: Endpoint,
    request: Parts,
) -> Response<String> {
    let mut response = match context.devices() {
        Some(devices) => {
            let exchange = Exchange {
                context: &context,
                devices,
                request: &request,
                now: context.now(),
            };
            match exchange.answer(endpoint).await {
                Ok(response) => response,
                Err(error) => error.to_response(),
            }
        }
        None => plain(StatusCode::NOT_FOUND),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("frame-ancestors 'none'"),
    );
    response
}

/// One request to one of the two paths.
struct Exchange<'a> {
    context: &'a LayerContext,
    devices: &'a Devices,
    request: &'a Parts,
    now: Timestamp,
}

/// A session that a refresh is about.
enum Target {
    /// It is there, and its token was presented.
    Found(LoadedSession),
    /// It is there, and the browser must try again, because it did not present the token.
    Again(RecordId, Refusal),
    Gone,
}

impl Exchange<'_> {
    async fn answer(&self, endpoint: Endpoint) -> Result<Response<String>, SessionError> {
        if self.request.method != Method::POST {
            self.report(None, Refusal::Method);
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            let post = HeaderValue::from_static("POST");
            response.headers_mut().insert(ALLOW, post);
            return Ok(response);
        }
        if let Err(refusal) = check_place(self.request) {
            return Ok(self.refused(None, refusal));
        }
        match endpoint {
            Endpoint::Registration => self.register().await,
            Endpoint::Refresh => self.refresh().await,
        }
    }

    /// The session of the request, whether its device is proven or not.
    async fn find(&self) -> Result<InitialState, SessionError> {
        let presented = self.context.transport().presented(&self.request.headers);
        if !presented.has_candidates() {
            return Ok(InitialState::Visitor);
        }
        let (headers, extensions) = (&self.request.headers, &self.request.extensions);
        let proof = PresentedProof {
            client: self.context.describe(headers, extensions),
            ..PresentedProof::waived()
        };
        find_presented(self.context, &presented, &proof).await
    }

    async fn register(&self) -> Result<Response<String>, SessionError> {
        let session = match self.find().await? {
            InitialState::Session(session) => session,
            InitialState::Ambiguous(_) => return Ok(self.refused(None, Refusal::SeveralSessions)),
            InitialState::Rotated(_) => return Ok(self.refused(None, Refusal::TokenRotated)),
            InitialState::Visitor | InitialState::Unbound(_) => {
                return Ok(self.refused(None, Refusal::NoSession));
            }
        };
        let (id, record) = (session.id(), session.record.clone());
        let written = match self.registered(&session) {
            Ok(device) => {
                // A parallel request may have bound the session, or logged somebody in.
                let next = |newest: &Record| {
                    may_be_bound(newest)?;
                    match login_time(newest) == login_time(&record) {
                        true => Ok(device.clone()),
                        false => Err(Refusal::ChallengeOfOthers),
                    }
                };
                write_device(self.context, session, next).await?
            }
            Err(refusal) => Err(refusal),
        };
        match written {
            Ok(record) => {
                self.context.report_bound(id, &record);
                self.proven(id, &record)
            }
            Err(refusal) => Ok(self.refused(Some((id, &record)), refusal)),
        }
    }

    /// The device of a good registration of this session.
    fn registered(&self, session: &LoadedSession) -> Result<BoundDevice, Refusal> {
        may_be_bound(&session.record)?;
        let login_at = login_time(&session.record).ok_or(Refusal::NoSession)?;
        let text = self.proof()?.ok_or(Refusal::NoProof)?;
        let proof = Proof::parse(&text)?;
        let purpose = Purpose::Registration { login_at };
        let challenges = self.devices.challenges();
        let issued_at = challenges.check(proof.challenge(), purpose, session.id(), self.now)?;
        Ok(BoundDevice {
            key: proof.registered_key()?,
            bound_at: self.now,
            last_challenge: issued_at,
        })
    }

    async fn refresh(&self) -> Result<Response<String>, SessionError> {
        let id = match headers::string(&self.request.headers, SESSION_ID) {
            Ok(Some(id)) => id,
            Ok(None) | Err(_) => return Ok(self.refused(None, Refusal::SessionId)),
        };
        let session = match self.target(&id).await? {
            Target::Found(session) => session,
            Target::Again(id, refusal) => return self.ask_again(id, refusal).await,
            Target::Gone => return Ok(json(over(&id))),
        };
        let (id, mut record) = (session.id(), session.record.clone());
        // A cache may not know of the registration yet, and a browser that learns that its session
        // is over never asks again.
        if record.fields().device().is_none()
            && self.context.answers_from_cache()
            && let Some(newest) = self.context.reload(id).await?
        {
            record = newest;
        }
        let Some(device) = record.fields().device() else {
            return Ok(json(over(&id.to_string())));
        };
        let written = match self.refreshed(id, device) {
            // A browser without a challenge comes like this. It is how each refresh begins.
            Ok(None) => return self.challenged(id, device),
            Ok(Some(proof)) => {
                // A parallel request may have used a challenge, or ended the binding.
                let next = |newest: &Record| {
                    let newest = newest.fields().device().ok_or(Refusal::NoSession)?;
                    self.check_challenge(&proof, id, newest)
                        .map(|last_challenge| BoundDevice {
                            last_challenge,
                            ..newest.clone()
                        })
                };
                write_device(self.context, session, next).await?
            }
            Err(refusal) => Err(refusal),
        };
        match written {
            Ok(record) => {
                self.context.report_device_refreshed(id, &record);
                self.proven(id, &record)
            }
            Err(Refusal::NoSession) => {
                self.report(Some((id, &record)), Refusal::NoSession);
                Ok(json(over(&id.to_string())))
            }
            Err(refusal) => {
                self.report(Some((id, &record)), refusal);
                // Of two refreshes at once, one has used a newer challenge by now.
                self.ask_again_with(id, device).await
            }
        }
    }

    /// The challenge that the browser has answered with the key of this device. `None` if it has
    /// answered none.
    fn refreshed(&self, id: RecordId, device: &BoundDevice) -> Result<Option<String>, Refusal> {
        let Some(text) = self.proof()? else {
            return Ok(None);
        };
        let proof = Proof::parse(&text)?;
        self.check_challenge(proof.challenge(), id, device)?;
        proof.check_refresh(&device.key)?;
        Ok(Some(proof.challenge().to_owned()))
    }

    fn check_challenge(
        &self,
        challenge: &str,
        id: RecordId,
        device: &BoundDevice,
    ) -> Result<Timestamp, Refusal> {
        let purpose = Purpose::refresh_of(device);
        self.devices
            .challenges()
            .check(challenge, purpose, id, self.now)
    }

    /// The session that a refresh is about. A user who acts as another has the token of that
    /// session, and the device of their own one.
    async fn target(&self, named: &str) -> Result<Target, SessionError> {
        let Ok(named) = named.parse::<RecordId>() else {
            return Ok(Target::Gone);
        };
        Ok(match self.find().await? {
            InitialState::Session(session) if session.id() == named => Target::Found(session),
            InitialState::Session(session) => match session.record.fields().actor() {
                Some(actor) if actor.session == named => match self.context.load(named).await? {
                    Some(record) => Target::Found(LoadedSession {
                        token: SessionToken::of_record(named, record.fields()),
                        record,
                        ..session
                    }),
                    None => Target::Gone,
                },
                _ => {
                    self.report(Some((session.id(), &session.record)), Refusal::OtherSession);
                    Target::Gone
                }
            },
            InitialState::Rotated(id) if id == named => Target::Again(id, Refusal::TokenRotated),
            InitialState::Ambiguous(all) if all.iter().any(|known| known.id == named) => {
                Target::Again(named, Refusal::SeveralSessions)
            }
            InitialState::Visitor
            | InitialState::Rotated(_)
            | InitialState::Ambiguous(_)
            | InitialState::Unbound(_) => Target::Gone,
        })
    }

    fn proof(&self) -> Result<Option<String>, Refusal> {
        headers::string(&self.request.headers, RESPONSE)
    }

    /// The answer to a good proof: a new bound cookie.
    fn proven(&self, id: RecordId, record: &Record) -> Result<Response<String>, SessionError> {
        let mut response = json(self.devices.instructions(id));
        if let Some(device) = record.fields().device() {
            let random = self.context.random();
            let cookie = self.devices.cookies().issue(id, device, self.now, random)?;
            if let Some(mut cookie) = cookie {
                cookie.set_sensitive(true);
                response.headers_mut().append(SET_COOKIE, cookie);
            }
        }
        Ok(response)
    }

    /// Asks the browser for a proof.
    fn challenged(
        &self,
        id: RecordId,
        device: &BoundDevice,
    ) -> Result<Response<String>, SessionError> {
        let mut response = plain(StatusCode::FORBIDDEN);
        let challenge = self
            .devices
            .ask(id, device, self.now, self.context.random())?;
        if let Some(challenge) = challenge {
            response.headers_mut().insert(CHALLENGE, challenge);
        }
        Ok(response)
    }

    async fn ask_again(
        &self,
        id: RecordId,
        refusal: Refusal,
    ) -> Result<Response<String>, SessionError> {
        let record = self.context.reload(id).await?;
        self.report(record.as_ref().map(|record| (id, record)), refusal);
        match record.as_ref().and_then(|record| record.fields().device()) {
            Some(device) => self.challenged(id, device),
            None => Ok(json(over(&id.to_string()))),
        }
    }

    /// Asks for a proof once more. The newest record knows the last challenge that was used.
    async fn ask_again_with(
        &self,
        id: RecordId,
        device: &BoundDevice,
    ) -> Result<Response<String>, SessionError> {
        let record = self.context.reload(id).await?;
        let newest = record.as_ref().and_then(|record| record.fields().device());
        self.challenged(id, newest.unwrap_or(device))
    }

    fn report(&self, session: Option<(RecordId, &Record)>, refusal: Refusal) {
        self.context
            .report_device_rejected(session, refusal.as_str());
    }

    fn refused(&self, session: Option<(RecordId, &Record)>, refusal: Refusal) -> Response<String> {
        self.report(session, refusal);
        plain(StatusCode::FORBIDDEN)
    }
}

fn may_be_bound(record: &Record) -> Result<(), Refusal> {
    match record.fields().device() {
        Some(_) => Err(Refusal::BoundAlready),
        None => Ok(()),
    }
}

fn login_time(record: &Record) -> Option<Timestamp> {
    record.fields().login().map(|login| login.at())
}

fn plain(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}

fn json(text: String) -> Response<String> {
    let mut response = Response::new(text);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Refuses a request that a page of another origin has caused, and one for a frame.
fn check_place(request: &Parts) -> Result<(), Refusal> {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    const DESTINATION: HeaderName = HeaderName::from_static("sec-fetch-dest");
    let headers = &request.headers;
    let is_own_site = |value: &HeaderValue| value == "none" || value == "same-origin";
    if !headers.get_all(SITE).iter().all(is_own_site) {
        return Err(Refusal::OtherOrigin);
    }
    let is_own_host = |origin: &HeaderValue| is_of_host(origin, request);
    if !headers.get_all(ORIGIN).iter().all(is_own_host) {
        return Err(Refusal::OtherOrigin);
    }
    let frames = ["iframe", "frame", "fencedframe", "embed", "object"];
    let is_frame = |value: &HeaderValue| frames.iter().any(|frame| value == frame);
    match headers.get_all(DESTINATION).iter().any(is_frame) {
        true => Err(Refusal::Framed),
        false => Ok(()),
    }
}

/// Whether an origin is the host that the request is for. A proxy in front may end TLS, so the
/// scheme says nothing.
fn is_of_host(origin: &HeaderValue, request: &Parts) -> bool {
    let origin = origin.as_bytes();
    let host = origin
        .strip_prefix(b"https://")
        .or(origin.strip_prefix(b"http://"));
    let header = request.headers.get(HOST).map(HeaderValue::as_bytes);
    let authority = request
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    match (host, header.or(authority)) {
        (Some(host), Some(own)) => without_port(host).eq_ignore_ascii_case(without_port(own)),
        _ => false,
    }
}

/// A host without the port of HTTPS, which browsers leave out.
fn without_port(host: &[u8]) -> &[u8] {
    host.strip_suffix(b":443").unwrap_or(host)
}
