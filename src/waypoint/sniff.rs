//! Looks at the first bytes of a tunnel without taking them (`spec/waypoint-l7.md` §1.4).

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use crate::hbone::{Tunnel, TunnelError};

/// Bytes looked at to tell HTTP from others: a request line as long as one may be (§1.5).
pub(super) const LARGEST: usize = 16 << 10;
/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longer than any method there is (RFC 9110 §16.1).
const METHOD: usize = 32;

/// What is spoken, as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else.
    Bytes,
}

/// How long to wait for what a client says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first byte.
    pub(super) first: Duration,
    /// From the first byte until enough of them are there.
    pub(super) rest: Duration,
}

/// What first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged<T> {
    /// This, whatever follows.
    Known(T),
    /// Nothing yet.
    Unknown(More),
}

/// What it takes before it is worth while to judge again: who sends a byte at a time is not judged by
/// all of them at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    /// So many bytes in all.
    Bytes(usize),
    /// A byte that is not graphic.
    NotGraphic,
}

impl More {
    /// Whether it is there, when the last `fresh` bytes of `seen` have not been judged.
    fn is_there(self, seen: &[u8], fresh: usize) -> bool {
        match self {
            Self::Bytes(count) => seen.len() >= count,
            Self::NotGraphic => {
                let fresh = seen.get(seen.len().saturating_sub(fresh)..);
                !fresh.unwrap_or(seen).iter().all(u8::is_ascii_graphic)
            }
        }
    }
}

/// Hands what a client says first to `judge`, a larger part each time, until that comes to a
/// verdict. None where the client falls silent or ends before that, or says more than `largest`.
/// Whatever was looked at is read again by whoever reads the tunnel next.
///
/// # Errors
/// When the client resets the tunnel.
///
/// # Cancel safety
/// Dropping the future loses what it had looked at.
pub(super) async fn peek<T>(
    tunnel: &mut Tunnel,
    patience: Patience,
    largest: usize,
    judge: impl Fn(&[u8]) -> Judged<T>,
) -> Result<Option<T>, TunnelError> {
    let mut seen = Seen::default();
    let mut more = More::Bytes(1);
    let mut deadline = Instant::now() + patience.first;
    let verdict = loop {
        let read = poll_fn(|cx| tunnel.poll_read(cx));
        let Ok(read) = timeout_at(deadline, read).await else {
            break None;
        };
        let Some(bytes) = read? else {
            break None;
        };
        if seen.is_empty() {
            deadline = Instant::now() + patience.rest;
        }
        let fresh = bytes.len();
        seen.add(bytes);
        let enough = seen.bytes().len() > largest;
        if !enough && !more.is_there(seen.bytes(), fresh) {
            continue;
        }
        match judge(seen.bytes()) {
            Judged::Known(verdict) => break Some(verdict),
            Judged::Unknown(_) if enough => break None,
            Judged::Unknown(next) => more = next,
        }
    };
    tunnel.unread(seen.freeze());
    Ok(verdict)
}

/// What has been seen; nearly always one piece, which is not copied.
#[derive(Default)]
struct Seen {
    first: Bytes,
    more: BytesMut,
}

impl Seen {
    fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    fn bytes(&self) -> &[u8] {
        match self.more.is_empty() {
            true => &self.first,
            false => &self.more,
        }
    }

    fn add(&mut self, bytes: Bytes) {
        if self.is_empty() {
            self.first = bytes;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(&bytes);
    }

    fn freeze(self) -> Bytes {
        match self.more.is_empty() {
            true => self.first,
            false => self.more.freeze(),
        }
    }
}

/// Tells HTTP/2, HTTP/1 and the rest apart, as soon as the bytes do.
pub(super) fn spoken(bytes: &[u8]) -> Judged<Spoken> {
    let next = Judged::Unknown(More::Bytes(bytes.len() + 1));
    match is_preface(bytes) {
        Some(true) => return Judged::Known(Spoken::Http2),
        None => return next,
        Some(false) => {}
    }
    let mut words = bytes.splitn(3, |b| *b == b' ');
    let method = words.next().unwrap_or_default();
    if method.len() > METHOD || !method.iter().copied().all(is_token) {
        return Judged::Known(Spoken::Bytes);
    }
    let Some(target) = words.next() else {
        return next;
    };
    if method.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Judged::Known(Spoken::Bytes);
    }
    let Some(rest) = words.next() else {
        return Judged::Unknown(More::NotGraphic);
    };
    if target.is_empty() {
        return Judged::Known(Spoken::Bytes);
    }
    // The shorter of the two decides: what is there, or what is wanted.
    let wanted = b"HTTP/1.";
    let equal = rest.iter().zip(wanted).all(|(a, b)| a == b);
    match (equal, rest.len() >= wanted.len()) {
        (false, _) => Judged::Known(Spoken::Bytes),
        (true, true) => Judged::Known(Spoken::Http1),
        (true, false) => next,
    }
}

/// Tells HTTP/2 from HTTP/1 where one of them is spoken.
pub(super) fn http_version(bytes: &[u8]) -> Judged<Spoken> {
    match is_preface(bytes) {
        Some(true) => Judged::Known(Spoken::Http2),
        Some(false) => Judged::Known(Spoken::Http1),
        None => Judged::Unknown(More::Bytes(bytes.len() + 1)),
    }
}

