//! Responses as they go onto the wire: gRPC messages, a piece at a time.
//!
//! The library's own way writes a message into a buffer as large as the message, and keeps that
//! buffer for as long as the stream lives: with two hundred clients that once were sent a large
//! mesh, more than the mesh itself. Here a response is references to bytes that all clients share
//! until flow control asks for the next piece.

use std::convert::Infallible;
use std::vec;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream;
use http::HeaderMap;
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;

use crate::wire::convert::delta::Response;

/// Bytes of a piece, more or less: as much as an HTTP/2 frame and a TLS record hold.
const PIECE: usize = 16 << 10;
/// Number of the field `resources` of a response.
const RESOURCES: u32 = 2;

/// The body of a stream of responses, which ends with the status that is sent last.
pub(super) fn body(responses: mpsc::Receiver<Result<Response, Status>>) -> Body {
    let frames = Frames {
        responses,
        current: None,
        ended: false,
    };
    let frames = stream::unfold(frames, |mut frames| async move {
        let frame = frames.next().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    Body::new(StreamBody::new(frames))
}

struct Frames {
    responses: mpsc::Receiver<Result<Response, Status>>,
    current: Option<Message>,
    ended: bool,
}

impl Frames {
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.ended {
            return None;
        }
        let mut message = match self.current.take() {
            Some(message) => message,
            None => match self.responses.recv().await {
                Some(Ok(response)) => Message::new(response),
                Some(Err(status)) => return Some(self.end(&status)),
                // A task that dies without a word must not end the stream OK.
                None => return Some(self.end(&Status::cancelled("the stream was lost"))),
            },
        };
        let piece = message.piece();
        self.current = (message.left > 0).then_some(message);
        Some(Frame::data(piece))
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            // Its text cannot be sent; its code always can.
            let bare = Status::new(status.code(), "");
            let _sent = bare.add_header(&mut trailers);
        }
        Frame::trailers(trailers)
    }
}

/// A response that is being sent.
struct Message {
    /// The message's head and everything but its resources.
    start: Bytes,
    resources: vec::IntoIter<Bytes>,
    /// Bytes not yet in a piece.
    left: usize,
}

impl Message {
    fn new(response: Response) -> Self {
        let length = response.encoded_len();
        let Response { resources, .. } = response;
        let rest = Response {
            resources: Vec::new(),
            ..response
        };
        let mut start = BytesMut::with_capacity(5 + rest.encoded_len());
        // Not compressed; its length. Chunks are far below the 4 GiB this can say.
        start.put_u8(0);
        start.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        start.put_slice(&rest.encode_to_vec());
        Self {
            start: start.freeze(),
            resources: resources.into_iter(),
            left: 5 + length,
        }
    }

    fn piece(&mut self) -> Bytes {
        let mut piece = BytesMut::with_capacity(self.left.min(PIECE + PIECE / 4));
        piece.put_slice(&std::mem::take(&mut self.start));
        while piece.len() < PIECE
            && let Some(resource) = self.resources.next()
        {
            encode_key(RESOURCES, WireType::LengthDelimited, &mut piece);
            encode_varint(resource.len() as u64, &mut piece);
            piece.put_slice(&resource);
        }
        self.left = self.left.saturating_sub(piece.len());
        piece.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::discovery::DeltaDiscoveryResponse;
    use http_body_util::BodyExt as _;

    fn response(resources: usize, removed: usize) -> Response {
        let resource = |n: usize| {
            crate::wire::convert::delta::encode_resource(
                "type",
                &format!("name-{n}"),
                "0123456789abcdef",
                Vec::new(),
                vec![7; n % 700],
            )
        };
        Response {
            system_version_info: "abababab/0/7".to_owned(),
            resources: (0..resources).map(resource).collect(),
            type_url: "type".to_owned(),
            nonce: "nonce".to_owned(),
            removed_resources: (0..removed).map(|n| format!("gone-{n}")).collect(),
        }
    }

    #[tokio::test]
    async fn pieces_are_the_whole() {
        for (name, resources, removed) in [
            ("nothing", 0, 0),
            ("one", 1, 0),
            ("a removal", 0, 1),
            ("many", 1_000, 3),
            ("many removals", 2, 10_000),
        ] {
            let (sender, responses) = mpsc::channel(4);
            let sent = response(resources, removed);
            sender.send(Ok(sent.clone())).await.unwrap();
            sender.send(Ok(response(1, 0))).await.unwrap();
            let end = Status::cancelled("over");
            sender.send(Err(end)).await.unwrap();
            let mut body = body(responses);
            let (mut bytes, mut trailers) = (Vec::new(), None);
            while let Some(frame) = body.frame().await {
                match frame.unwrap().into_data() {
                    Ok(data) => bytes.extend(data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            for want in [sent, response(1, 0)] {
                let length = want.encoded_len();
                let head = [&[0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
                assert_eq!(bytes[..5], head, "{name}");
                let message: Vec<u8> = bytes.drain(..5 + length).skip(5).collect();
                let read = DeltaDiscoveryResponse::decode(&*message).unwrap();
                let whole = DeltaDiscoveryResponse::decode(&*want.encode_to_vec());
                assert_eq!(read, whole.unwrap(), "{name}");
            }
            assert!(bytes.is_empty(), "{name}");
            assert_eq!(trailers.unwrap()["grpc-status"], "1", "{name}");
        }
    }

    #[tokio::test]
    async fn a_piece_is_small() {
        let (sender, responses) = mpsc::channel(1);
        sender.send(Ok(response(20_000, 0))).await.unwrap();
        let mut body = body(responses);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(
            (PIECE..PIECE + 1_024).contains(&first.len()),
            "{}",
            first.len()
        );
    }

    #[tokio::test]
    async fn a_stream_whose_task_is_gone_does_not_end_ok() {
        let (sender, responses) = mpsc::channel(1);
        drop(sender);
        let frame = body(responses).frame().await.unwrap().unwrap();
        assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "1");
    }
}
