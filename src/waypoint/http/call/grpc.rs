//! One message to a gRPC method and one back, over HTTP/2
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, StatusCode, header};
use prost::{DecodeError, Message};

use crate::waypoint::http::Told;

/// What stands before a message: that it is not compressed, and its length.
const PREFIX: usize = 5;

/// Why a method did not answer with its message.
#[derive(Debug, thiserror::Error)]
pub(in crate::waypoint) enum NoMessage {
    #[error("answered with HTTP status {0}")]
    Http(StatusCode),
    #[error("gRPC status {code}: {message}")]
    Status { code: u16, message: String },
    #[error("no gRPC status")]
    NoStatus,
    #[error("the message is cut short or compressed")]
    Framing,
    #[error("the message is none of the method's")]
    Decode(#[from] DecodeError),
}

/// The request that calls `method`, `/package.Service/Method`.
pub(in crate::waypoint) fn request(method: &'static str, message: &impl Message) -> Request<Bytes> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    body.put_slice(&message.encode_to_vec());
    let mut request = Request::new(body.freeze());
    *request.method_mut() = Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = http::Uri::from_static(method);
    let fields = request.headers_mut();
    let grpc = HeaderValue::from_static("application/grpc");
    fields.insert(header::CONTENT_TYPE, grpc);
    fields.insert(header::TE, HeaderValue::from_static("trailers"));
    request
}

/// The message in an answer.
///
/// # Errors
/// [`NoMessage`].
pub(in crate::waypoint) fn message<M: Message + Default>(mut called: Told) -> Result<M, NoMessage> {
    if called.head.status != StatusCode::OK {
        return Err(NoMessage::Http(called.head.status));
    }
    // Of an answer without a message the head is all there is.
    let field = |name| {
        let found = called.trailers.get(name);
        let found = found.or_else(|| called.head.headers.get(name))?;
        found.to_str().ok()
    };
    match field("grpc-status") {
        Some("0") => {}
        None => return Err(NoMessage::NoStatus),
        Some(code) => {
            let message = field("grpc-message").unwrap_or_default();
            return Err(NoMessage::Status {
                code: code.parse().unwrap_or(2),
                message: message.chars().take(256).collect(),
            });
        }
    }
    let body = &mut called.body;
    if body.len() < PREFIX || body.get_u8() != 0 {
        return Err(NoMessage::Framing);
    }
    let length = body.get_u32() as usize;
    if body.len() != length {
        return Err(NoMessage::Framing);
    }
    Ok(M::decode(called.body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Response};

    fn called(
        status: u16,
        head: &[(&'static str, &str)],
        trailers: &[(&'static str, &str)],
        body: &[u8],
    ) -> Told {
        let fields = |fields: &[(&'static str, &str)]| {
            let field = |(name, value): &(&'static str, &str)| {
                (http::HeaderName::from_static(name), value.parse().unwrap())
            };
            fields.iter().map(field).collect::<HeaderMap>()
        };
        let (mut parts, ()) = Response::builder()
            .status(status)
            .body(())
            .unwrap()
            .into_parts();
        parts.headers = fields(head);
        Told {
            head: parts,
            body: Bytes::copy_from_slice(body),
            trailers: fields(trailers),
        }
    }

    #[test]
    fn a_call_is_framed() {
        let request = request("/p.S/M", &"hi".to_owned());
        assert_eq!(request.uri().path(), "/p.S/M");
        assert_eq!(request.headers()["te"], "trailers");
        // A string is the first field of its wrapper message.
        assert_eq!(request.body().as_ref(), b"\0\0\0\0\x04\x0a\x02hi");
    }

    #[test]
    fn answers_are_told_apart() {
        let ok = [("grpc-status", "0")];
        let unwell = [("grpc-status", "14"), ("grpc-message", "later")];
        let hi = b"\0\0\0\0\x04\x0a\x02hi";
        for (name, called, want) in [
            ("a message", called(200, &[], &ok, hi), Ok("hi")),
            ("an empty one", called(200, &[], &ok, b"\0\0\0\0\0"), Ok("")),
            (
                "HTTP's own status",
                called(503, &[], &[], b""),
                Err("answered with HTTP status 503 Service Unavailable"),
            ),
            (
                "a status alone",
                called(200, &unwell, &[], b""),
                Err("gRPC status 14: later"),
            ),
            (
                "a status at the end",
                called(200, &[], &unwell, hi),
                Err("gRPC status 14: later"),
            ),
            ("none", called(200, &[], &[], hi), Err("no gRPC status")),
            (
                "no message",
                called(200, &[], &ok, b""),
                Err("the message is cut short or compressed"),
            ),
            (
                "compressed",
                called(200, &[], &ok, b"\x01\0\0\0\0"),
                Err("the message is cut short or compressed"),
            ),
            (
                "cut short",
                called(200, &[], &ok, b"\0\0\0\0\x04\x0a"),
                Err("the message is cut short or compressed"),
            ),
            (
                "two",
                called(200, &[], &ok, b"\0\0\0\0\0\0\0\0\0\0"),
                Err("the message is cut short or compressed"),
            ),
            (
                "no protobuf",
                called(200, &[], &ok, b"\0\0\0\0\x01\x0a"),
                Err("the message is none of the method's"),
            ),
        ] {
            let got = message::<String>(called).map_err(|e| e.to_string());
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(got, want, "{name}");
        }
    }
}
