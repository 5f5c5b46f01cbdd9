//! One direction's key: seals or opens TLS 1.3 records in their order (RFC 8446 §5.2–§5.3).
//!
//! It seals from where the bytes lie straight to where they leave from. The library seals into a
//! buffer of its own for each record and copies from there, which is a tenth of what carrying bulk
//! costs.

use std::fmt;
use std::io::IoSlice;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error};

use super::buffer::PLAIN;

/// Bytes before a record's content: its type, version and length.
pub(super) const HEADER: usize = 5;
/// Bytes that authenticate it, in all cipher suites we have.
const TAG: usize = 16;
/// Most bytes behind the header (§5.2).
const LONGEST: usize = PLAIN + 256;

/// What a record carries (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Alert,
    Handshake,
    Application,
    /// Nothing that may come here.
    Other,
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::Application,
            _ => Self::Other,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Application => 23,
            Self::Other => 0,
        }
    }
}

/// A record about to be sealed.
struct Frame<'a> {
    nonce: Nonce,
    header: [u8; HEADER],
    /// Where the content goes.
    text: &'a mut [u8],
    /// Where its type and the tag go.
    rest: &'a mut [u8],
}

/// A key, with the number of the next record.
pub(super) struct Key {
    aead: LessSafeKey,
    iv: [u8; 12],
    number: u64,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(record {})", self.number)
    }
}

impl Key {
    /// A key of the handshake's, from the record that it says is next.
    ///
    /// # Errors
    /// For a cipher suite that is not one of ours.
    pub(super) fn new((number, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, Error> {
        let (cipher, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("a cipher suite without keys".to_owned())),
        };
        let unusable = || Error::General("a traffic key of the wrong length".to_owned());
        let key = UnboundKey::new(cipher, key.as_ref()).map_err(|_length| unusable())?;
        Ok(Self {
            aead: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_length| unusable())?,
            number,
        })
    }

    /// Records sealed or opened with it.
    pub(super) fn used(&self) -> u64 {
        self.number
    }

    /// Seals a record at the front of `into`; tells its length.
    ///
    /// # Errors
    /// When there is no room for it, or no number left.
    pub(super) fn seal(
        &mut self,
        kind: Kind,
        plain: &[u8],
        into: &mut [u8],
    ) -> Result<usize, Error> {
        let frame = self.frame(plain.len(), into)?;
        let sealed = self.aead.seal_out_of_place_scatter(
            frame.nonce,
            Aad::from(&frame.header),
            plain,
            frame.text,
            &[kind.byte()],
            frame.rest,
        );
        sealed.map_err(|_lengths| Error::EncryptError)?;
        Ok(HEADER + plain.len() + 1 + TAG)
    }

