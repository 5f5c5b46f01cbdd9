//! Reads formats.

use http::HeaderName;

use super::operator::{BRACKETED, Field, Operator, SIMPLE};
use super::stamp::Stamp;
use super::{FormatError, Part};
use crate::model::expression::Expression;

/// The parts of a text. One end of line at its end is everybody's, and not of it.
pub(super) fn parts(source: &str) -> Result<Vec<Part>, FormatError> {
    let source = source.strip_suffix('\n').unwrap_or(source);
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    while let Some(at) = rest.find('%') {
        literal.push_str(rest.get(..at).unwrap_or_default());
        let after = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let open = || {
            let before = source.len() - after.len() - 1;
            let characters = source.get(..before).unwrap_or_default().chars();
            FormatError::Open(characters.count())
        };
        let written = Written::read(after).ok_or_else(open)?;
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(Part::Said(written.operator()?));
        rest = after.get(written.length..).unwrap_or_default();
    }
    literal.push_str(rest);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

/// An operator as it is written: `NAME`, `NAME(…)` or `NAME(…):9`.
struct Written<'a> {
    name: &'a str,
    bracketed: Option<&'a str>,
    most: Option<&'a str>,
    /// With the sign at its end.
    length: usize,
}

impl<'a> Written<'a> {
    /// What follows the sign that begins it.
    fn read(text: &'a str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let (name, after) = text.split_at(end);
        if let Some(rest) = after.strip_prefix('(') {
            // Signs and brackets within belong to what is in it: it ends where an operator can.
            let ends = rest.match_indices(')').map(|(at, _)| at);
            for at in ends {
                let tail = rest.get(at + 1..)?;
                let (most, length) = match tail.strip_prefix(':') {
                    Some(digits) => {
                        let sign = digits.find('%')?;
                        (digits.get(..sign), sign + 1)
                    }
                    None => (None, 0),
                };
                let digital = most.is_none_or(|m| m.bytes().all(|b| b.is_ascii_digit()));
                if digital && tail.get(length..)?.starts_with('%') {
                    return Some(Self {
                        name,
                        bracketed: rest.get(..at),
                        most,
                        length: end + 1 + at + 1 + length + 1,
                    });
                }
            }
            return None;
        }
        after.starts_with('%').then_some(Self {
            name,
            bracketed: None,
            most: None,
            length: end + 1,
        })
    }

    fn operator(&self) -> Result<Operator, FormatError> {
        let simple = SIMPLE.iter().find(|(name, _)| *name == self.name);
        if let Some((_, simple)) = simple {
            return match (self.bracketed, self.most) {
                (None, None) => Ok(Operator::Simple(*simple)),
                _ => Err(FormatError::Unknown(self.whole())),
            };
        }
        let known = BRACKETED.iter().find(|(name, _)| *name == self.name);
        let Some((_, example)) = known else {
            return Err(FormatError::Unknown(self.whole()));
        };
        let wrong = || FormatError::Argument {
            name: self.whole(),
            example,
        };
        let most = self
            .most
            .map(|digits| digits.parse().map_err(|_none| wrong()));
        let most = most.transpose()?;
        match (self.name, self.bracketed) {
            ("START_TIME", None) => Ok(Operator::StartTime(Stamp::usual())),
            ("START_TIME", Some(format)) if most.is_none() => {
                Ok(Operator::StartTime(Stamp::parse(format)?))
            }
            ("CEL", Some(text)) => {
                let expression = Expression::parse(text);
                let expression = expression.map_err(|source| FormatError::Expression {
                    text: text.to_owned(),
                    source,
                })?;
                Ok(Operator::Cel(expression, most))
            }
            (name, Some(fields)) => {
                let (field, or) = match fields.split_once('?') {
                    Some((field, or)) => (field, Some(or)),
                    None => (fields, None),
                };
                let field = field_of(field).ok_or_else(wrong)?;
                let or = or.map(|or| field_of(or).ok_or_else(wrong)).transpose()?;
                match name {
                    "REQ" => Ok(Operator::Request(field, or, most)),
                    "RESP" => Ok(Operator::Response(field, or, most)),
                    "TRAILER" => Ok(Operator::Trailer(field, or, most)),
                    _ => Err(wrong()),
                }
            }
            (_, None) => Err(wrong()),
        }
    }

    fn whole(&self) -> String {
        let bracketed = self.bracketed.map(|b| format!("({b})"));
        let most = self.most.map(|m| format!(":{m}"));
        let (bracketed, most) = (bracketed.unwrap_or_default(), most.unwrap_or_default());
        format!("{}{bracketed}{most}", self.name)
    }
}

fn field_of(name: &str) -> Option<Field> {
    let name = name.to_ascii_lowercase();
    Some(match name.as_str() {
        ":method" => Field::Method,
        ":path" => Field::Path,
        ":authority" => Field::Authority,
        ":scheme" => Field::Scheme,
        ":status" => Field::Status,
        name => Field::Named(HeaderName::from_bytes(name.as_bytes()).ok()?),
    })
}
