//! Texts, lists, durations and the like.

use std::sync::Arc;
use std::time::Duration;

use super::super::{Fault, Reason};
use crate::model::route::{Fraction, Regex};
use crate::wire::proto::waypoint as proto;

pub(super) const PRESENT: proto::Present = proto::Present {};

pub(super) fn strings(texts: &[Arc<str>]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

pub(super) fn texts(strings: Vec<String>) -> Vec<Arc<str>> {
    strings.into_iter().map(Arc::from).collect()
}

pub(super) fn string(text: Option<&Arc<str>>) -> Option<String> {
    text.map(ToString::to_string)
}

pub(super) fn text(string: Option<String>) -> Option<Arc<str>> {
    string.map(Arc::from)
}

/// Each of a list, or what is wrong with the first that cannot be read.
pub(super) fn each<T, U>(
    field: &str,
    given: Vec<T>,
    read: impl FnMut(T) -> Result<U, Fault>,
) -> Result<Vec<U>, Fault> {
    let read: Result<Vec<U>, Fault> = given.into_iter().map(read).collect();
    read.map_err(|fault| fault.within(field))
}

/// What may be absent.
pub(super) fn maybe<T, U>(
    field: &str,
    given: Option<T>,
    read: impl FnOnce(T) -> Result<U, Fault>,
) -> Result<Option<U>, Fault> {
    let read = given.map(read).transpose();
    read.map_err(|fault| fault.within(field))
}

/// What must be there.
pub(super) fn given<T>(field: &str, given: Option<T>) -> Result<T, Fault> {
    given.ok_or_else(|| Fault::new(field, Reason::Missing))
}

/// What must be there and be readable.
pub(super) fn part<T, U>(
    field: &str,
    message: Option<T>,
    read: impl FnOnce(T) -> Result<U, Fault>,
) -> Result<U, Fault> {
    read(given(field, message)?).map_err(|fault| fault.within(field))
}

/// Durations end where protobuf's do.
pub(super) fn lasting(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        // Below a thousand millions.
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn duration(
    field: &str,
    given: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Fault> {
    let read = |given: prost_types::Duration| {
        let seconds = u64::try_from(given.seconds).ok()?;
        let nanos = u32::try_from(given.nanos)
            .ok()
            .filter(|n| *n < 1_000_000_000)?;
        Some(Duration::new(seconds, nanos))
    };
    match given.map(read) {
        None => Ok(None),
        Some(Some(duration)) => Ok(Some(duration)),
        Some(None) => Err(Fault::new(field, Reason::Duration)),
    }
}

pub(super) fn for_so_long(
    field: &str,
    given: Option<prost_types::Duration>,
) -> Result<Duration, Fault> {
    duration(field, given)?.ok_or_else(|| Fault::new(field, Reason::Missing))
}

pub(super) fn number(field: &str, value: u32) -> Result<u16, Fault> {
    u16::try_from(value).map_err(|_too_large| Fault::new(field, Reason::TooLarge(value)))
}

pub(super) fn finite(field: &str, value: f64) -> Result<f64, Fault> {
    match value.is_finite() {
        true => Ok(value),
        false => Err(Fault::new(field, Reason::NoNumber)),
    }
}

pub(super) fn regex(field: &str, source: &str) -> Result<Regex, Fault> {
    Regex::new(source).map_err(|e| Fault::new(field, Reason::Pattern(e)))
}

pub(super) fn encode_fraction(share: Fraction) -> proto::Fraction {
    proto::Fraction {
        numerator: share.numerator,
        denominator: share.denominator,
    }
}

pub(super) fn fraction(share: proto::Fraction) -> Result<Fraction, Fault> {
    if share.denominator == 0 {
        return Err(Fault::new("denominator", Reason::NoNumber));
    }
    Ok(Fraction {
        numerator: share.numerator,
        denominator: share.denominator,
    })
}

/// Refuses a layout of another version.
pub(super) fn format(given: u32) -> Result<(), Fault> {
    match given {
        super::FORMAT => Ok(()),
        other => Err(Fault::new("format", Reason::Unsupported(other.to_string()))),
    }
}