    /// As [`Key::seal`], of bytes that lie apart; as many as one record takes, and how many these
    /// are comes first.
    pub(super) fn seal_pieces<'a>(
        &mut self,
        kind: Kind,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
        into: &mut [u8],
    ) -> Result<(usize, usize), Error> {
        let total: usize = pieces.clone().map(<[u8]>::len).sum();
        let total = total.min(PLAIN);
        let frame = self.frame(total, into)?;
        let mut filled = 0;
        for piece in pieces {
            let fits = piece.len().min(total - filled);
            let (Some(to), Some(from)) =
                (frame.text.get_mut(filled..filled + fits), piece.get(..fits))
            else {
                break;
            };
            to.copy_from_slice(from);
            filled += fits;
        }
        let sealed = self.aead.seal_in_place_scatter(
            frame.nonce,
            Aad::from(&frame.header),
            frame.text,
            &[kind.byte()],
            frame.rest,
        );
        sealed.map_err(|_lengths| Error::EncryptError)?;
        Ok((total, HEADER + total + 1 + TAG))
    }

    /// The parts of a record of so many bytes, its header written, and the nonce to seal it with.
    fn frame<'a>(&mut self, plain: usize, into: &'a mut [u8]) -> Result<Frame<'a>, Error> {
        let length = plain + 1 + TAG;
        let header = header(length).filter(|_| plain <= PLAIN);
        let header = header.ok_or(Error::EncryptError)?;
        let record = into.get_mut(..HEADER + length);
        let record = record.ok_or(Error::EncryptError)?;
        let (front, body) = record.split_at_mut(HEADER);
        front.copy_from_slice(&header);
        let (text, rest) = body.split_at_mut(plain);
        let nonce = self.nonce().ok_or(Error::EncryptError)?;
        Ok(Frame {
            nonce,
            header,
            text,
            rest,
        })
    }

    /// Opens what lies behind `header`, in place; its kind, and how many bytes of it are content.
    ///
    /// # Errors
    /// When it was not sealed with this key as the next record, or breaks the protocol.
    pub(super) fn open(
        &mut self,
        header: [u8; HEADER],
        body: &mut [u8],
    ) -> Result<(Kind, usize), Error> {
        let nonce = self.nonce().ok_or(Error::DecryptError)?;
        let opened = self.aead.open_in_place(nonce, Aad::from(&header), body);
        let plain = opened.map_err(|_forged| Error::DecryptError)?;
        // The last byte that is not padding tells what it is (§5.4).
        let end = plain.iter().rposition(|byte| *byte != 0);
        let end = end.ok_or_else(unexpected)?;
        if plain.len() > PLAIN + 1 {
            return Err(Error::PeerSentOversizedRecord);
        }
        let kind = plain.get(end).copied().map_or(Kind::Other, Kind::of);
        Ok((kind, end))
    }

    /// The nonce of the next record: its number, masked.
    fn nonce(&mut self) -> Option<Nonce> {
        let number = self.number.to_be_bytes();
        self.number = self.number.checked_add(1)?;
        let mut nonce = self.iv;
        let masked = nonce.iter_mut().skip(4);
        masked.zip(number).for_each(|(mask, byte)| *mask ^= byte);
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

/// The header of a sealed record with so many bytes behind it.
fn header(length: usize) -> Option<[u8; HEADER]> {
    let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
    Some([Kind::Application.byte(), 3, 3, high, low])
}

/// The header of the record at the front of `received`, and how many bytes lie behind it; none while
/// it has not come whole.
///
/// # Errors
/// When it is no sealed record, or longer than one may be.
pub(super) fn next(received: &[u8]) -> Result<Option<([u8; HEADER], usize)>, Error> {
    let Some(header) = received.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, _major, _minor, high, low] = *header;
    if kind != Kind::Application.byte() {
        return Err(unexpected());
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(Error::PeerSentOversizedRecord);
    }
    let whole = received.len() >= HEADER + length;
    Ok(whole.then_some((*header, length)))
}

/// Where the record that begins at `from` ends; none while it has not come whole. What is no record
/// at all has no boundaries, and ends where everything does.
pub(super) fn boundary(received: &[u8], from: usize) -> Option<usize> {
    let rest = received.get(from..).unwrap_or_default();
    let [kind, _major, _minor, high, low] = *rest.first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !(20..=23).contains(&kind) || length > LONGEST {
        return Some(received.len());
    }
    let end = from + HEADER + length;
    (end <= received.len()).then_some(end)
}

/// What came is not what may come now.
pub(super) fn unexpected() -> Error {
    Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type: ContentType::Unknown(0),
    }
}

