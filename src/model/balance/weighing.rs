//! Picks by chance (`spec/waypoint-l7.md` §3.4). What is drawn is handed in.

/// The place that a draw from 0 to 1 falls on, where each has its share; none without any.
pub fn weighted<I>(shares: I, draw: f64) -> Option<usize>
where
    I: IntoIterator<Item = u32>,
    I::IntoIter: Clone,
{
    let shares = shares.into_iter();
    let sum: f64 = shares.clone().map(f64::from).sum();
    let mut left = draw * sum;
    let mut last = None;
    for (place, share) in shares.enumerate().filter(|(_, share)| *share > 0) {
        last = Some(place);
        left -= f64::from(share);
        if left < 0.0 {
            break;
        }
    }
    last
}

/// Of two that are drawn, each by its share, the place of the one with less to do for its share; the
/// first where they are even, so that those with nothing to do are picked by their shares. `busy` are share and requests under way.
pub fn least(busy: &[(u32, u32)], draws: [f64; 2]) -> Option<usize> {
    let [one, other] = draws;
    let shares = || busy.iter().map(|(share, _)| *share).enumerate();
    let one = weighted(shares().map(|(_, share)| share), one)?;
    // Drawn twice, one would be compared with itself.
    let rest = shares().map(|(place, share)| if place == one { 0 } else { share });
    let rest: Vec<_> = rest.collect();
    let Some(other) = weighted(rest, other) else {
        return Some(one);
    };
    let load = |place: usize| {
        let (share, under_way) = busy.get(place).copied().unwrap_or((1, u32::MAX));
        f64::from(under_way) / f64::from(share)
    };
    Some(if load(other) < load(one) { other } else { one })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_draw_falls_on_a_share() {
        for (name, shares, draw, want) in [
            ("the first", &[1, 1][..], 0.0, Some(0)),
            ("the second", &[1, 1], 0.5, Some(1)),
            ("the end", &[1, 1], 0.999, Some(1)),
            ("beyond", &[1, 0], 1.0, Some(0)),
            ("a big one", &[1, 9], 0.11, Some(1)),
            ("none before", &[0, 1], 0.0, Some(1)),
            ("huge", &[u32::MAX, u32::MAX], 0.6, Some(1)),
            ("no shares", &[0, 0], 0.5, None),
            ("nobody", &[], 0.5, None),
        ] {
            assert_eq!(weighted(shares.iter().copied(), draw), want, "{name}");
        }
    }

    #[test]
    fn of_two_the_one_with_less_to_do() {
        for (name, busy, draws, want) in [
            ("alone", &[(1, 9)][..], [0.9, 0.9], Some(0)),
            ("less", &[(1, 5), (1, 4)], [0.0, 0.0], Some(1)),
            ("less, drawn first", &[(1, 5), (1, 4)], [0.9, 0.0], Some(1)),
            ("even", &[(1, 5), (1, 5)], [0.0, 0.0], Some(0)),
            ("for its share", &[(1, 2), (4, 6)], [0.0, 0.0], Some(1)),
            (
                "never compared with itself",
                &[(1, 5), (1, 0), (1, 9)],
                [0.0, 0.99],
                Some(0),
            ),
            ("nobody", &[], [0.5, 0.5], None),
        ] {
            assert_eq!(least(busy, draws), want, "{name}");
        }
    }

    proptest! {
        /// The busiest of several is never picked: it is compared with another, which has less to do.
        #[test]
        fn the_busiest_is_left_alone(others in proptest::collection::vec(0u32..9, 1..9), draws in any::<(u32, u32)>()) {
            let mut busy: Vec<_> = others.into_iter().map(|n| (1, n)).collect();
            busy.push((1, 10));
            let draw = |n: u32| f64::from(n) / (f64::from(u32::MAX) + 1.0);
            let picked = least(&busy, [draw(draws.0), draw(draws.1)]);
            prop_assert!(picked.is_some_and(|place| place + 1 < busy.len()));
        }
    }
}
