//! How much of its share a new endpoint gets (`spec/waypoint-l7.md` §3.4, `warmup`).

use std::time::Duration;

use crate::model::traffic::Warmup;

/// The part of its share, above 0 and up to 1, for one that has been there for so long.
pub fn warmth(warmup: &Warmup, age: Duration) -> f64 {
    if age >= warmup.duration {
        return 1.0;
    }
    let time = age.as_secs_f64() / warmup.duration.as_secs_f64();
    let part = time.powf(1.0 / warmup.aggression);
    // Without anything it would never warm up.
    part.max(warmup.minimum_percent / 100.0).clamp(0.01, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_endpoint_grows_into_its_share() {
        for (name, minimum_percent, aggression, seconds, want) in [
            ("begins small", 10.0, 1.0, 0, 0.1),
            ("stays small", 10.0, 1.0, 2, 0.1),
            ("in line with time", 10.0, 1.0, 15, 0.5),
            ("steeply", 10.0, 2.0, 9, (0.3_f64).sqrt()),
            ("never nothing", 0.0, 1.0, 0, 0.01),
            ("grown", 10.0, 1.0, 30, 1.0),
            ("old", 10.0, 1.0, 3000, 1.0),
        ] {
            let warmup = Warmup {
                duration: Duration::from_secs(30),
                minimum_percent,
                aggression,
            };
            let got = warmth(&warmup, Duration::from_secs(seconds));
            assert!((got - want).abs() < 1e-9, "{name}: {got}");
        }
    }
}