/// Whether it begins as HTTP/2 does; none while it may yet.
fn is_preface(bytes: &[u8]) -> Option<bool> {
    if bytes.iter().zip(PREFACE).any(|(a, b)| a != b) {
        return Some(false);
    }
    (bytes.len() >= PREFACE.len()).then_some(true)
}

/// Whether a byte may be in a token (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
impl<T> Judged<T> {
    /// The verdict, if there is one.
    pub(super) fn known(self) -> Option<T> {
        match self {
            Self::Known(verdict) => Some(verdict),
            Self::Unknown(_) => None,
        }
    }
}

/// After how many of these bytes, which come one by one, there is a verdict, and how often it took a
/// judgement.
#[cfg(test)]
pub(super) fn by_the_byte<T>(bytes: &[u8], judge: impl Fn(&[u8]) -> Judged<T>) -> (usize, usize) {
    let (mut more, mut judged) = (More::Bytes(1), 0);
    for end in 1..=bytes.len() {
        let seen = &bytes[..end];
        if more.is_there(seen, 1) {
            judged += 1;
            match judge(seen) {
                Judged::Known(_) => return (end, judged),
                Judged::Unknown(next) => more = next,
            }
        }
    }
    panic!("no verdict");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_what_is_spoken() {
        let long = [b"GET /".as_slice(), &[b'a'; 9000]].concat();
        for (name, bytes, want) in [
            ("nothing", &b""[..], None),
            ("the preface", PREFACE, Some(Spoken::Http2)),
            ("part of it", b"PRI * HTTP/2.0\r\n", None),
            ("not quite it", b"PRI * HTTP/2.1\r\n", Some(Spoken::Bytes)),
            (
                "a method with its letters",
                b"PRIME / HTTP/1.1",
                Some(Spoken::Http1),
            ),
            ("a request", b"GET / HTTP/1.1\r\n", Some(Spoken::Http1)),
            ("HTTP/1.0", b"GET /a?b HTTP/1.0\r\n", Some(Spoken::Http1)),
            (
                "absolute form",
                b"GET http://a/ HTTP/1.1",
                Some(Spoken::Http1),
            ),
            ("asterisk form", b"OPTIONS * HTTP/1.", Some(Spoken::Http1)),
            (
                "a method of its own",
                b"M-SEARCH * HTTP/1.1",
                Some(Spoken::Http1),
            ),
            ("half a method", b"GE", None),
            ("a method", b"GET ", None),
            ("half a target", b"GET /inde", None),
            ("a long target", &long, None),
            ("half a version", b"GET / HTT", None),
            ("HTTP/0.9", b"GET /\r\n", Some(Spoken::Bytes)),
            (
                "another version",
                b"GET / HTTP/3.0\r\n",
                Some(Spoken::Bytes),
            ),
            ("no target", b"GET  HTTP/1.1\r\n", Some(Spoken::Bytes)),
            ("no method", b" / HTTP/1.1\r\n", Some(Spoken::Bytes)),
            ("SIP", b"INVITE sip:a@b SIP/2.0\r\n", Some(Spoken::Bytes)),
            ("Redis", b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Bytes)),
            ("Redis by hand", b"PING\r\n", Some(Spoken::Bytes)),
            (
                "PostgreSQL",
                &[0, 0, 0, 8, 4, 210, 22, 47],
                Some(Spoken::Bytes),
            ),
            ("TLS", &[0x16, 3, 1, 2, 0], Some(Spoken::Bytes)),
            ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", Some(Spoken::Bytes)),
            ("SMTP", b"EHLO me\r\n", Some(Spoken::Bytes)),
            ("a long word", &[b'A'; METHOD + 1], Some(Spoken::Bytes)),
        ] {
            assert_eq!(spoken(bytes).known(), want, "{name}");
        }
    }

    #[test]
    fn a_verdict_is_no_other_when_more_is_there() {
        for whole in [
            PREFACE,
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"PRIVMSG #a :b\r\n",
        ] {
            let last = spoken(whole).known();
            assert!(last.is_some());
            for end in 0..whole.len() {
                let now = spoken(&whole[..end]).known();
                assert!(now.is_none() || now == last, "after {end}");
            }
        }
    }

    #[test]
    fn a_byte_at_a_time_is_judged_where_it_matters() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(16_000));
        let (after, judged) = by_the_byte(long.as_bytes(), spoken);
        assert_eq!(after, long.len() - "1\r\n".len());
        assert!(judged < 32, "{judged}");
        for whole in [PREFACE, b"PRIME / HTTP/1.1", b"GET /\r\n", b"EHLO me\r\n"] {
            let first = (1..=whole.len()).find(|end| spoken(&whole[..*end]).known().is_some());
            assert_eq!(Some(by_the_byte(whole, spoken).0), first, "as early");
        }
    }

    #[test]
    fn where_http_is_spoken_only_its_version_is_asked() {
        for (bytes, want) in [
            (PREFACE, Some(Spoken::Http2)),
            (b"PRI", None),
            (b"POST", Some(Spoken::Http1)),
            (b"\x16\x03", Some(Spoken::Http1)),
        ] {
            assert_eq!(http_version(bytes).known(), want);
        }
    }
}
