//! Follows a body in chunks to its end (RFC 9112 §7.1).

use super::Broken;

/// Bytes of one size line, its extensions included, and of all trailers.
const LINE: usize = 16 << 10;
/// Hexadecimal digits of a size that fits in 64 bits.
const DIGITS: u8 = 16;

/// Where in its chunks a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataEnd,
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastEnd,
    End,
}

/// A body in chunks, as far as it has come.
#[derive(Debug)]
pub(in crate::waypoint::http) struct Chunked {
    at: At,
    /// Bytes of the lines since the last data.
    spent: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { at: SIZE, spent: 0 }
    }
}

const SIZE: At = At::Size { digits: 0, size: 0 };

impl Chunked {
    pub(super) fn has_ended(&self) -> bool {
        self.at == At::End
    }

    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut rest = bytes;
        while !self.has_ended() {
            if let At::Data { left } = self.at {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                self.at = match left - here as u64 {
                    0 => At::DataReturn,
                    left => At::Data { left },
                };
                self.spent = 0;
                if rest.is_empty() {
                    break;
                }
            }
            let Some((byte, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            self.spent += 1;
            if self.spent > LINE {
                return Err(Broken);
            }
            self.at = self.at.after(*byte).ok_or(Broken)?;
        }
        Ok(bytes.len() - rest.len())
    }
}

impl At {
    /// Where it is after one byte more.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { digits: 1.., size }, b'\r') => Self::SizeEnd { size },
            (Self::Size { digits: 1.., size }, b';' | b' ' | b'\t') => Self::Extension { size },
            (Self::Size { digits, size }, _) if digits < DIGITS => Self::Size {
                digits: digits + 1,
                size: size << 4 | u64::from(char::from(byte).to_digit(16)?),
            },
            (Self::Extension { size }, b'\r') => Self::SizeEnd { size },
            (Self::Extension { size }, _) if byte == b'\t' || !byte.is_ascii_control() => {
                Self::Extension { size }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::TrailerStart,
            (Self::SizeEnd { size: left }, b'\n') => Self::Data { left },
            (Self::DataReturn, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => SIZE,
            (Self::TrailerStart, b'\r') => Self::LastEnd,
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerStart | Self::Trailer, _) if byte != b'\n' => Self::Trailer,
            (Self::TrailerEnd, b'\n') => Self::TrailerStart,
            (Self::LastEnd, b'\n') => Self::End,
            _ => return None,
        })
    }
}
