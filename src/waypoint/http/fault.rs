//! Why a request is refused for its form, before anybody looks at what it asks for
//! (`spec/waypoint-l7.md` §1.5, §1.9).

use http::StatusCode;
use http::request::Parts;

use super::framing::{FIELDS, LINE};
use super::reply::Reply;

/// What is wrong with a request's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It could be taken for two different things, or for none.
    Malformed(&'static str),
    /// Its body is in a coding that is not ours to undo (RFC 9112 §6.1).
    Coding,
    /// Its target is too long.
    LongLine,
    /// Its head is too large, or has too many fields.
    LargeHead,
    /// Its head was not whole in time.
    Slow,
}

impl Fault {
    /// What answers it.
    pub(super) fn reply(self) -> Reply {
        let (status, text, reason) = match self {
            Self::Malformed(reason) => (StatusCode::BAD_REQUEST, "", reason),
            Self::Coding => (StatusCode::NOT_IMPLEMENTED, "", "an unknown coding"),
            Self::LongLine => (StatusCode::URI_TOO_LONG, "", "a request line too long"),
            Self::LargeHead => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "",
                "a head too large",
            ),
            Self::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "request header timeout",
                "a head not whole in time",
            ),
        };
        Reply::bare(status, "DPE", reason.to_owned()).saying(text)
    }
}

/// What is wrong with a request that HTTP/2 itself has let pass.
pub(super) fn of_http2(parts: &Parts) -> Option<Fault> {
    let target = parts.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if target > LINE {
        return Some(Fault::LongLine);
    }
    if parts.headers.len() > FIELDS {
        return Some(Fault::LargeHead);
    }
    // Policy would see the space, and the program, over HTTP/1, would not (RFC 9113 §8.2.1).
    let padded = parts
        .headers
        .values()
        .any(|value| is_padded(value.as_bytes()));
    padded.then_some(Fault::Malformed("a space around the value of a field"))
}

fn is_padded(value: &[u8]) -> bool {
    let ends = [value.first(), value.last()];
    ends.iter().any(|end| matches!(end, Some(b' ' | b'\t')))
}

/// Says no to a request that was found at fault where it came in.
///
/// # Errors
/// The answer.
pub(super) fn check(parts: &mut Parts) -> Result<(), Reply> {
    let fault = parts.extensions.remove::<Fault>();
    fault.map_or(Ok(()), |fault| Err(fault.reply()))
}
