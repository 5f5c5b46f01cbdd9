//! What a waypoint answers by itself (`spec/waypoint-l7.md` §1.9).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::account::{Account, Flag};
use super::body::Download;
use crate::model::authentication::Refused;
use crate::model::authorization::Denial;

/// What `server` says of such answers (§1.6).
const SERVER: HeaderValue = HeaderValue::from_static("lateen");

/// Octets of a message of gRPC.
const MESSAGE: usize = 1024;

/// An answer of the waypoint's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::waypoint) struct Reply {
    /// Its status, where HTTP tells it.
    pub(in crate::waypoint) status: StatusCode,
    /// Its text.
    pub(in crate::waypoint) text: Cow<'static, str>,
    /// How the log and the metrics tell it.
    pub(in crate::waypoint) flag: Flag,
    /// Why, for the log.
    pub(in crate::waypoint) reason: String,
    /// Its status where gRPC tells it, if that does not follow from HTTP's.
    pub(in crate::waypoint) grpc: Option<u16>,
    /// Further fields.
    pub(in crate::waypoint) headers: Option<Box<HeaderMap>>,
    /// What it says in place of a text; its fields tell of which type it is.
    pub(in crate::waypoint) content: Option<Bytes>,
}

impl Reply {
    /// One with a status and nothing else.
    pub(super) fn bare(status: StatusCode, flag: Flag, reason: String) -> Self {
        Self {
            status,
            text: Cow::Borrowed(""),
            flag,
            reason,
            grpc: None,
            headers: None,
            content: None,
        }
    }

    /// The same with a text.
    pub(super) fn saying(self, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        Self { text, ..self }
    }

    fn unavailable(text: &'static str, flag: Flag, reason: String) -> Self {
        Self::bare(StatusCode::SERVICE_UNAVAILABLE, flag, reason).saying(text)
    }

    /// The request is not one that could be passed on.
    pub(in crate::waypoint) fn malformed(reason: &str) -> Self {
        Self::bare(StatusCode::BAD_REQUEST, "DPE", reason.to_owned())
    }

    /// There is nothing of that kind here.
    pub(in crate::waypoint) fn not_found(reason: &str) -> Self {
        Self::bare(StatusCode::NOT_FOUND, "NR", reason.to_owned())
    }

    /// Policy denies it.
    pub(in crate::waypoint) fn denied(denial: &Denial) -> Self {
        let reason = format!("{}: {denial}", denial.detail());
        Self::bare(StatusCode::FORBIDDEN, "-", reason).saying("RBAC: access denied")
    }

    /// A provider denies it, and says what to answer.
    pub(in crate::waypoint) fn provider_denied(
        status: StatusCode,
        headers: HeaderMap,
        content: Bytes,
        reason: String,
    ) -> Self {
        Self {
            headers: Some(Box::new(headers)),
            content: Some(content),
            ..Self::bare(status, "UAEX", reason)
        }
    }

    /// A provider cannot be asked, so nobody knows whether it may go on.
    pub(in crate::waypoint) fn unasked(status: StatusCode, reason: String) -> Self {
        Self::bare(status, "UAEX", reason)
    }

    /// Its body is longer than whoever is to see it takes.
    pub(in crate::waypoint) fn too_large(reason: &str) -> Self {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        Self::bare(status, "-", reason.to_owned()).saying("Payload Too Large")
    }

    /// Its token is not believed; `realm` is what it asked for (§5.3).
    pub(in crate::waypoint) fn unauthenticated(refused: &Refused, realm: &str) -> Self {
        let invalid = refused.invalid;
        let status = StatusCode::from_u16(invalid.status()).unwrap_or(StatusCode::UNAUTHORIZED);
        let reason = format!("{}: {refused}", invalid.detail());
        let challenge = format!("Bearer realm=\"{realm}\", error=\"invalid_token\"");
        let mut headers = HeaderMap::new();
        if let Ok(challenge) = HeaderValue::from_bytes(challenge.as_bytes()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        Self {
            headers: Some(Box::new(headers)),
            ..Self::bare(status, "-", reason).saying(invalid.to_string())
        }
    }

    /// Too much has been asked already.
    pub(in crate::waypoint) fn limited(reason: String) -> Self {
        let text = "local_rate_limited";
        Self::bare(StatusCode::TOO_MANY_REQUESTS, "RL", reason).saying(text)
    }

    /// Routes lead to nobody.
    pub(super) fn no_backend(reason: String) -> Self {
        Self::bare(StatusCode::INTERNAL_SERVER_ERROR, "NC", reason)
    }

    /// Routes lead to a backend that is not there.
    pub(super) fn invalid_backend(reason: String) -> Self {
        let grpc = Some(14);
        Self {
            grpc,
            ..Self::no_backend(reason)
        }
    }

    /// Where it goes is not known here (`spec/control-plane.md` §8.3).
    pub(in crate::waypoint) fn untold(reason: String) -> Self {
        Self::unavailable("", "NC", reason)
    }

    /// The rule says so.
    pub(super) fn ruled(
        status: u16,
        text: impl Into<Cow<'static, str>>,
        headers: HeaderMap,
    ) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = (!headers.is_empty()).then(|| Box::new(headers));
        Self {
            headers,
            ..Self::bare(status, "-", String::new()).saying(text)
        }
    }

