//! As much of gRPC as a proxy can tell apart: messages with their length before them, and how a call
//! ends, in trailers.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::echo::{Body, empty};

pub(super) const CONTENT_TYPE: &str = "application/grpc";

pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(CONTENT_TYPE.as_bytes()))
}

/// A message as it is sent.
pub(super) fn message(text: &str) -> Bytes {
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(text.len()).unwrap());
    message.put_slice(text.as_bytes());
    message.freeze()
}

/// Takes the first message out of what was received, once it is there as a whole.
pub(super) fn take(received: &mut BytesMut) -> Option<Bytes> {
    let length = usize::try_from(received.get(1..5)?.get_u32()).unwrap();
    if received.len() < 5 + length {
        return None;
    }
    Some(received.split_to(5 + length).freeze().slice(5..))
}

/// Answers each message as it comes, then well.
pub(super) fn converse(mut body: Incoming, answer: Value) -> Response<Body> {
    let (frames, out) = mpsc::channel(4);
    #[allow(clippy::disallowed_methods, reason = "it ends with its call")]
    tokio::spawn(async move {
        let mut received = BytesMut::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            received.extend_from_slice(&data);
            while take(&mut received).is_some() {
                let told = Frame::data(message(&answer.to_string()));
                if frames.send(Ok(told)).await.is_err() {
                    return;
                }
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _gone = frames.send(Ok(Frame::trailers(trailers))).await;
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(out)).boxed());
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A call that fails at once.
pub(super) fn failed(status: &str) -> Response<Body> {
    let response = Response::builder().header(header::CONTENT_TYPE, CONTENT_TYPE);
    response
        .header("grpc-status", status)
        .body(empty())
        .unwrap()
}
