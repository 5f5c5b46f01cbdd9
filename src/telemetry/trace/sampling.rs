//! Which share of traces is kept where nobody has decided (`spec/waypoint-l7.md` §6.4).

use super::context::TraceId;

/// Parts that all traces are divided into: steps of 0.01 %.
const PARTS: u16 = 10_000;

/// A share of all traces, in steps of 0.01 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u16);

impl Share {
    /// So many hundredths of a percent; all, where there are more.
    pub fn hundredths(of_percent: u16) -> Self {
        Self(of_percent.min(PARTS))
    }

    /// Whether a trace is kept. Everybody who keeps this share keeps the same traces.
    pub fn keeps(self, trace: TraceId) -> bool {
        // Those that others made may be random in their last 56 bits alone (W3C level 2, §3.2.2.3.1);
        // 64 bits by a share, of which the whole part is below it as often as is asked for.
        let [.., a, b, c, d, e, f, g] = trace.bytes();
        let random = u64::from_be_bytes([0, a, b, c, d, e, f, g]);
        let part = (u128::from(random) * u128::from(PARTS)) >> 56;
        part < u128::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_traces_is_kept() {
        let count = 100_000_u32;
        for hundredths in [0, 1, 100, 5_000, 9_999, 10_000, u16::MAX] {
            let share = Share::hundredths(hundredths);
            let mut kept = 0_u32;
            for _ in 0..count {
                kept += u32::from(share.keeps(TraceId::random()));
            }
            let part = f64::from(hundredths.min(PARTS)) / f64::from(PARTS);
            let (mean, count) = (part * f64::from(count), f64::from(count));
            // Six standard deviations; of none and all there are none.
            let slack = 6.0 * (count * part * (1.0 - part)).sqrt();
            let off = (f64::from(kept) - mean).abs();
            assert!(off <= slack, "{hundredths}: {kept} instead of {mean}");
        }
    }

    #[test]
    fn who_keeps_more_keeps_the_same() {
        for _ in 0..1_000 {
            let trace = TraceId::random();
            let (fewer, more) = (Share::hundredths(3_000), Share::hundredths(3_001));
            assert!(!fewer.keeps(trace) || more.keeps(trace));
        }
    }

    #[test]
    fn the_ends_of_a_share_are_exact() {
        let at = |random: u64| TraceId::new(1 << 100 | u128::from(random)).unwrap();
        let whole = 1_u64 << 56;
        let half = Share::hundredths(5_000);
        assert!(half.keeps(at(whole / 2 - 1)));
        assert!(!half.keeps(at(whole / 2)));
        assert!(Share::hundredths(PARTS).keeps(at(whole - 1)));
        assert!(!Share::hundredths(0).keeps(at(0)));
    }
}