    /// A fault on purpose.
    pub(super) fn fault(status: StatusCode, grpc: Option<u16>) -> Self {
        let text = "fault filter abort";
        Self {
            grpc,
            ..Self::bare(status, "FI", text.to_owned()).saying(text)
        }
    }

    /// It took too long.
    pub(super) fn late(reason: &str) -> Self {
        let text = "upstream request timeout";
        Self::bare(StatusCode::GATEWAY_TIMEOUT, "UT", reason.to_owned()).saying(text)
    }

    /// Nobody can be asked.
    pub(super) fn no_endpoint(reason: String) -> Self {
        Self::unavailable("no healthy upstream", "UH", reason)
    }

    /// No way to the endpoint.
    pub(super) fn no_way(reason: String) -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
        Self::unavailable(text, "UF", reason)
    }

    /// More is under way than the traffic policy allows.
    pub(super) fn overflow(reason: String) -> Self {
        let text =
            "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        Self::unavailable(text, "UO", reason)
    }

    /// The endpoint went away before it answered.
    pub(super) fn closed(reason: String) -> Self {
        let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
        Self::unavailable(text, "UC", reason)
    }

    /// The endpoint refused the one request.
    pub(super) fn reset(reason: String) -> Self {
        let text =
            "upstream connect error or disconnect/reset before headers. reset reason: remote reset";
        Self::unavailable(text, "UR", reason)
    }

    /// Nothing has moved for too long: on the client's side, unless it has asked all it had to ask.
    pub(in crate::waypoint) fn silent(asked: bool) -> Self {
        let status = match asked {
            true => StatusCode::GATEWAY_TIMEOUT,
            false => StatusCode::REQUEST_TIMEOUT,
        };
        let reason = "nothing has moved for too long".to_owned();
        Self::bare(status, "SI", reason).saying("stream timeout")
    }

    /// As a response to whoever is told by `account`.
    pub(super) fn response(self, mut account: Account) -> Response<Download> {
        let mut response = Response::new(());
        // An answer that is gRPC's by its own nature is so to everybody.
        let wanted = self.grpc.filter(|_| self.status == StatusCode::OK);
        let grpc = account.is_grpc() || wanted.is_some();
        if !grpc {
            *response.status_mut() = self.status;
        }
        let text = match (self.content, self.text) {
            (Some(content), _) => content,
            (None, Cow::Borrowed(text)) => Bytes::from_static(text.as_bytes()),
            (None, Cow::Owned(text)) => Bytes::from(text),
        };
        let headers = response.headers_mut();
        if let Some(own) = self.headers {
            *headers = *own;
        }
        headers.insert(header::SERVER, SERVER);
        if grpc {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            let code = self.grpc.unwrap_or_else(|| grpc_status(self.status));
            headers.insert("grpc-status", HeaderValue::from(code));
            if let Ok(message) = HeaderValue::from_str(&percent_encoded(&text)) {
                headers.insert("grpc-message", message);
            }
        } else if !text.is_empty() && may_have_text(self.status) {
            let plain = HeaderValue::from_static("text/plain");
            headers.entry(header::CONTENT_TYPE).or_insert(plain);
            if account.is_head() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
            }
        }
        account.replied(
            response.status(),
            response.headers(),
            self.flag,
            self.reason,
        );
        let silent = grpc || account.is_head() || !may_have_text(self.status);
        let text = if silent { Bytes::new() } else { text };
        response.map(|()| Download::local(text, account))
    }
}

/// Whether an answer of that status may be more than a head (RFC 9110 §6.4.1).
fn may_have_text(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// As gRPC writes messages: printable ASCII but for the percent sign, and of what is longer than a field
/// should be the beginning.
fn percent_encoded(text: &[u8]) -> String {
    let text = text.get(..MESSAGE).unwrap_or(text);
    let mut encoded = String::with_capacity(text.len());
    for &byte in text {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_in_its_own_terms() {
        for (status, want) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (503, 14),
            (504, 14),
            (500, 2),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(grpc_status(status), want, "{status}");
        }
        for (text, want) in [
            ("no healthy upstream", "no healthy upstream"),
            ("100%", "100%25"),
            ("a\nb", "a%0Ab"),
            ("ß", "%C3%9F"),
        ] {
            assert_eq!(percent_encoded(text.as_bytes()), want);
        }
    }
}
