//! Where requests go when those who are nearest fail (`spec/waypoint-l7.md` §3.6).

/// How much of its share a level may lose before the next one gets any, in percent: Envoy's
/// overprovisioning factor.
const FACTOR: u32 = 140;

/// Of how many endpoints how many can be used.
type Count = (usize, usize);

/// The share in percent that each level could take.
fn capacities(levels: &[Count]) -> impl Iterator<Item = u32> {
    levels.iter().map(|(usable, all)| {
        let (usable, all) = (u64::try_from(*usable), u64::try_from(*all));
        let (usable, all) = (usable.unwrap_or(u64::MAX), all.unwrap_or(u64::MAX));
        let share = u64::from(FACTOR).saturating_mul(usable).checked_div(all);
        let share = u32::try_from(share.unwrap_or_default().min(100)).unwrap_or(100);
        // One of very many is somebody.
        share.max(u32::from(usable > 0 && all > 0))
    })
}

/// The share in percent of each level, the nearest first: as much as it can take, and the rest spills.
/// All are 0 where nobody can be used.
pub fn shares(levels: &[Count]) -> Vec<u32> {
    let all: u32 = capacities(levels).sum();
    let all = all.min(100);
    let mut left = 100;
    let mut shares: Vec<u32> = capacities(levels)
        .map(|capacity| {
            // Where they cannot take everything together, each takes more than it should.
            let share = (capacity * 100).checked_div(all).unwrap_or(0).min(left);
            left -= share;
            share
        })
        .collect();
    // What rounding has lost goes to the nearest.
    if let Some(first) = shares.iter_mut().find(|share| **share > 0) {
        *first += left;
    }
    shares
}

/// The level that a draw from 0 to 1 falls on; none where nobody can be used.
pub fn level(levels: &[Count], draw: f64) -> Option<usize> {
    super::weighted(shares(levels), draw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_level_cannot_take_spills() {
        for (name, levels, want) in [
            ("all well", &[(3, 3), (3, 3)][..], &[100, 0][..]),
            ("a few ill", &[(72, 100), (1, 1)], &[100, 0]),
            ("half ill", &[(5, 10), (5, 5)], &[70, 30]),
            ("all ill", &[(0, 10), (5, 5)], &[0, 100]),
            ("nobody there", &[(0, 0), (5, 5)], &[0, 100]),
            ("over three", &[(2, 10), (3, 10), (4, 4)], &[28, 42, 30]),
            ("not enough together", &[(2, 10), (2, 10)], &[50, 50]),
            ("rounded", &[(1, 10), (1, 10), (1, 10)], &[34, 33, 33]),
            ("one of many", &[(1, 1000)], &[100]),
            ("nobody", &[(0, 3), (0, 0)], &[0, 0]),
            ("none", &[], &[]),
        ] {
            assert_eq!(shares(levels), want, "{name}");
        }
    }

    #[test]
    fn a_draw_falls_on_a_level() {
        let levels = [(5, 10), (5, 5)];
        for (draw, want) in [(0.0, 0), (0.699, 0), (0.701, 1), (0.999, 1)] {
            assert_eq!(level(&levels, draw), Some(want), "{draw}");
        }
        assert_eq!(level(&[(0, 3)], 0.5), None);
    }

    proptest! {
        #[test]
        fn shares_are_all_or_nothing(levels in proptest::collection::vec((0usize..50, 0usize..50), 0..6)) {
            let levels: Vec<_> = levels.into_iter().map(|(a, b)| (a.min(b), b)).collect();
            let shares = shares(&levels);
            let any = levels.iter().any(|(usable, _)| *usable > 0);
            prop_assert_eq!(shares.iter().sum::<u32>(), if any { 100 } else { 0 });
            for (share, (usable, _)) in shares.iter().zip(&levels) {
                prop_assert!(*usable > 0 || *share == 0);
            }
        }
    }
}
