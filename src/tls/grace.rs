//! How long leaves are taken past their end: while no control plane is there that could renew them,
//! for as long as the operator says (`spec/control-plane.md` §6.7).

use std::time::{Duration, SystemTime};

/// The longest that can be set.
pub const MOST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is taken past its end at one moment; of its default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grace {
    /// For how long.
    pub lasts: Duration,
    /// Since when no control plane has been there; none while one is.
    pub alone: Option<SystemTime>,
}

impl Grace {
    /// Until when a leaf is taken that ends at `not_after`. One that ended while a control plane was
    /// there could have been renewed: its holder may be shut out.
    pub fn extends(&self, not_after: SystemTime) -> SystemTime {
        match self.alone.is_some_and(|alone| alone < not_after) {
            true => not_after + self.lasts.min(MOST),
            false => not_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_while_nobody_can_renew_it_is_taken_longer() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let hour = Duration::from_secs(3600);
        for (name, lasts, alone, want) in [
            ("by default", Duration::ZERO, Some(at(500)), 1000),
            ("a control plane is there", hour, None, 1000),
            ("none was there at its end", hour, Some(at(999)), 4600),
            ("one was there at its end", hour, Some(at(1000)), 1000),
            ("more than may be", MOST * 9, Some(at(0)), 2_593_000),
        ] {
            let grace = Grace { lasts, alone };
            assert_eq!(grace.extends(at(1000)), at(want), "{name}");
        }
    }
}
