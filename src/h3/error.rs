//! Error codes of HTTP/3, and the failures that carry them.

use std::fmt;
use std::io;

use http::StatusCode;
use quinn::VarInt;

use super::head::Response;

/// An application error code, as RESET_STREAM, STOP_SENDING and CONNECTION_CLOSE carry it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Its name in the registry.
            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// A datagram's stream cannot be told (RFC 9297 §2.1).
    DATAGRAM_ERROR = 0x33, "H3_DATAGRAM_ERROR";
    /// No error (RFC 9114 §8.1, as all of `0x1..`).
    NO_ERROR = 0x100, "H3_NO_ERROR";
    /// The protocol was broken in a way that has no code of its own.
    GENERAL_PROTOCOL_ERROR = 0x101, "H3_GENERAL_PROTOCOL_ERROR";
    /// A fault of whoever says so.
    INTERNAL_ERROR = 0x102, "H3_INTERNAL_ERROR";
    /// A stream was opened that may not be.
    STREAM_CREATION_ERROR = 0x103, "H3_STREAM_CREATION_ERROR";
    /// A stream was closed that the connection cannot do without.
    CLOSED_CRITICAL_STREAM = 0x104, "H3_CLOSED_CRITICAL_STREAM";
    /// A frame came where it may not.
    FRAME_UNEXPECTED = 0x105, "H3_FRAME_UNEXPECTED";
    /// A frame has the wrong layout or size.
    FRAME_ERROR = 0x106, "H3_FRAME_ERROR";
    /// The peer makes work without need.
    EXCESSIVE_LOAD = 0x107, "H3_EXCESSIVE_LOAD";
    /// A stream or push id is out of range.
    ID_ERROR = 0x108, "H3_ID_ERROR";
    /// SETTINGS hold what they may not.
    SETTINGS_ERROR = 0x109, "H3_SETTINGS_ERROR";
    /// The control stream did not begin with SETTINGS.
    MISSING_SETTINGS = 0x10a, "H3_MISSING_SETTINGS";
    /// The request was not looked at: it may be tried elsewhere.
    REQUEST_REJECTED = 0x10b, "H3_REQUEST_REJECTED";
    /// The request is no longer wanted.
    REQUEST_CANCELLED = 0x10c, "H3_REQUEST_CANCELLED";
    /// The stream ended before its request did.
    REQUEST_INCOMPLETE = 0x10d, "H3_REQUEST_INCOMPLETE";
    /// A message is malformed.
    MESSAGE_ERROR = 0x10e, "H3_MESSAGE_ERROR";
    /// The connection behind a CONNECT was reset or closed abnormally (RFC 9114 §4.4).
    CONNECT_ERROR = 0x10f, "H3_CONNECT_ERROR";
    /// The request cannot be served over HTTP/3.
    VERSION_FALLBACK = 0x110, "H3_VERSION_FALLBACK";
    /// A field section cannot be decoded (RFC 9204 §6, as all of `0x2..`).
    QPACK_DECOMPRESSION_FAILED = 0x200, "QPACK_DECOMPRESSION_FAILED";
    /// The encoder stream holds what it may not.
    QPACK_ENCODER_STREAM_ERROR = 0x201, "QPACK_ENCODER_STREAM_ERROR";
    /// The decoder stream holds what it may not.
    QPACK_DECODER_STREAM_ERROR = 0x202, "QPACK_DECODER_STREAM_ERROR";
}

impl Code {
    /// The number on the wire.
    pub fn value(self) -> u64 {
        self.0
    }

    /// As QUIC has it.
    pub(super) fn quic(self) -> VarInt {
        // All that can be made or received is a varint.
        VarInt::from_u64(self.0).unwrap_or(VarInt::MAX)
    }
}

