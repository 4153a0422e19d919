//! [`Compact`]: a JWT in the compact form of a JWS (RFC 7515, section 7.1).

use super::json::Object;

/// A token of three parts. Nobody has verified it yet.
#[derive(Debug)]
pub(crate) struct Compact<'a> {
    pub(crate) header: Object,
    pub(crate) payload: Object,
    /// The payload as it came, for what an [`Object`] does not keep.
    #[cfg(feature = "jwt")]
    pub(crate) payload_json: Vec<u8>,
    /// The text that is signed.
    pub(crate) signed: &'a str,
    pub(crate) signature: Vec<u8>,
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    TooLong,
    NotAToken,
    Base64,
    Json,
}

impl<'a> Compact<'a> {
    /// The token of this text, which has at most so many bytes.
    pub(crate) fn parse(text: &'a str, max_len: usize) -> Result<Self, Malformed> {
        if text.len() > max_len {
            return Err(Malformed::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Malformed::NotAToken)?;
        let (header, payload) = signed.split_once('.').ok_or(Malformed::NotAToken)?;
        if payload.contains('.') {
            return Err(Malformed::NotAToken);
        }
        let decode = |part| super::decode(part).ok_or(Malformed::Base64);
        let header = Object::parse(&decode(header)?).ok_or(Malformed::Json)?;
        let payload_json = decode(payload)?;
        Ok(Self {
            header,
            payload: Object::parse(&payload_json).ok_or(Malformed::Json)?,
            #[cfg(feature = "jwt")]
            payload_json,
            signed,
            signature: decode(signature)?,
        })
    }
}
