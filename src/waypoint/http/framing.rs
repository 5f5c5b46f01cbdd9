//! Where an HTTP/1 request ends and the next begins (RFC 9112 §2, §6, §7.1), read strictly: what two
//! readers could take for two different things is refused (`spec/waypoint-l7.md` §1.5,
//! `spec/reliability.md` §2 row 31).
//!
//! Nothing here reads or writes; [`super::front`] does.

mod chunked;

use super::fault::Fault;
use crate::waypoint::sniff::is_token;
use chunked::Chunked;

/// Bytes of a head, its request line included.
pub(in crate::waypoint) const HEAD: usize = 60 << 10;
/// Fields of a head.
pub(super) const FIELDS: usize = 100;
/// Bytes of a request line.
pub(super) const LINE: usize = 16 << 10;
/// Empty lines before a request, which old clients leave behind (RFC 9112 §2.2).
const BLANK: usize = 4;

/// A head as far as it has been read. Each byte is looked at once, in however small pieces they come.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Where the line under way begins.
    line: usize,
    /// Up to where no line ends.
    searched: usize,
    blank: usize,
    version: Option<Minor>,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    coding: Coding,
    /// `connection` lists an upgrade, and `upgrade` a WebSocket.
    upgrades: (bool, bool),
}

/// The minor version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Minor {
    Zero,
    One,
}

/// What `transfer-encoding` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Codings that are not ours to undo.
    Unknown,
    /// The same, and chunked last.
    UnknownChunked,
}

/// A head that is whole.
#[derive(Debug)]
pub(super) struct Whole {
    /// Its bytes.
    pub(super) length: usize,
    /// What follows it.
    pub(super) body: Body,
    /// It asks to become a WebSocket: what follows may be no HTTP.
    pub(super) upgrades: bool,
}

/// What follows a head, as far as it has not been seen.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
}

/// A body that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Head {
    /// Goes on reading a head of which `bytes` are what there is, from its beginning.
    ///
    /// # Errors
    /// Why it is refused.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<Whole>, Fault> {
        let rest = |from: usize| bytes.get(from..).unwrap_or_default();
        while let Some(at) = rest(self.searched).iter().position(|b| *b == b'\n') {
            let end = self.searched + at;
            let line = bytes.get(self.line..end).unwrap_or_default();
            (self.line, self.searched) = (end + 1, end + 1);
            if self.line > HEAD {
                return Err(Fault::LargeHead);
            }
            let line = line.strip_suffix(b"\r");
            let line = line.ok_or(Fault::Malformed("a line feed without its carriage return"))?;
            match (self.version, line) {
                (None, []) => self.skip()?,
                (None, line) => self.version = Some(request_line(line)?),
                (Some(version), []) => return self.whole(version, end + 1).map(Some),
                (Some(_), line) => self.field(line)?,
            }
        }
        self.searched = bytes.len();
        let under_way = rest(self.line);
        if self.version.is_none() {
            let first = under_way.first();
            if first.is_some_and(|b| !is_token(*b) && *b != b'\r') {
                return Err(Fault::Malformed("no request line"));
            }
            if under_way.len() > LINE {
                return Err(Fault::LongLine);
            }
        }
        if bytes.len() > HEAD {
            return Err(Fault::LargeHead);
        }
        Ok(None)
    }

    fn skip(&mut self) -> Result<(), Fault> {
        self.blank += 1;
        if self.blank > BLANK {
            return Err(Fault::Malformed("empty lines before a request"));
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.fields += 1;
        if self.fields > FIELDS {
            return Err(Fault::LargeHead);
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Fault::Malformed("a folded line"));
        }
        let colon = line.iter().position(|b| *b == b':');
        let colon = colon.ok_or(Fault::Malformed("a line without a colon"))?;
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Fault::Malformed("a field name that is none"));
        }
        let value = value.get(1..).unwrap_or_default();
        if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(Fault::Malformed("a control character in a field"));
        }
        let value = value.trim_ascii();
        match name.to_ascii_lowercase().as_slice() {
            b"host" => self.hosts += 1,
            b"content-length" => self.length(value)?,
            b"transfer-encoding" => self.codings(value)?,
            b"connection" => self.upgrades.0 |= lists(value, b"upgrade"),
            b"upgrade" => self.upgrades.1 |= lists(value, b"websocket"),
            _ => {}
        }
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Fault> {
        let digits = value.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(value).ok().filter(|_| digits);
        let number = number.and_then(|text| text.parse().ok());
        let length = number.ok_or(Fault::Malformed("a length that is no number"))?;
        match self.length.replace(length) {
            Some(other) if other != length => Err(Fault::Malformed("two lengths")),
            _ => Ok(()),
        }
    }

    fn codings(&mut self, value: &[u8]) -> Result<(), Fault> {
        for coding in value.split(|b| *b == b',') {
            let chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            self.coding = match (self.coding, chunked) {
                (Coding::None, true) => Coding::Chunked,
                (Coding::Unknown, true) => Coding::UnknownChunked,
                (Coding::None | Coding::Unknown, false) => Coding::Unknown,
                (Coding::Chunked | Coding::UnknownChunked, _) => {
                    return Err(Fault::Malformed("a coding after chunked"));
                }
            };
        }
        Ok(())
    }

    fn whole(&self, version: Minor, length: usize) -> Result<Whole, Fault> {
        if self.hosts != 1 {
            return Err(Fault::Malformed("not one host field"));
        }
        let body = match (self.coding, self.length) {
            (Coding::None, length) => Body::Length(length.unwrap_or(0)),
            (_, Some(_)) => return Err(Fault::Malformed("a length and a coding")),
            (_, None) if version == Minor::Zero => {
                return Err(Fault::Malformed("a coding in HTTP/1.0"));
            }
            (Coding::Chunked, None) => Body::Chunked(Chunked::default()),
            (Coding::Unknown, None) => return Err(Fault::Malformed("a body without an end")),
            (Coding::UnknownChunked, None) => return Err(Fault::Coding),
        };
        Ok(Whole {
            length,
            body,
            upgrades: self.upgrades == (true, true) && version == Minor::One,
        })
    }
}

fn request_line(line: &[u8]) -> Result<Minor, Fault> {
    if line.len() > LINE {
        return Err(Fault::LongLine);
    }
    let mut words = line.split(|b| *b == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Fault::Malformed("no request line"));
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Fault::Malformed("a method that is none"));
    }
    let legal = |b: &u8| b.is_ascii_graphic() && *b != b'#';
    if target.is_empty() || !target.iter().all(legal) {
        return Err(Fault::Malformed("a target that is none"));
    }
    match version {
        b"HTTP/1.1" => Ok(Minor::One),
        b"HTTP/1.0" => Ok(Minor::Zero),
        _ => Err(Fault::Malformed("another version")),
    }
}

/// Whether a field's list has a word. Whoever asks whether a request is to become a WebSocket asks this:
/// two answers to it would leave the connection waiting for a decision that nobody makes.
pub(super) fn lists(value: &[u8], wanted: &[u8]) -> bool {
    let mut words = value.split(|b| *b == b',');
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(wanted))
}

impl Body {
    /// Takes note of `bytes` that come next, and tells how many of them are the body's.
    ///
    /// # Errors
    /// When its chunks are none. Nobody knows then where the next request begins.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= here as u64;
                Ok(here)
            }
            Self::Chunked(chunked) => chunked.follow(bytes),
        }
    }

    /// Whether all of it has come.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.has_ended(),
        }
    }
}

#[cfg(test)]
mod tests;
