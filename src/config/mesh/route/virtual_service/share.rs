//! `percentage`: which share of all requests.

use crate::config::read::Value;
use crate::model::route::Fraction;

/// The smallest share is one of so many (§3.3).
const FINEST: u32 = 1_000_000;

/// `{ value = 12.5 }`, in percent.
pub(super) fn read(value: &Value<'_>) -> Option<Fraction> {
    let table = value.nested()?;
    let share = table.required("value", "value = 12.5", |value| {
        let percent = value.decimal(0.0..=100.0)?;
        let numerator = parts(percent);
        if numerator == 0 && percent > 0.0 {
            value.bad(
                "is less than the smallest share there is",
                "too small",
                "write `0.0001` or more, or `0`",
            );
            return None;
        }
        Some(Fraction {
            numerator,
            denominator: FINEST,
        })
    });
    table.finish();
    share
}

/// A share in percent as parts of [`FINEST`].
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 1,000,000"
)]
fn parts(percent: f64) -> u32 {
    (percent * f64::from(FINEST) / 100.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn shares_are_counted_in_millionths() {
        for (percent, want) in [
            (0.0, 0),
            (100.0, 1_000_000),
            (12.5, 125_000),
            (0.1, 1_000),
            (0.0001, 1),
            (0.000_04, 0),
            (33.3333, 333_333),
        ] {
            assert_eq!(parts(percent), want, "{percent}");
        }
    }
}
