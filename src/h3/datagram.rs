//! Datagrams: which stream each is of, and those that come before their stream does
//! (RFC 9297 §2.1).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::Instant;

use super::error::{Code, Fault};
use super::varint;

/// How long a datagram is held whose stream is unknown.
const HELD: Duration = Duration::from_secs(1);
/// Datagrams held of one unknown stream.
const HELD_EACH: usize = 16;
/// Datagrams held of all of them: under half a MiB, at a packet each.
const HELD_ALL: usize = 256;
/// Datagrams that wait for the owner of a stream; further ones are dropped, as anywhere on the way.
const WAITING: usize = 64;
/// The largest number a stream can have here (§2.1).
const MOST: u64 = (1 << 60) - 1;

/// A datagram of the stream with this quarter id, context and payload.
pub(super) fn encode(quarter: u64, context: u64, payload: &[u8]) -> Bytes {
    let size = varint::size(quarter) + varint::size(context) + payload.len();
    let mut out = BytesMut::with_capacity(size);
    varint::put(quarter, &mut out);
    varint::put(context, &mut out);
    out.put_slice(payload);
    out.freeze()
}

/// The quarter id of a datagram's stream, and what follows it.
pub(super) fn decode(mut datagram: Bytes) -> Result<(u64, Bytes), Fault> {
    let read = varint::read(&datagram).filter(|(quarter, _)| *quarter <= MOST);
    let why = "a datagram does not name a stream";
    let (quarter, size) = read.ok_or_else(|| Fault::new(Code::DATAGRAM_ERROR, why))?;
    let rest = datagram.split_off(size);
    Ok((quarter, rest))
}

/// Deals datagrams out to streams.
pub(super) struct Demux {
    /// Those that have datagrams, or may turn out to.
    streams: HashMap<u64, Place>,
    /// Streams below it have been opened, so what is not among them is over.
    opened: u64,
    held: VecDeque<Held>,
    /// Whether the peer opens the streams.
    server: bool,
}

enum Place {
    /// Its request is being read or answered.
    Unknown,
    /// Its owner takes them.
    Open(Sender<Bytes>),
}

struct Held {
    until: Instant,
    quarter: u64,
    payload: Bytes,
}

impl Demux {
    pub(super) fn new(server: bool) -> Self {
        Self {
            streams: HashMap::new(),
            opened: 0,
            held: VecDeque::new(),
            server,
        }
    }

    /// A stream has been opened, that has datagrams or may turn out to if `may` is set.
    pub(super) fn open(&mut self, quarter: u64, may: bool) {
        self.opened = self.opened.max(quarter + 1);
        if may {
            self.streams.insert(quarter, Place::Unknown);
        }
    }

