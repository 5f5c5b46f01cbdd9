//! How the time of a record is written.

use std::fmt::Write as _;
use std::str::Chars;
use std::time::SystemTime;

use super::FormatError;
use crate::model::expression::Civil;

/// The form that Envoy has.
const USUAL: [Piece; 13] = [
    Piece::Year,
    Piece::Sign('-'),
    Piece::Month,
    Piece::Sign('-'),
    Piece::Day,
    Piece::Sign('T'),
    Piece::Hour,
    Piece::Sign(':'),
    Piece::Minute,
    Piece::Sign(':'),
    Piece::Second,
    Piece::Sign('.'),
    Piece::Fraction(3),
];

/// A time in pieces; always in UTC.
#[derive(Debug)]
pub(super) struct Stamp(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Seconds since 1970.
    Unix,
    /// So many digits of the second's fraction.
    Fraction(usize),
    Sign(char),
}

impl Stamp {
    pub(super) fn usual() -> Self {
        let mut pieces = USUAL.to_vec();
        pieces.push(Piece::Sign('Z'));
        Self(pieces)
    }

    /// Reads a form in `strftime`'s terms.
    pub(super) fn parse(format: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                pieces.push(Piece::Sign(c));
                continue;
            }
            pieces.extend(directive(&mut chars)?);
        }
        Ok(Self(pieces))
    }

    pub(super) fn of(&self, time: SystemTime) -> String {
        let civil = Civil::from(time);
        let mut text = String::with_capacity(24);
        for piece in &self.0 {
            // Writing to a string does not fail.
            let _infallible = match piece {
                Piece::Year => write!(text, "{:04}", civil.year),
                Piece::Month => write!(text, "{:02}", civil.month),
                Piece::Day => write!(text, "{:02}", civil.day),
                Piece::Hour => write!(text, "{:02}", civil.hour),
                Piece::Minute => write!(text, "{:02}", civil.minute),
                Piece::Second => write!(text, "{:02}", civil.second),
                Piece::Unix => write!(text, "{}", civil.unix),
                Piece::Fraction(digits) => {
                    let nanos = format!("{:09}", civil.nanos);
                    write!(text, "{}", nanos.get(..*digits).unwrap_or(&nanos))
                }
                Piece::Sign(sign) => write!(text, "{sign}"),
            };
        }
        text
    }
}

/// What a percent sign and what follows it stand for.
fn directive(chars: &mut Chars<'_>) -> Result<Vec<Piece>, FormatError> {
    let unknown = |text: String| FormatError::Time(format!("%{text}"));
    let of = chars.next();
    Ok(match of {
        Some('Y') => vec![Piece::Year],
        Some('m') => vec![Piece::Month],
        Some('d') => vec![Piece::Day],
        Some('H') => vec![Piece::Hour],
        Some('M') => vec![Piece::Minute],
        Some('S') => vec![Piece::Second],
        Some('s') => vec![Piece::Unix],
        Some('f') => vec![Piece::Fraction(9)],
        Some('%') => vec![Piece::Sign('%')],
        Some('F') => USUAL[..5].to_vec(),
        Some('T') => USUAL[6..11].to_vec(),
        Some('z') => "+0000".chars().map(Piece::Sign).collect(),
        Some(digit @ '1'..='9') => match chars.next() {
            Some('f') => vec![Piece::Fraction(digit as usize - '0' as usize)],
            other => return Err(unknown(format!("{digit}{}", String::from_iter(other)))),
        },
        other => return Err(unknown(String::from_iter(other))),
    })
}
