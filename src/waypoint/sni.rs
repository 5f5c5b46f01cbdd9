//! Whom a TLS client asks for: the server name in its ClientHello (RFC 8446 §4.1.2, RFC 6066 §3).
//! It is looked at and never answered: the TLS is the programs' own.

use super::sniff::{Judged, More};

/// Bytes looked at for a ClientHello (`spec/waypoint-l7.md` §2.8).
pub(super) const LARGEST: usize = 16 << 10;
/// Longest host name there is (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// What a client's first bytes are, as TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// A ClientHello that asks for a host, its name in lower case.
    Names(String),
    /// A ClientHello that asks for nobody.
    NamesNobody,
    /// Not a ClientHello, too large a one, or not in time.
    Unreadable,
}

impl Hello {
    /// The host it asks for.
    pub(super) fn server_name(&self) -> Option<&str> {
        match self {
            Self::Names(host) => Some(host),
            Self::NamesNobody | Self::Unreadable => None,
        }
    }
}

/// Reads a ClientHello; unknown while it is not whole.
pub(super) fn read(bytes: &[u8]) -> Judged<Hello> {
    let message = match handshake(bytes) {
        Fragments::Whole(message) => message,
        Fragments::Partial(least) if bytes.len() <= LARGEST => {
            return Judged::Unknown(More::Bytes(least));
        }
        Fragments::Partial(_) | Fragments::Foreign => return Judged::Known(Hello::Unreadable),
    };
    Judged::Known(match server_name(&message) {
        Ok(Some(name)) => Hello::Names(name),
        Ok(None) => Hello::NamesNobody,
        Err(Malformed) => Hello::Unreadable,
    })
}

/// The first handshake message, put together from its records.
enum Fragments {
    Whole(Vec<u8>),
    /// It takes at least so many bytes before there is more to say.
    Partial(usize),
    Foreign,
}

fn handshake(bytes: &[u8]) -> Fragments {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const HEADER: usize = 5;
    let mut message = Vec::new();
    let mut records = Cursor(bytes);
    // Of the last record.
    let mut absent = 0;
    loop {
        // Of the message, or of its own head while that is not there.
        let mut missing = match message.len() {
            0 => 1,
            some => 4usize.saturating_sub(some),
        };
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Fragments::Foreign;
        }
        if let Some(length) = message.get(1..4) {
            let length = length.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            if length > LARGEST {
                return Fragments::Foreign;
            }
            if let Some(body) = message.get(4..4 + length) {
                return Fragments::Whole(body.to_vec());
            }
            missing = 4 + length - message.len();
        }
        if absent > 0 {
            let header = if absent < missing { HEADER } else { 0 };
            return Fragments::Partial(bytes.len() + header + missing);
        }
        let (kind, version) = (records.0.first(), records.0.get(1));
        if kind.is_some_and(|kind| *kind != HANDSHAKE) || version.is_some_and(|v| *v != 3) {
            return Fragments::Foreign;
        }
        let Some([_, _, _, high, low]) = records.0.first_chunk() else {
            let begun = bytes.len() - records.0.len();
            return Fragments::Partial(begun + HEADER + missing);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // An empty one would say nothing, for ever (RFC 8446 §5.1).
        if length == 0 || length > LARGEST {
            return Fragments::Foreign;
        }
        let rest = records.0.get(HEADER..).unwrap_or_default();
        // What is there of a record that is not whole may tell already.
        let part = rest.get(..length.min(rest.len())).unwrap_or_default();
        message.extend_from_slice(part);
        records.0 = rest.get(part.len()..).unwrap_or_default();
        absent = length - part.len();
    }
}

/// Its lengths do not fit each other, or its name is none.
struct Malformed;

fn server_name(body: &[u8]) -> Result<Option<String>, Malformed> {
    const SERVER_NAME: u16 = 0;
    let mut hello = Cursor(body);
    // The version, and what is random.
    hello.take(2 + 32)?;
    let _session = hello.vector8()?;
    let _suites = hello.vector16()?;
    let _compression = hello.vector8()?;
    if hello.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Cursor(hello.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let extension = extensions.vector16()?;
        if kind == SERVER_NAME {
            return host_name(extension);
        }
    }
    Ok(None)
}

fn host_name(extension: &[u8]) -> Result<Option<String>, Malformed> {
    const HOST_NAME: u8 = 0;
    let mut names = Cursor(Cursor(extension).vector16()?);
    while !names.0.is_empty() {
        let [kind] = *names.take(1)? else {
            return Err(Malformed);
        };
        let name = names.vector16()?;
        if kind == HOST_NAME {
            return legal(name).map(Some);
        }
    }
    Ok(None)
}

/// A name as hosts have them: it goes into logs and is compared with what is configured.
fn legal(name: &[u8]) -> Result<String, Malformed> {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.iter().all(fits) {
        return Err(Malformed);
    }
    Ok(String::from_utf8_lossy(name).to_ascii_lowercase())
}

/// What is left of a message.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = left;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?.try_into().map_err(|_short| Malformed)?;
        Ok(u16::from_be_bytes(bytes))
    }

    fn vector8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.take(1)?.first().copied().ok_or(Malformed)?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests;
