//! Counts what comes of a request: bytes, and messages where it is gRPC.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What has come of a request's body.
#[derive(Debug, Default)]
pub(in crate::waypoint) struct Received {
    bytes: AtomicU64,
    messages: Option<Mutex<Messages>>,
}

/// The messages in the body of a gRPC call, which come in pieces of any size (gRPC over HTTP/2,
/// "Length-Prefixed-Message").
#[derive(Debug, Default)]
pub(super) struct Messages {
    count: u64,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are known.
    known: usize,
    /// Bytes of the message that are to come.
    left: u64,
}

impl Received {
    /// Nothing yet; messages are counted where it is gRPC.
    pub(super) fn of(grpc: bool) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            messages: grpc.then(Mutex::default),
        }
    }

    /// Some of it.
    pub(super) fn note(&self, data: &[u8]) {
        self.more(data.len() as u64);
        if let Some(messages) = &self.messages {
            let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
            messages.note(data);
        }
    }

    /// So many bytes that nobody looks at.
    pub(super) fn more(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn messages(&self) -> u64 {
        let messages = self.messages.as_ref();
        messages.map_or(0, |messages| {
            let messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
            messages.count
        })
    }
}

impl Messages {
    /// Some of the body.
    pub(super) fn note(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX);
                let skipped = skipped.min(data.len());
                self.left -= skipped as u64;
                data = data.get(skipped..).unwrap_or_default();
                continue;
            }
            let (first, rest) = data.split_at(1);
            if let (Some(place), Some(byte)) = (self.prefix.get_mut(self.known), first.first()) {
                *place = *byte;
            }
            self.known += 1;
            data = rest;
            if self.known == PREFIX {
                self.known = 0;
                self.count += 1;
                let [_, a, b, c, d] = self.prefix;
                self.left = u32::from_be_bytes([a, b, c, d]).into();
            }
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_come() {
        let mut body = Vec::new();
        for length in [0_u32, 1, 300] {
            body.push(0);
            body.extend(length.to_be_bytes());
            body.resize(body.len() + usize::try_from(length).unwrap(), b'x');
        }
        for size in [1, 2, 3, 5, 7, 100, body.len()] {
            let mut messages = Messages::default();
            body.chunks(size).for_each(|piece| messages.note(piece));
            assert_eq!(messages.count(), 3, "pieces of {size}");
        }
        let mut begun = Messages::default();
        begun.note(&body[..4]);
        assert_eq!(begun.count(), 0);
    }

    #[test]
    fn bytes_are_counted_of_everything() {
        for (grpc, messages) in [(false, 0), (true, 1)] {
            let received = Received::of(grpc);
            received.note(&[0, 0, 0, 0, 2, b'a']);
            received.note(b"b");
            assert_eq!((received.bytes(), received.messages()), (7, messages));
        }
    }
}
