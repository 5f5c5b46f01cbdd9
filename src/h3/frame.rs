//! Frames: which there are, and the header before each (RFC 9114 §7).

use bytes::{BufMut as _, Bytes, BytesMut};

use super::varint;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    CancelPush,
    Settings,
    PushPromise,
    GoAway,
    MaxPushId,
    /// A frame of HTTP/2 that HTTP/3 has not: never to be sent (§7.2.8).
    Http2,
    /// One that we do not know, and skip (§9).
    Unknown,
}

impl Kind {
    pub(super) fn of(kind: u64) -> Self {
        match kind {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x3 => Self::CancelPush,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x7 => Self::GoAway,
            0xd => Self::MaxPushId,
            0x2 | 0x6 | 0x8 | 0x9 => Self::Http2,
            _ => Self::Unknown,
        }
    }
}

pub(super) const DATA: u64 = 0x0;
pub(super) const HEADERS: u64 = 0x1;
pub(super) const SETTINGS: u64 = 0x4;
pub(super) const GOAWAY: u64 = 0x7;

/// A frame's header, for a payload of `length` bytes.
pub(super) fn header(kind: u64, length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(varint::size(kind) + varint::size(length as u64));
    varint::put(kind, &mut out);
    varint::put(length as u64, &mut out);
    out.freeze()
}

/// A whole frame in one piece.
pub(super) fn whole(kind: u64, payload: &[u8]) -> Bytes {
    let length = payload.len() as u64;
    let mut out =
        BytesMut::with_capacity(varint::size(kind) + varint::size(length) + payload.len());
    varint::put(kind, &mut out);
    varint::put(length, &mut out);
    out.put_slice(payload);
    out.freeze()
}

/// A GOAWAY frame (§7.2.6).
pub(super) fn goaway(id: u64) -> Bytes {
    let mut payload = BytesMut::with_capacity(8);
    varint::put(id, &mut payload);
    whole(GOAWAY, &payload)
}

/// A frame that means nothing, and is acknowledged as all are (§7.2.8).
pub(super) fn nothing() -> Bytes {
    whole(0x21, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_on_the_wire() {
        for (name, frame, want) in [
            ("no DATA", whole(DATA, b""), &[0x0, 0x0][..]),
            ("HEADERS", whole(HEADERS, b"ab"), &[0x1, 0x2, b'a', b'b']),
            ("GOAWAY", goaway(0x44), &[0x7, 0x2, 0x40, 0x44]),
            (
                "256 KiB of DATA",
                header(DATA, 256 << 10),
                &[0x0, 0x80, 0x4, 0x0, 0x0],
            ),
        ] {
            assert_eq!(frame, want, "{name}");
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        for (kind, want) in [
            (0x0, Kind::Data),
            (0x1, Kind::Headers),
            (0x2, Kind::Http2),
            (0x3, Kind::CancelPush),
            (0x4, Kind::Settings),
            (0x5, Kind::PushPromise),
            (0x6, Kind::Http2),
            (0x7, Kind::GoAway),
            (0x8, Kind::Http2),
            (0x9, Kind::Http2),
            (0xd, Kind::MaxPushId),
            (0x21, Kind::Unknown),
            (0xf0700, Kind::Unknown),
            (varint::MAX, Kind::Unknown),
        ] {
            assert_eq!(Kind::of(kind), want, "{kind:#x}");
        }
    }
}
