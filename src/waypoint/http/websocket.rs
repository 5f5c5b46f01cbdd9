//! WebSockets over HTTP/2 (RFC 8441), which go on over HTTP/1.1 (`spec/waypoint-l7.md` §1.5).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::ext::Protocol;

use super::message;

const KEY: HeaderName = header::SEC_WEBSOCKET_KEY;
const ACCEPT: HeaderName = header::SEC_WEBSOCKET_ACCEPT;

/// Turns an extended CONNECT that asks for a WebSocket into the request that asks HTTP/1.1 for one.
/// False where it is none, and is left as it is.
pub(super) fn receive(parts: &mut Parts) -> bool {
    let protocol = parts.extensions.get::<Protocol>();
    let websocket = protocol.is_some_and(|p| p.as_str().eq_ignore_ascii_case("websocket"));
    if parts.method != Method::CONNECT || !websocket {
        return false;
    }
    parts.extensions.remove::<Protocol>();
    parts.method = Method::GET;
    message::into_websocket(&mut parts.headers);
    // HTTP/2 has none: the stream itself shows that the client was understood (RFC 8441 §5).
    let key = BASE64_STANDARD.encode(rand::random::<[u8; 16]>());
    if let Ok(key) = HeaderValue::from_str(&key) {
        parts.headers.insert(KEY, key);
    }
    true
}

/// Turns the answer to such a request into the one that HTTP/2 has for it.
pub(super) fn answer<B>(response: &mut Response<B>) {
    let status = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => StatusCode::OK,
        // It would say that the stream is a WebSocket now.
        status if status.is_success() => StatusCode::BAD_GATEWAY,
        status => status,
    };
    *response.status_mut() = status;
    for name in [header::CONNECTION, header::UPGRADE, ACCEPT] {
        response.headers_mut().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn connect(protocol: Option<&'static str>) -> Parts {
        let mut request = Request::connect("http://cart/chat").body(()).unwrap();
        if let Some(protocol) = protocol {
            request
                .extensions_mut()
                .insert(Protocol::from_static(protocol));
        }
        request.into_parts().0
    }

    #[test]
    fn only_an_extended_connect_asks_for_a_websocket() {
        for (protocol, want) in [
            (Some("websocket"), true),
            (Some("connect-udp"), false),
            (None, false),
        ] {
            let mut parts = connect(protocol);
            assert_eq!(receive(&mut parts), want, "{protocol:?}");
            let method = if want { Method::GET } else { Method::CONNECT };
            assert_eq!(parts.method, method, "{protocol:?}");
            assert_eq!(parts.headers.contains_key(KEY), want, "{protocol:?}");
        }
    }

    #[test]
    fn an_answer_is_told_in_the_terms_of_http2() {
        for (given, want) in [(101, 200), (200, 502), (204, 502), (403, 403), (503, 503)] {
            let mut response = Response::builder()
                .status(given)
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", "a")
                .header("sec-websocket-protocol", "chat")
                .body(())
                .unwrap();
            answer(&mut response);
            assert_eq!(response.status().as_u16(), want, "{given}");
            let names: Vec<_> = response.headers().keys().collect();
            assert_eq!(names, ["sec-websocket-protocol"], "{given}");
        }
    }
}