/// The bytes of slices, from an offset into the first.
pub(super) fn pieces<'a>(
    slices: &'a [IoSlice<'a>],
    taken: usize,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    slices.iter().enumerate().map(move |(at, slice)| {
        let from = if at == 0 { taken } else { 0 };
        slice.get(from..).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Key {
        // Of the client's application traffic in RFC 8448 §3.
        let key = hex("17422dda596ed5d9acd890e3c63f5051");
        let iv = hex("5b78923dee08579033e523d9");
        Key {
            aead: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap()),
            iv: iv.try_into().unwrap(),
            number: 0,
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digits).collect()
    }

    /// The one record of that section: fifty bytes, counting.
    const RECORD: &str = "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8\
                          a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";

    #[test]
    fn a_record_is_as_the_rfc_has_it() {
        let plain: Vec<u8> = (0..50).collect();
        let mut into = [0; 200];
        let length = key().seal(Kind::Application, &plain, &mut into).unwrap();
        assert_eq!(into[..length], hex(RECORD));
        let pieces = [&plain[..7], &[], &plain[7..]];
        let sealed = key().seal_pieces(Kind::Application, pieces.into_iter(), &mut into);
        assert_eq!(sealed.unwrap(), (50, length));
        assert_eq!(into[..length], hex(RECORD));
        let (header, behind) = next(&into).unwrap().unwrap();
        let body = &mut into[HEADER..HEADER + behind];
        let opened = key().open(header, body).unwrap();
        assert_eq!(opened, (Kind::Application, 50));
        assert_eq!(body[..50], plain);
    }

    #[test]
    fn numbers_count_and_do_not_repeat() {
        let (mut ours, mut theirs) = (key(), key());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let mut into = [0; 64];
            let length = ours.seal(Kind::Alert, b"x", &mut into).unwrap();
            assert!(seen.insert(into[HEADER..length].to_vec()));
            let (header, behind) = next(&into).unwrap().unwrap();
            let opened = theirs.open(header, &mut into[HEADER..HEADER + behind]);
            assert_eq!(opened.unwrap(), (Kind::Alert, 1));
        }
        let mut last = key();
        last.number = u64::MAX;
        assert!(
            last.seal(Kind::Alert, b"x", &mut [0; 64]).is_err(),
            "none is left"
        );
    }

    #[test]
    fn records_of_a_handshake_are_shown_one_by_one() {
        let two = [22, 3, 1, 0, 2, 9, 9, 20, 3, 3, 0, 1, 1];
        for (name, bytes, from, want) in [
            ("nothing", &two[..0], 0, None),
            ("half a header", &two[..4], 0, None),
            ("half a record", &two[..6], 0, None),
            ("one and a half", &two[..9], 0, Some(7)),
            ("the second", &two[..], 7, Some(13)),
            ("none behind it", &two[..], 13, None),
            ("no record", b"GET / HTTP/1.1", 0, Some(14)),
            ("too long for one", &[22, 3, 3, 0x41, 1, 0][..], 0, Some(6)),
        ] {
            assert_eq!(boundary(bytes, from), want, "{name}");
        }
    }

    #[test]
    fn what_is_no_record_is_told_apart() {
        for (name, bytes, want) in [
            ("nothing", vec![], Ok(None)),
            ("half a header", vec![23, 3, 3], Ok(None)),
            ("no body yet", vec![23, 3, 3, 0, 40], Ok(None)),
            ("in clear", vec![22, 3, 3, 0, 40], Err(unexpected())),
            (
                "too long",
                vec![23, 3, 3, 0x41, 0x01],
                Err(Error::PeerSentOversizedRecord),
            ),
        ] {
            let got = next(&bytes);
            assert_eq!(got, want, "{name}");
        }
    }

    proptest! {
        /// Padding is not content, wherever the content ends in zeros or is nothing at all.
        #[test]
        fn padding_is_taken_off(
            content in proptest::collection::vec(0u8..3, 0..40), padding in 0usize..40,
        ) {
            let mut ours = key();
            let mut inner = content.clone();
            inner.push(23);
            inner.resize(inner.len() + padding, 0);
            let header = header(inner.len() + TAG).unwrap();
            let nonce = ours.nonce().unwrap();
            let sealed = ours.aead.seal_in_place_append_tag(nonce, Aad::from(&header), &mut inner);
            sealed.unwrap();
            let opened = key().open(header, &mut inner);
            prop_assert_eq!(opened, Ok((Kind::Application, content.len())));
            prop_assert_eq!(&inner[..content.len()], &content[..]);
        }

        /// A flipped bit anywhere is noticed.
        #[test]
        fn forgeries_are_refused(at in 0usize..72, bit in 0u8..8) {
            let mut record = hex(RECORD);
            record[at] ^= 1 << bit;
            let whole = match next(&record) {
                Ok(Some((header, behind))) => {
                    key().open(header, &mut record[HEADER..HEADER + behind]).is_ok()
                }
                Ok(None) | Err(_) => false,
            };
            prop_assert!(!whole);
        }
    }
}
