//! The headers of the protocol. Their values are Structured Fields (RFC 9651), except that Chromium
//! sends strings without quotes.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::refusal::Refusal;

/// A response offers to bind the session.
pub(crate) const REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
/// A response asks for a proof.
pub(crate) const CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
/// A request has a proof.
pub(crate) const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
/// A refresh says which session it is about. No page can set a header of this name.
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
/// A request says why the browser left a refresh out.
const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");

/// The longest string that is read. A proof is shorter.
const MAX_LEN: usize = 16 * 1024;

/// The text of a header that may come once: a string, or the same text without quotes.
pub(crate) fn string(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::SeveralProofs);
    }
    if value.len() > MAX_LEN {
        return Err(Refusal::TooLong);
    }
    match parse_text(value.as_bytes()) {
        Some(text) => Ok(Some(text)),
        None => Err(Refusal::NotAString),
    }
}

/// What the browser says about a refresh that it left out. It is only for the log.
pub(crate) fn skipped(headers: &HeaderMap) -> Option<Refusal> {
    let value = headers.get(SKIPPED)?.as_bytes().trim_ascii();
    let end = value
        .iter()
        .position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    Some(match value.get(..end.unwrap_or(value.len())) {
        Some(b"unreachable") => Refusal::SkippedUnreachable,
        Some(b"server_error") => Refusal::SkippedServerError,
        Some(b"quota_exceeded") => Refusal::SkippedQuota,
        _ => Refusal::Skipped,
    })
}

/// A value of [`REGISTRATION`].
pub(super) fn registration(path: &str, challenge: &str) -> Option<HeaderValue> {
    let (path, challenge) = (quoted(path), quoted(challenge));
    let value = format!("(ES256 RS256);path={path};challenge={challenge}");
    HeaderValue::try_from(value).ok()
}

/// A value of [`CHALLENGE`].
pub(super) fn challenge(challenge: &str, session: &str) -> Option<HeaderValue> {
    let value = format!("{};id={}", quoted(challenge), quoted(session));
    HeaderValue::try_from(value).ok()
}

/// A string (RFC 9651, section 4.1.6). The text is visible ASCII.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Reads a text with quotes or without. Without them, it has only letters that no quotes need.
fn parse_text(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    if value.first() == Some(&b'"') {
        return parse_string(value);
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let end = value.iter().position(|byte| !is_plain(byte));
    let (text, rest) = value.split_at_checked(end.unwrap_or(value.len()))?;
    let is_good = !text.is_empty() && (rest.is_empty() || are_parameters(rest));
    is_good.then(|| text.iter().copied().map(char::from).collect())
}

/// Reads an item that is a string (RFC 9651, section 4.2.5). Parameters may follow, and none of
/// them means anything here.
fn parse_string(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let mut text = String::with_capacity(value.len());
    let mut bytes = value.strip_prefix(b"\"")?.iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => match bytes.next()? {
                byte @ (b'"' | b'\\') => text.push(char::from(*byte)),
                _ => return None,
            },
            byte @ b' '..=b'~' => text.push(char::from(*byte)),
            _ => return None,
        }
    }
    let rest = bytes.as_slice();
    (rest.is_empty() || are_parameters(rest)).then_some(text)
}

/// Whether the rest of an item is parameters (RFC 9651, section 4.2.3.2), as far as a reader needs
/// who ignores them: each begins with a semicolon and has a key, and strings are closed.
fn are_parameters(rest: &[u8]) -> bool {
    let mut rest = rest;
    while let [b';', after @ ..] = rest {
        let after = skip(after, |byte| byte == b' ');
        if !after
            .first()
            .is_some_and(|byte| byte.is_ascii_lowercase() || *byte == b'*')
        {
            return false;
        }
        let after = skip(after, |byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
        });
        rest = match after {
            [b'=', b'"', value @ ..] => match after_string(value) {
                Some(rest) => rest,
                None => return false,
            },
            [b'=', value @ ..] => {
                let rest = skip(value, |byte| {
                    byte.is_ascii_graphic() && !b";,\"".contains(&byte)
                });
                if rest.len() == value.len() {
                    return false;
                }
                rest
            }
            _ => after,
        };
    }
    rest.is_empty()
}

