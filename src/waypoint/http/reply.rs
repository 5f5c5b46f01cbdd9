//! What a waypoint answers by itself (`spec/waypoint-l7.md` §1.9).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::account::{Account, Flag};
use super::body::Download;

/// What `server` says of such answers (§1.6).
const SERVER: HeaderValue = HeaderValue::from_static("lateen");

/// An answer of the waypoint's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::waypoint) struct Reply {
    /// Its status, where HTTP tells it.
    pub(in crate::waypoint) status: StatusCode,
    /// Its text.
    pub(in crate::waypoint) text: &'static str,
    /// How the log and the metrics tell it.
    pub(in crate::waypoint) flag: Flag,
    /// Why, for the log.
    pub(in crate::waypoint) reason: String,
}

impl Reply {
    fn unavailable(text: &'static str, flag: Flag, reason: String) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            text,
            flag,
            reason,
        }
    }

    /// The request is not one that could be passed on.
    pub(in crate::waypoint) fn malformed(reason: &str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            text: "",
            flag: "DPE",
            reason: reason.to_owned(),
        }
    }

    /// There is nothing of that kind here.
    pub(in crate::waypoint) fn not_found(reason: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            text: "",
            flag: "NR",
            reason: reason.to_owned(),
        }
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
    pub(super) fn silent(asked: bool) -> Self {
        let status = match asked {
            true => StatusCode::GATEWAY_TIMEOUT,
            false => StatusCode::REQUEST_TIMEOUT,
        };
        Self {
            status,
            text: "stream timeout",
            flag: "SI",
            reason: "nothing has moved for too long".to_owned(),
        }
    }

    /// As a response to whoever is told by `account`.
    pub(super) fn response(self, mut account: Account) -> Response<Download> {
        let mut response = Response::new(());
        let grpc = account.is_grpc();
        if !grpc {
            *response.status_mut() = self.status;
        }
        let headers = response.headers_mut();
        headers.insert(header::SERVER, SERVER);
        if grpc {
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from(grpc_status(self.status)));
            if let Ok(message) = HeaderValue::from_str(&percent_encoded(self.text)) {
                headers.insert("grpc-message", message);
            }
        } else if !self.text.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        account.replied(
            response.status(),
            response.headers(),
            self.flag,
            self.reason,
        );
        let text = if grpc { "" } else { self.text };
        let text = Bytes::from_static(text.as_bytes());
        response.map(|()| Download::local(text, account))
    }
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

/// As gRPC writes messages: printable ASCII but for the percent sign.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
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
            assert_eq!(percent_encoded(text), want);
        }
    }
}
