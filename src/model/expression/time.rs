//! Moments as calendars and clocks show them, in UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// A moment after 1970, in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) struct Civil {
    pub(in crate::model) year: u64,
    pub(in crate::model) month: u64,
    pub(in crate::model) day: u64,
    pub(in crate::model) hour: u64,
    pub(in crate::model) minute: u64,
    pub(in crate::model) second: u64,
    pub(in crate::model) nanos: u32,
    /// Seconds since 1970.
    pub(in crate::model) unix: u64,
}

impl From<SystemTime> for Civil {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = since.as_secs();
        let (year, month, day) = date(unix / DAY);
        let second = unix % DAY;
        Self {
            year,
            month,
            day,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
            nanos: since.subsec_nanos(),
            unix,
        }
    }
}

/// The date so many days after 1970 began: years are taken to begin in March, so that the leap day is
/// their last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let from_march = days + 719_468;
    let (era, day) = (from_march / 146_097, from_march % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_month)
}

/// Days from 1970 to a date.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day.checked_sub(1)?;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (era * 146_097 + of_era).checked_sub(719_468)
}

impl fmt::Display for Civil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            nanos,
            ..
        } = self;
        let millis = nanos / 1_000_000;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

/// A moment as RFC 3339 writes it, in UTC and after 1970; none of another text.
pub(super) fn moment(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_once('T')?;
    let (clock, fraction) = match rest.strip_suffix('Z')?.split_once('.') {
        Some((clock, fraction)) => (clock, fraction),
        None => (rest.strip_suffix('Z')?, "0"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let sane = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let digits = fraction.len();
    if !sane || !(1..=9).contains(&digits) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    let seconds = days(year, month, day)? * DAY + hour * 3600 + minute * 60 + second;
    let time = UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))?;
    // The 31st of a shorter month is none.
    (Civil::from(time).day == day).then_some(time)
}

fn numbers(text: &str, by: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split(by);
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        let digital = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit());
        *number = part.parse().ok().filter(|_| digital)?;
    }
    parts.next().is_none().then_some(numbers)
}

/// A span as in `1h30m` or `-1.5s`, in nanoseconds; none of another text.
pub(super) fn span(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 6] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 6e10),
        ("h", 3.6e12),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut nanos = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanos += number.parse::<f64>().ok()? * scale;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let nanos = sign * nanos;
    // The bounds are those of what it becomes.
    #[allow(clippy::cast_possible_truncation, reason = "it is within bounds")]
    (nanos.abs() < 9.2e18).then_some(nanos as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_as_the_calendar_has_them() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_795_718_460, "2026-11-26T18:41:00.000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(Civil::from(time).to_string(), want);
            assert_eq!(moment(want), Some(time), "{want}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "",
            "2026-11-26",
            "2026-11-26T18:41:00",
            "2026-11-31T18:41:00Z",
            "2026-13-01T18:41:00Z",
            "2026-11-26T24:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-26T18:41:00.Z",
            "2026-11-26T18:41:00.1234567890Z",
            "+026-11-26T18:41:00Z",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_added_up() {
        for (text, want) in [
            ("1s", Some(1_000_000_000)),
            ("1h30m", Some(5_400_000_000_000)),
            ("-1.5s", Some(-1_500_000_000)),
            ("250ms", Some(250_000_000)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1x", None),
            ("1s2", None),
            ("99999999999h", None),
        ] {
            assert_eq!(span(text), want, "{text}");
        }
    }
}
