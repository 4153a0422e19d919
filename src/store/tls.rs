//! TLS to a server that keeps sessions: why its certificate was refused, and what to do.

use std::error::Error;

/// What to do if a server's certificate was refused; empty if something else failed. `how` is the
/// end of the sentence "name the file of its authority …".
#[cfg(feature = "tls")]
pub(super) fn advice(error: &(dyn Error + 'static), how: &str) -> String {
    use rustls::CertificateError as Refused;
    match refused(error) {
        // `BadSignature`: the authority has the same name and another key, such as a renewed one.
        Some(Refused::UnknownIssuer | Refused::BadSignature) => format!(
            ": this process does not trust the authority that signed the server's certificate; \
             name the file of its authority {how}"
        ),
        Some(Refused::NotValidForName | Refused::NotValidForNameContext { .. }) => {
            ": the server's certificate is for another host; put a host into the URL that the \
             certificate names"
                .to_owned()
        }
        Some(_) => ": the server's certificate was refused".to_owned(),
        None => String::new(),
    }
}

#[cfg(not(feature = "tls"))]
pub(super) fn advice(_: &(dyn Error + 'static), _: &str) -> String {
    String::new()
}

/// Why rustls refused a certificate, if that is what an error comes from.
#[cfg(feature = "tls")]
fn refused<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::CertificateError> {
    use std::{io, sync::Arc};
    let mut cause = Some(error);
    while let Some(error) = cause {
        // The Redis client keeps its errors in an `Arc`, and `source` of an I/O error passes over
        // the error that it holds.
        let error = match error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            Some(shared) => &**shared as &'a (dyn Error + 'static),
            None => error,
        };
        let held = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let error = held.map_or(error, |held| held as &'a (dyn Error + 'static));
        if let Some(rustls::Error::InvalidCertificate(reason)) = error.downcast_ref() {
            return Some(reason);
        }
        cause = error.source();
    }
    None
}
