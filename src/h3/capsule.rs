//! Capsules: typed pieces of a stream, of which we use the one that holds a datagram
//! (RFC 9297 §3).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::budget::Allowance;
use super::error::{Code, Fault};
use super::varint;

/// The capsule that holds a datagram (§3.5).
const DATAGRAM: u64 = 0x0;

/// The largest payload of UDP (RFC 9298 §5).
pub(super) const MOST: usize = 65527;
/// The largest capsule taken: that, and a context before it.
const LENGTH: u64 = MOST as u64 + 8;

/// A capsule that holds a datagram of this context.
pub(super) fn encode(context: u64, payload: &[u8]) -> Bytes {
    let length = varint::size(context) + payload.len();
    let mut out = BytesMut::with_capacity(1 + varint::size(length as u64) + length);
    varint::put(DATAGRAM, &mut out);
    varint::put(length as u64, &mut out);
    varint::put(context, &mut out);
    out.put_slice(payload);
    out.freeze()
}

/// The capsules of a stream, which comes in pieces of any size.
#[derive(Debug)]
pub(super) struct Capsules {
    state: State,
    allowance: Allowance,
}

#[derive(Debug)]
enum State {
    /// The beginning of a capsule's type and length.
    Header(BytesMut),
    /// A datagram of which `left` bytes are still to come.
    Datagram { got: BytesMut, left: usize },
    /// An unknown capsule of which so many bytes are still to come.
    Skip(u64),
}

impl Capsules {
    pub(super) fn new() -> Self {
        Self {
            state: State::Header(BytesMut::new()),
            allowance: Allowance::new(),
        }
    }

    /// Takes from the front of `piece` up to the end of the next datagram, which it returns; `None`
    /// once the piece is used up.
    pub(super) fn next(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, Fault> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Header(got) => {
                    let Some((kind, length)) = header(got, piece) else {
                        continue;
                    };
                    if let Some(empty) = self.begin(kind, length)? {
                        return Ok(Some(empty));
                    }
                }
                State::Datagram { got, left } => {
                    let whole = got.is_empty() && piece.len() >= *left;
                    let some = piece.split_to(piece.len().min(*left));
                    *left -= some.len();
                    // In one piece, as most are, it is not copied.
                    if !whole {
                        got.extend_from_slice(&some);
                    }
                    if *left == 0 {
                        let datagram = match whole {
                            true => some,
                            false => got.split().freeze(),
                        };
                        self.allowance.earn(datagram.len());
                        self.state = State::Header(BytesMut::new());
                        return Ok(Some(datagram));
                    }
                }
                State::Skip(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let some = piece.len().min(most);
                    piece.advance(some);
                    *left -= some as u64;
                    if *left == 0 {
                        self.state = State::Header(BytesMut::new());
                    }
                }
            }
        }
        Ok(None)
    }

    /// Goes on to a capsule's value; an empty datagram is whole at once.
    fn begin(&mut self, kind: u64, length: u64) -> Result<Option<Bytes>, Fault> {
        if kind == DATAGRAM {
            let fits = Some(length).filter(|length| *length <= LENGTH);
            let left = fits.and_then(|length| usize::try_from(length).ok());
            let why = "a capsule holds more than a datagram can";
            let left = left.ok_or_else(|| Fault::new(Code::MESSAGE_ERROR, why))?;
            if left > 0 {
                let got = BytesMut::new();
                self.state = State::Datagram { got, left };
                return Ok(None);
            }
        }
        if kind != DATAGRAM && length > 0 {
            self.state = State::Skip(length);
        } else {
            self.state = State::Header(BytesMut::new());
        }
        self.allowance.spend(length)?;
        Ok((kind == DATAGRAM).then(Bytes::new))
    }

    /// Whether a capsule is not whole yet: a stream that ends now is malformed (§3.3).
    pub(super) fn is_amid(&self) -> bool {
        match &self.state {
            State::Header(got) => !got.is_empty(),
            State::Datagram { .. } | State::Skip(_) => true,
        }
    }
}

/// Payloads of UDP in the capsules of a stream that is not HTTP/3's (RFC 9298 §5).
#[derive(Debug)]
pub struct UdpCapsules(Capsules);

impl Default for UdpCapsules {
    fn default() -> Self {
        Self(Capsules::new())
    }
}

impl UdpCapsules {
    /// The capsule of a payload; `None` of one that is too long for UDP.
    pub fn encode(payload: &[u8]) -> Option<Bytes> {
        (payload.len() <= MOST).then(|| encode(UDP, payload))
    }

