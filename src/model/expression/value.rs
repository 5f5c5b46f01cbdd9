//! What expressions come to.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::time::{Duration, SystemTime};

use super::attribute::Fields;
use super::time::Civil;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A moment.
    Time(SystemTime),
    /// A list.
    List(Vec<Self>),
    /// What is looked up by name.
    Fields(Fields),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl Value<'_> {
    /// A text made for it.
    pub(super) fn owned(what: impl ToString) -> Self {
        Self::Text(Cow::Owned(what.to_string()))
    }

    pub(super) fn count(count: u64) -> Self {
        Self::Int(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn duration(duration: Duration) -> Self {
        Self::Duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Duration(_) => "duration",
            Self::Time(_) => "timestamp",
            Self::List(_) => "list",
            Self::Fields(_) => "map",
        }
    }

    /// Which is first; none of two that cannot be compared.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) | (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Double(b)) => double(*a).partial_cmp(b),
            (Self::Double(a), Self::Int(b)) => a.partial_cmp(&double(*b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Whether both are the same; what cannot be compared is not.
    pub(super) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
            }
            (a, b) => a.compare(b) == Some(Ordering::Equal),
        }
    }
}

/// The nearest number that has decimals.
#[allow(clippy::cast_precision_loss, reason = "it is what the language does")]
pub(super) fn double(int: i64) -> f64 {
    int as f64
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(text),
            Self::Duration(nanos) => seconds(*nanos, f),
            Self::Time(time) => write!(f, "{}", Civil::from(*time)),
            Self::List(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_str("]")
            }
            Self::Fields(_) => f.write_str("{}"),
        }
    }
}

/// As in `1.5s`.
fn seconds(nanos: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, rest) = (
        nanos.unsigned_abs() / 1_000_000_000,
        nanos.unsigned_abs() % 1_000_000_000,
    );
    if rest == 0 {
        return write!(f, "{sign}{whole}s");
    }
    let rest = format!("{rest:09}");
    write!(f, "{sign}{whole}.{}s", rest.trim_end_matches('0'))
}