fn skip(bytes: &[u8], is_skipped: impl Fn(u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|byte| !is_skipped(*byte));
    bytes.get(end.unwrap_or(bytes.len())..).unwrap_or_default()
}

/// What comes after the end of a string.
fn after_string(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\', rest @ ..] => rest,
            [b' '..=b'[' | b']'..=b'~', rest @ ..] => rest,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_as_rfc_9651_says() {
        for (value, text) in [
            (r#""a.b-c_d""#, "a.b-c_d"),
            (r#"  "a b"  "#, "a b"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#""""#, ""),
            (r#""a";id="x;y";b;c=?1; d=1.5"#, "a"),
        ] {
            assert_eq!(
                parse_string(value.as_bytes()).as_deref(),
                Some(text),
                "{value}"
            );
        }
        for value in [
            "",
            "a",
            "\"",
            "\"a",
            "\"a\\\"",
            "\"a\\b\"",
            "\"a\" x",
            "\"a\",\"b\"",
            "\"a\";",
            "\"a\";A",
            "\"a\";b=",
            "\"a\";b=\"c",
            "\"\u{e9}\"",
            "\"a\tb\"",
            "?1",
            "(\"a\")",
            ":YQ==:",
        ] {
            assert_eq!(parse_string(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_text_without_quotes_is_read_as_chromium_sends_it() {
        for (value, text) in [
            ("eyJ.eyJ.-_", "eyJ.eyJ.-_"),
            (" -0a_ ", "-0a_"),
            ("a;id=\"x\"", "a"),
            ("\"a.b\"", "a.b"),
        ] {
            assert_eq!(
                parse_text(value.as_bytes()).as_deref(),
                Some(text),
                "{value}"
            );
        }
        for value in [
            "", " ", "a b", "a,b", "a\"", "a=", "a/b", "a+b", "a;", "\u{e9}", ":YQ==:", "(a)",
        ] {
            assert_eq!(parse_text(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        let challenge = challenge("a\"b\\c", "id").unwrap();
        assert_eq!(challenge, r#""a\"b\\c";id="id""#);
        assert_eq!(
            parse_string(challenge.as_bytes()).as_deref(),
            Some(r#"a"b\c"#)
        );
        let registration = registration("/session/bind", "C1").unwrap();
        assert_eq!(
            registration,
            r#"(ES256 RS256);path="/session/bind";challenge="C1""#
        );
    }

    #[test]
    fn a_header_that_comes_twice_is_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(string(&headers, RESPONSE), Ok(None));
        headers.append(RESPONSE, HeaderValue::from_static("\"a\""));
        assert_eq!(string(&headers, RESPONSE), Ok(Some("a".to_owned())));
        headers.append(RESPONSE, HeaderValue::from_static("\"a\""));
        assert_eq!(string(&headers, RESPONSE), Err(Refusal::SeveralProofs));
        let long = HeaderValue::try_from(format!("\"{}\"", "a".repeat(MAX_LEN))).unwrap();
        headers.insert(RESPONSE, long);
        assert_eq!(string(&headers, RESPONSE), Err(Refusal::TooLong));
    }

    #[test]
    fn the_reason_of_a_skipped_refresh_is_known() {
        for (value, reason) in [
            (
                "unreachable;session_identifier=\"a\"",
                Refusal::SkippedUnreachable,
            ),
            ("server_error", Refusal::SkippedServerError),
            ("quota_exceeded;x", Refusal::SkippedQuota),
            ("something", Refusal::Skipped),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(SKIPPED, HeaderValue::from_static(value));
            assert_eq!(skipped(&headers), Some(reason));
        }
        assert_eq!(skipped(&HeaderMap::new()), None);
    }
}