    /// How many streams have been opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// A stream's datagrams, from those held for it on.
    pub(super) fn subscribe(&mut self, quarter: u64) -> Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let now = Instant::now();
        self.held.retain_mut(|held| {
            if held.quarter != quarter {
                return held.until > now;
            }
            if held.until > now {
                // There is room for more than are ever held.
                let _full = sender.try_send(std::mem::take(&mut held.payload));
            }
            false
        });
        self.streams.insert(quarter, Place::Open(sender));
        receiver
    }

    /// A stream is over, or has no datagrams.
    pub(super) fn close(&mut self, quarter: u64) {
        if self.streams.remove(&quarter).is_some() {
            self.held.retain(|held| held.quarter != quarter);
        }
    }

    /// Deals one out.
    pub(super) fn deal(&mut self, quarter: u64, payload: Bytes) {
        match self.streams.get(&quarter) {
            Some(Place::Open(sender)) => {
                // It is a part of what came in one go, most of which may be gone long before it:
                // what has to wait in line is copied, and does not keep that.
                let waits = sender.capacity() < sender.max_capacity();
                let payload = match waits {
                    true => Bytes::copy_from_slice(&payload),
                    false => payload,
                };
                let _full = sender.try_send(payload);
            }
            Some(Place::Unknown) => self.hold(quarter, &payload),
            None if self.server && quarter >= self.opened => self.hold(quarter, &payload),
            // Of a stream that is over, or that we never opened.
            None => {}
        }
    }

    fn hold(&mut self, quarter: u64, payload: &[u8]) {
        let now = Instant::now();
        while self.held.front().is_some_and(|held| held.until <= now) {
            self.held.pop_front();
        }
        let same = self.held.iter().filter(|held| held.quarter == quarter);
        if self.held.len() >= HELD_ALL || same.count() >= HELD_EACH {
            return;
        }
        self.held.push_back(Held {
            until: now + HELD,
            quarter,
            payload: Bytes::copy_from_slice(payload),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(receiver: &mut Receiver<Bytes>) -> Vec<Bytes> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    fn byte(n: usize) -> Bytes {
        Bytes::copy_from_slice(&[n as u8])
    }

    #[test]
    fn datagrams_name_their_stream() {
        for (name, bytes, want) in [
            ("stream 0", &[0, 0, b'a'][..], Ok((0, &[0, b'a'][..]))),
            ("stream 4096", &[0x44, 0, 0], Ok((1024, &[0]))),
            ("nothing in it", &[1], Ok((1, &[]))),
            ("none", &[], Err(Code::DATAGRAM_ERROR)),
            ("half a name", &[0x44], Err(Code::DATAGRAM_ERROR)),
            (
                "no such stream",
                &[0xd0, 0, 0, 0, 0, 0, 0, 0],
                Err(Code::DATAGRAM_ERROR),
            ),
        ] {
            let got = decode(Bytes::copy_from_slice(bytes)).map_err(|fault| fault.code);
            let want = want.map(|(quarter, rest)| (quarter, Bytes::copy_from_slice(rest)));
            assert_eq!(got, want, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn datagrams_before_their_stream_are_held_for_a_while() {
        let mut demux = Demux::new(true);
        for n in 0..20 {
            demux.deal(3, byte(n));
        }
        demux.deal(6, byte(9));
        demux.open(3, true);
        demux.deal(3, byte(20));
        let mut three = demux.subscribe(3);
        let first: Vec<_> = (0..16).map(byte).collect();
        assert_eq!(take(&mut three), first, "no more than 16");
        demux.deal(3, byte(30));
        assert_eq!(take(&mut three), [byte(30)]);
        tokio::time::advance(Duration::from_millis(999)).await;
        demux.deal(6, byte(10));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(
            take(&mut demux.subscribe(6)),
            [byte(10)],
            "the other is a second old"
        );
        demux.close(3);
        demux.deal(3, byte(31));
        assert!(three.try_recv().is_err(), "the stream is over");
        demux.deal(1, byte(11));
        assert!(demux.held.is_empty(), "stream 1 is over too");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_and_what_waits_is_bounded() {
        let mut demux = Demux::new(true);
        for n in 0..10_000 {
            demux.deal(n, byte(0));
        }
        assert_eq!(demux.held.len(), HELD_ALL);
        tokio::time::advance(HELD).await;
        demux.deal(10_000, byte(0));
        assert_eq!(demux.held.len(), 1);
        let mut receiver = demux.subscribe(7);
        for n in 0..100 {
            demux.deal(7, byte(n));
        }
        let first: Vec<_> = (0..WAITING).map(byte).collect();
        assert_eq!(take(&mut receiver), first);
    }

    #[test]
    fn a_client_knows_what_it_opened() {
        let mut demux = Demux::new(false);
        demux.deal(0, byte(0));
        assert!(demux.held.is_empty());
    }

    proptest! {
        #[test]
        fn datagrams_round_trip(quarter in 0..=MOST, payload: Vec<u8>) {
            let (got, rest) = decode(encode(quarter, 0, &payload)).unwrap();
            prop_assert_eq!(got, quarter);
            prop_assert_eq!(&rest[..1], &[0]);
            prop_assert_eq!(&rest[1..], &payload[..]);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _read = decode(bytes.into());
        }
    }
}
