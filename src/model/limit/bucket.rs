//! A token bucket in whole numbers: it begins full, a request takes a token, and tokens come back one
//! after the other at the same pace.
//!
//! Instead of a number of tokens and the time of the last one, a bucket has one number: the moment at
//! which it would be full again (the generic cell rate algorithm, ITU-T I.371). The unit of that is
//! chosen such that a token is a whole number of them, so that nothing is ever rounded and no rate
//! drifts however often it is asked.

use std::cmp::Reverse;
use std::time::Duration;

/// The greatest number of requests and the greatest burst of a rate.
pub const MOST: u32 = 1_000_000;

/// The longest time a rate is over: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const SHORTEST: Duration = Duration::from_secs(1);

/// So many requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    requests: u32,
    per: Duration,
    burst: u32,
}

impl Rate {
    /// `requests` in `per`, of which `burst` may come at once. None unless both numbers are from 1 to
    /// [`MOST`], and the time from a second to a day.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Option<Self> {
        let counts = 1..=MOST;
        let sound = counts.contains(&requests)
            && counts.contains(&burst)
            && (SHORTEST..=LONGEST).contains(&per);
        sound.then_some(Self {
            requests,
            per,
            burst,
        })
    }

    /// How many in [`Self::per`].
    pub fn requests(self) -> u32 {
        self.requests
    }

    /// The time in which that many come back.
    pub fn per(self) -> Duration {
        self.per
    }

    /// How many a full bucket holds.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// A moment in the unit of buckets, `1 / requests` nanoseconds: below 2^84 for 500 years.
    fn at(self, now: Duration) -> u128 {
        now.as_nanos() * u128::from(self.requests)
    }

    /// A token in that unit.
    fn token(self) -> u128 {
        self.per.as_nanos()
    }

    /// A full bucket in that unit.
    fn whole(self) -> u128 {
        self.token() * u128::from(self.burst)
    }

    fn lasting(self, units: u128) -> Duration {
        let nanos = units.div_ceil(u128::from(self.requests));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// How a rule stands after it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many a full bucket holds.
    pub limit: u32,
    /// How many it still holds.
    pub remaining: u32,
    /// Until it is full again.
    pub reset: Duration,
    /// Until it lets through what it has just refused; none where it has let that through.
    pub wait: Option<Duration>,
}

impl Standing {
    /// The stricter of two: one that refuses, for longer; else the one that has less left.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let strictness = |s: &Self| (s.wait, Reverse(s.remaining), s.reset);
        match strictness(&other) > strictness(&self) {
            true => other,
            false => self,
        }
    }
}

/// The tokens of one subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it is full again, in the unit of its rate.
    full: u128,
}

impl Bucket {
    /// Takes a token, if there is one.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Standing {
        let lacking = self.lacking(rate, now) + rate.token();
        let short = lacking.checked_sub(rate.whole()).filter(|more| *more > 0);
        if short.is_none() {
            self.full = rate.at(now) + lacking;
        }
        let standing = self.standing(rate, now);
        let wait = short.map(|short| rate.lasting(short));
        Standing { wait, ..standing }
    }

    /// How it stands, nothing asked of it.
    pub fn standing(&self, rate: Rate, now: Duration) -> Standing {
        let lacking = self.lacking(rate, now);
        let left = rate.whole().saturating_sub(lacking) / rate.token();
        Standing {
            limit: rate.burst,
            remaining: u32::try_from(left).unwrap_or(rate.burst),
            reset: rate.lasting(lacking),
            wait: None,
        }
    }

    /// Puts a token back that was taken at no later a moment.
    pub fn give_back(&mut self, rate: Rate) {
        self.full = self.full.saturating_sub(rate.token());
    }

    /// Until when it remembers anything: a full bucket is as good as a new one.
    pub fn remembers_until(&self, rate: Rate) -> Duration {
        rate.lasting(self.full)
    }

    fn lacking(&self, rate: Rate, now: Duration) -> u128 {
        self.full.saturating_sub(rate.at(now))
    }
}

#[cfg(test)]
mod tests;
