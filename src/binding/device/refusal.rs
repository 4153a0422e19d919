//! [`Refusal`]: why the layer refuses a registration, a proof or a request.

/// Why the layer refuses what a client sent to prove its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    // The request.
    Method,
    OtherOrigin,
    Framed,
    NoSession,
    SeveralSessions,
    TokenRotated,
    BoundAlready,
    SessionId,
    OtherSession,
    // The header of the proof.
    NoProof,
    SeveralProofs,
    NotAString,
    TooLong,
    // The proof.
    NotAToken,
    Base64,
    Json,
    Type,
    Algorithm,
    Critical,
    NoKey,
    KeyAtRefresh,
    Key,
    Curve,
    Point,
    KeySize,
    OtherAlgorithm,
    NoChallenge,
    Signature,
    // The challenge.
    ChallengeOfOthers,
    ChallengeTooOld,
    ChallengeUsed,
    // The bound cookie.
    NoCookie,
    CookieOfOthers,
    CookieOver,
    SkippedUnreachable,
    SkippedServerError,
    SkippedQuota,
    Skipped,
}

impl Refusal {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Method => "the request is not a POST",
            Self::OtherOrigin => "the request comes from another origin",
            Self::Framed => "the request is for a frame",
            Self::NoSession => "no live session",
            Self::SeveralSessions => "the tokens of several live sessions",
            Self::TokenRotated => "a parallel request has just rotated the token",
            Self::BoundAlready => "the session is bound already",
            Self::SessionId => "the request does not name its session in Sec-Secure-Session-Id",
            Self::OtherSession => "the request names a session whose token it does not have",
            Self::NoProof => "the request has no Secure-Session-Response",
            Self::SeveralProofs => "the request has several Secure-Session-Response headers",
            Self::NotAString => "the header is neither a string nor a text without quotes",
            Self::TooLong => "the proof is too long",
            Self::NotAToken => "the proof is not three parts of a JWT",
            Self::Base64 => "a part of the proof is not base64url",
            Self::Json => "a part of the proof is not a JSON object, or names something twice",
            Self::Type => "the type of the proof is not dbsc+jwt",
            Self::Algorithm => "the algorithm of the proof is neither ES256 nor RS256",
            Self::Critical => "the proof has an extension that must be understood",
            Self::NoKey => "the registration has no key",
            Self::KeyAtRefresh => "the proof of a refresh brings a key",
            Self::Key => "the key is malformed",
            Self::Curve => "the key is not of the curve P-256",
            Self::Point => "the key is not a point of the curve",
            Self::KeySize => "the RSA key has a size or an exponent that is not safe",
            Self::OtherAlgorithm => "the algorithm is not that of the session's key",
            Self::NoChallenge => "the proof has no challenge",
            Self::Signature => "the signature is wrong",
            Self::ChallengeOfOthers => "the challenge was not made for this session and use",
            Self::ChallengeTooOld => "the challenge is too old",
            Self::ChallengeUsed => "the challenge, or a newer one, was used before",
            Self::NoCookie => "the request has no bound cookie",
            Self::CookieOfOthers => "the bound cookie does not belong to the session",
            Self::CookieOver => "the bound cookie is over",
            Self::SkippedUnreachable => "the browser could not reach the refresh",
            Self::SkippedServerError => "the browser got a server error from the refresh",
            Self::SkippedQuota => "the browser has used up its refreshes",
            Self::Skipped => "the browser skipped the refresh",
        }
    }
}