    /// Takes from the front of `piece` up to the end of the next payload, which it returns; `None` once the
    /// piece is used up.
    ///
    /// # Errors
    /// [`Fault`] for what is no capsule, or more of them than anybody needs.
    pub fn next(&mut self, piece: &mut Bytes) -> Result<Option<Bytes>, Fault> {
        while let Some(mut datagram) = self.0.next(piece)? {
            match varint::read(&datagram) {
                Some((UDP, size)) => {
                    datagram.advance(size);
                    return Ok(Some(datagram));
                }
                // Of a context that there is not.
                Some(_) => {}
                None => {
                    let why = "a datagram ends within its context";
                    return Err(Fault::new(Code::DATAGRAM_ERROR, why));
                }
            }
        }
        Ok(None)
    }
}

/// The context of plain payloads of UDP (RFC 9298 §4).
const UDP: u64 = 0;

/// Takes a capsule's type and length; `None` while `piece` has less.
fn header(got: &mut BytesMut, piece: &mut Bytes) -> Option<(u64, u64)> {
    while piece.has_remaining() {
        got.put_u8(piece.get_u8());
        let kind = varint::read(got);
        let length = kind.and_then(|(_, size)| varint::read(got.get(size..)?));
        if let (Some((kind, _)), Some((length, _))) = (kind, length) {
            got.clear();
            return Some((kind, length));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All datagrams of a stream that comes in pieces of these sizes, and whether it ends whole.
    fn read(stream: &[u8], sizes: &[usize]) -> Result<(Vec<Bytes>, bool), Fault> {
        let mut capsules = Capsules::new();
        let mut datagrams = Vec::new();
        let mut stream = Bytes::copy_from_slice(stream);
        let mut sizes = sizes.iter().cycle();
        while !stream.is_empty() {
            let size = sizes.next().map_or(1, |size| *size);
            let mut piece = stream.split_to(size.clamp(1, stream.len()));
            while let Some(datagram) = capsules.next(&mut piece)? {
                datagrams.push(datagram);
            }
        }
        Ok((datagrams, !capsules.is_amid()))
    }

    #[test]
    fn capsules_are_read() {
        let whole = |datagrams: &[&[u8]]| {
            let datagrams = datagrams.iter().map(|d| Bytes::copy_from_slice(d));
            Ok((datagrams.collect::<Vec<_>>(), true))
        };
        let long = [&[0x80, 0, 0, 0, 0x80, 1, 0, 0][..], &[0; 0xfff8], &[7; 8]].concat();
        let unknown = [&[0x21, 0x41, 0][..], &[9; 256], &[0, 1, 5]].concat();
        let flood = [0x21, 0].repeat(65);
        let error = |code| Err(code);
        for (name, stream, want) in [
            ("nothing", &[][..], whole(&[])),
            ("one", &[0, 2, 0, b'a'], whole(&[&[0, b'a']])),
            ("two", &[0, 1, 0, 0, 2, 0, b'b'], whole(&[&[0], &[0, b'b']])),
            ("an empty one", &[0, 0, 0, 1, 0], whole(&[&[], &[0]])),
            (
                "long integers",
                &[0x40, 0, 0x80, 0, 0, 1, 0],
                whole(&[&[0]]),
            ),
            ("unknown before it", &unknown, whole(&[&[5]])),
            ("half of one", &[0, 2, 0], Ok((vec![], false))),
            ("half of a length", &[0, 0x40], Ok((vec![], false))),
            ("half of an unknown one", &[0x21, 2, 0], Ok((vec![], false))),
            ("too long", &long, error(Code::MESSAGE_ERROR)),
            (
                "nothing but unknown ones",
                &flood,
                error(Code::EXCESSIVE_LOAD),
            ),
            (
                "a huge unknown one",
                &[0x21, 0xff, 0, 0, 0, 0, 0, 0, 0],
                error(Code::EXCESSIVE_LOAD),
            ),
        ] {
            for sizes in [&[1][..], &[2], &[3, 1, 2], &[1 << 20]] {
                let got = read(stream, sizes).map_err(|fault| fault.code);
                assert_eq!(got, want, "{name} in pieces of {sizes:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn datagrams_round_trip(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            sizes in proptest::collection::vec(1usize..700, 1..20),
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| encode(0, p)).collect();
            let (got, whole) = read(&stream, &sizes).unwrap();
            prop_assert!(whole);
            let want: Vec<Bytes> = payloads.iter().map(|p| [&[0], &p[..]].concat().into()).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, size in 1usize..40) {
            let _read = read(&bytes, &[size]);
        }
    }
}
