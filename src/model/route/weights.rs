//! Which backend of a rule a request goes to (`spec/waypoint-l7.md` §2.6).

use super::{Backend, Rule, Target};

/// The backend within whose share a draw, evenly from 0 to below 1, falls. `None` where nobody has
/// one.
pub fn backend(rule: &Rule<Target>, draw: f64) -> Option<&Backend<Target>> {
    let sum: f64 = rule.backends.iter().map(share).sum();
    let mut left = draw * sum;
    let mut last = None;
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        left -= share(backend);
        last = Some(backend);
        if left < 0.0 {
            break;
        }
    }
    last
}

fn share(backend: &Backend<Target>) -> f64 {
    f64::from(backend.weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route::testing::{name, weighted};

    /// Name, backends with their weights, and how often each is picked.
    type Row<'a> = (&'a str, &'a [(&'a str, u32)], &'a [(&'a str, usize)]);

    #[test]
    fn each_has_its_share_of_the_draws() {
        let rows: [Row<'_>; 8] = [
            (
                "18",
                &[("v1", 70), ("v2", 30), ("v3", 0)],
                &[("v1", 7000), ("v2", 3000)],
            ),
            (
                "18 in another order",
                &[("v3", 0), ("v2", 30), ("v1", 70)],
                &[("v1", 7000), ("v2", 3000)],
            ),
            (
                "20, 35",
                &[("v1", 1), ("v2", 1), ("v3", 0)],
                &[("v1", 5000), ("v2", 5000)],
            ),
            ("one takes all", &[("v1", 0), ("v2", 7)], &[("v2", 10_000)]),
            ("19 all are 0", &[("v1", 0), ("v2", 0)], &[]),
            ("19 nobody", &[], &[]),
            (
                "the largest",
                &[("v1", 1_000_000), ("v2", 1_000_000)],
                &[("v1", 5000), ("v2", 5000)],
            ),
            (
                "thirds",
                &[("a", 1), ("b", 1), ("c", 1)],
                &[("a", 3334), ("b", 3333), ("c", 3333)],
            ),
        ];
        for (row, backends, want) in rows {
            let rule = weighted(vec![], backends);
            let draws = (0..10_000).map(|n| f64::from(n) / 10_000.0);
            let picked: Vec<String> = draws.filter_map(|d| backend(&rule, d)).map(name).collect();
            let sum: usize = want.iter().map(|(_, n)| n).sum();
            assert_eq!(picked.len(), sum, "{row}");
            for (name, want) in want {
                let got = picked.iter().filter(|p| p == name).count();
                assert!(got.abs_diff(*want) <= 1, "{row}: {name} {got}");
            }
        }
    }

    #[test]
    fn the_last_draw_is_somebodys() {
        let rule = weighted(vec![], &[("v1", 1), ("v2", 999_999), ("v3", 0)]);
        for draw in [1.0_f64.next_down(), 1.0] {
            assert_eq!(
                backend(&rule, draw).map(name).as_deref(),
                Some("v2"),
                "{draw}"
            );
        }
    }
}