impl From<VarInt> for Code {
    fn from(code: VarInt) -> Self {
        Self(code.into_inner())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A breach of the protocol by the peer. It ends the connection, or where it is told of a message,
/// the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why} ({code})")]
pub struct Fault {
    /// What it is answered with.
    pub code: Code,
    /// What was wrong.
    pub why: &'static str,
}

impl Fault {
    pub(super) const fn new(code: Code, why: &'static str) -> Self {
        Self { code, why }
    }
}

/// Why a connection is over.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Ended {
    /// We closed it in order.
    #[error("the connection was closed here")]
    Here,
    /// The peer broke the protocol, and we closed the connection.
    #[error("the peer broke the protocol")]
    Fault(#[source] Fault),
    /// The peer closed it; in order, if with [`Code::NO_ERROR`].
    #[error("the peer closed the connection with {code}")]
    Peer {
        /// Its code.
        code: Code,
    },
    /// QUIC ended it.
    #[error("QUIC failed")]
    Lost(#[source] quinn::ConnectionError),
}

impl Ended {
    /// Whether it was meant to end, by either side.
    pub fn is_orderly(&self) -> bool {
        match self {
            Self::Here => true,
            Self::Peer { code } => *code == Code::NO_ERROR,
            Self::Fault(_) | Self::Lost(_) => false,
        }
    }
}

/// Why a stream ended before its end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// The peer sends no more, and what it sent is not whole.
    #[error("the peer reset the stream with {code}")]
    Reset {
        /// Its code.
        code: Code,
    },
    /// The peer takes no more.
    #[error("the peer stopped reading the stream with {code}")]
    Stopped {
        /// Its code.
        code: Code,
    },
    /// What the peer sent on this stream makes no sense.
    #[error("the peer's message is malformed")]
    Malformed(#[source] Fault),
    /// We have reset it, or ended the direction.
    #[error("the stream was closed here")]
    Closed,
    /// The connection is over.
    #[error("the connection ended")]
    Ended(#[source] Ended),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Stopped { .. } => io::ErrorKind::BrokenPipe,
            StreamError::Closed => io::ErrorKind::NotConnected,
            StreamError::Reset { .. } | StreamError::Malformed(_) | StreamError::Ended(_) => {
                io::ErrorKind::ConnectionReset
            }
        };
        Self::new(kind, error)
    }
}

/// Why a request has no answer that opens a stream.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The peer has said no.
    #[error("the peer answered {}", .0.status)]
    Refused(Response),
    /// The connection takes no more requests, or has passed this one over unread: it may be made
    /// on another (RFC 9114 §5.2).
    #[error("the peer takes no more requests on this connection")]
    Unprocessed,
    /// The peer does not do extended CONNECT (RFC 9220 §3).
    #[error("the peer does not offer extended CONNECT")]
    NotOffered,
    /// The head is larger than the peer takes, or ours than we do.
    #[error("the head of the message is too large")]
    TooLarge,
    /// The stream broke.
    #[error("the stream broke")]
    Stream(#[from] StreamError),
    /// The connection was over before the request was made.
    #[error("the connection ended before the request was made")]
    Ended(#[source] Ended),
}

impl RequestError {
    /// Whether the peer has certainly not looked at the request, or what has looked is gone: who is
    /// there now knows nothing of the connection (RFC 9000 §10.3).
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Unprocessed | Self::NotOffered | Self::Ended(_) => true,
            Self::Stream(StreamError::Ended(Ended::Lost(lost))) => {
                matches!(lost, quinn::ConnectionError::Reset)
            }
            Self::Refused(_) | Self::TooLarge | Self::Stream(_) => false,
        }
    }

    /// The peer's status, where it gave one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(response) => Some(response.status),
            Self::Unprocessed
            | Self::NotOffered
            | Self::TooLarge
            | Self::Stream(_)
            | Self::Ended(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_shown_by_name() {
        for (name, code, want) in [
            ("known", Code(0x10f), "H3_CONNECT_ERROR"),
            ("QPACK's", Code(0x200), "QPACK_DECOMPRESSION_FAILED"),
            ("reserved", Code(0x21), "0x21"),
        ] {
            assert_eq!(code.to_string(), want, "{name}");
            assert_eq!(Code::from(code.quic()), code, "{name}");
        }
    }
}
