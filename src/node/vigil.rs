//! Keeps a thread awake while its next bytes are about to come. A processor that has fallen asleep
//! takes longer to wake than a small request takes to be carried, and on the way of each lie six
//! such wake-ups.
//!
//! It waits awake only where that has proven worth it lately, and only on a processor that nobody
//! else wants.

use std::convert::Infallible;
use std::thread;
use std::time::{Duration, Instant};

use crate::hbone::activity::{next_transfer, transfers};

/// How long to wait for the next bytes: an answer from a near server takes less.
const WINDOW: Duration = Duration::from_micros(150);
/// Giving up the processor takes longer than this only if somebody else was waiting for it.
const CROWDED: Duration = Duration::from_micros(5);

/// Waits awake after each burst of this thread's transfers, for as long as that pays.
pub(super) async fn keep() -> Infallible {
    let mut patience = Patience::default();
    loop {
        next_transfer().await;
        if patience.begins() {
            wait_awake(&mut patience).await;
        }
    }
}

async fn wait_awake(patience: &mut Patience) {
    let mut seen = transfers();
    let mut until = Instant::now() + WINDOW;
    loop {
        // Everybody who has something to do does it, and then the sockets are asked for more.
        tokio::task::yield_now().await;
        let (moved, now) = (transfers(), Instant::now());
        if moved != seen {
            seen = moved;
            until = now + WINDOW;
            patience.rewarded();
            continue;
        }
        if now >= until {
            return patience.disappointed();
        }
        thread::yield_now();
        if now.elapsed() > CROWDED && !patience.shares() {
            return;
        }
    }
}

/// What waiting has been worth lately.
#[derive(Debug)]
struct Patience {
    credit: i32,
    /// Bursts to let pass before trying again.
    rest: u32,
}

impl Patience {
    /// Credit to begin with, below which a crowded processor is left to others.
    const START: i32 = 4;
    const MOST: i32 = 16;
    const REST: u32 = 64;

    /// Whether to wait for more after this burst.
    fn begins(&mut self) -> bool {
        if self.rest > 0 {
            self.rest -= 1;
            return false;
        }
        true
    }

    /// Bytes came in time.
    fn rewarded(&mut self) {
        self.credit = (self.credit + 2).min(Self::MOST);
    }

    /// None came.
    fn disappointed(&mut self) {
        self.spend(2);
    }

    /// Somebody else had the processor meanwhile; tells whether to stay all the same, since he may
    /// be the one who is waited for.
    fn shares(&mut self) -> bool {
        self.spend(1);
        self.credit >= Self::START
    }

    fn spend(&mut self, credit: i32) {
        self.credit -= credit;
        if self.credit < 0 {
            *self = Self {
                credit: Self::START,
                rest: Self::REST,
            };
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            credit: 2 * Self::START,
            rest: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a hundred bursts, how many were waited after when each wait goes so.
    fn waits(wait: impl Fn(&mut Patience)) -> usize {
        let mut patience = Patience::default();
        let mut one = || {
            let begins = patience.begins();
            if begins {
                wait(&mut patience);
            }
            begins
        };
        (0..100).filter(|_| one()).count()
    }

    #[test]
    fn it_waits_where_that_pays() {
        type Wait = fn(&mut Patience);
        let cases: [(&str, Wait, usize); 5] = [
            ("an answer each time", |p| p.rewarded(), 100),
            (
                "question and answer, then a pause",
                |p| {
                    p.rewarded();
                    p.disappointed();
                },
                100,
            ),
            (
                "shared with whom it waits for",
                |p| {
                    p.shares();
                    p.rewarded();
                },
                100,
            ),
            ("never anything", |p| p.disappointed(), 8),
            ("a crowd", |p| _ = p.shares(), 14),
        ];
        for (name, wait, want) in cases {
            assert_eq!(waits(wait), want, "{name}");
        }
    }

    #[test]
    fn a_crowd_is_left_the_processor() {
        let mut patience = Patience::default();
        let stayed = (0..).take_while(|_| patience.shares()).count();
        assert_eq!(stayed, 4);
    }
}
