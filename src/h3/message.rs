//! Reads the head of a message off a request stream (RFC 9114 §4.1).

use bytes::BytesMut;

use super::budget::Allowance;
use super::error::{Code, Fault, StreamError};
use super::frame::Kind;
use super::reader::{FrameReader, Judged, ReadFault};
use super::shared::Shared;

/// Why there is no head.
#[derive(Debug)]
pub(super) enum SectionError {
    Stream(StreamError),
    /// It is larger than we take, even before it is decoded.
    TooLarge,
}

/// The next field section; `None` if the stream ends first.
///
/// # Cancel safety
/// None: what has been read of it is lost.
pub(super) async fn section(
    reader: &mut FrameReader,
    allowance: &mut Allowance,
    shared: &Shared,
) -> Result<Option<BytesMut>, SectionError> {
    let stream = |fault| SectionError::Stream(judge(shared, fault));
    let connection = |fault| SectionError::Stream(shared.fail(fault));
    loop {
        match reader.header().await.map_err(stream)? {
            None => return Ok(None),
            Some((Kind::Headers, length)) if length > shared.config.field_section => {
                return Err(SectionError::TooLarge);
            }
            Some((Kind::Headers, _)) => return reader.whole().await.map(Some).map_err(stream),
            Some((Kind::Unknown, length)) => {
                allowance.spend(length).map_err(connection)?;
                reader.skip().await.map_err(stream)?;
            }
            Some((kind, _)) => return Err(connection(unexpected(kind, shared))),
        }
    }
}

/// What ends a stream; the connection is closed if it ends that.
pub(super) fn judge(shared: &Shared, fault: ReadFault) -> StreamError {
    match fault.judge(|error| shared.ended(error)) {
        Judged::Stream(error) => error,
        Judged::Connection(fault) => shared.fail(fault),
    }
}

/// A frame came on a request stream, or at a point of it, where it may not (RFC 9114 §7.2).
pub(super) fn unexpected(kind: Kind, shared: &Shared) -> Fault {
    match kind {
        // We allow no push, so any it names is one too many (§7.2.5).
        Kind::PushPromise if !shared.is_server() => {
            Fault::new(Code::ID_ERROR, "a push was promised that was not allowed")
        }
        Kind::Data => Fault::new(Code::FRAME_UNEXPECTED, "DATA came before HEADERS"),
        Kind::Headers
        | Kind::CancelPush
        | Kind::Settings
        | Kind::PushPromise
        | Kind::GoAway
        | Kind::MaxPushId
        | Kind::Http2
        | Kind::Unknown => {
            let why = "a frame came on a request stream where it may not";
            Fault::new(Code::FRAME_UNEXPECTED, why)
        }
    }
}
