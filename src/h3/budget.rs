//! How much a peer may do that serves nothing (RFC 9114 §10.5).

use std::time::Duration;

use tokio::time::Instant;

use super::error::{Code, Fault};

/// So many events at once, and as many again in a minute.
#[derive(Debug)]
pub(super) struct Rate {
    most: u32,
    left: u32,
    /// What is left is as of then.
    since: Instant,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Rate {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            left: most,
            since: Instant::now(),
        }
    }

    /// Counts one event.
    pub(super) fn spend(&mut self, why: &'static str) -> Result<(), Fault> {
        let each = MINUTE / self.most.max(1);
        let passed = self.since.elapsed().as_nanos() / each.as_nanos().max(1);
        let back = u32::try_from(passed).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(back).min(self.most);
        match self.left == self.most {
            true => self.since = Instant::now(),
            false => self.since += each * back,
        }
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| Fault::new(Code::EXCESSIVE_LOAD, why))?;
        Ok(())
    }
}

/// Frames or capsules of one stream that hold nothing for us, against the bytes that do.
#[derive(Debug)]
pub(super) struct Allowance(u16);

impl Allowance {
    /// Empty or unknown frames one after another, and no byte between: some send one now and then,
    /// lest others take it that only what there is today can come.
    const MOST: u16 = 64;
    /// Bytes skipped that count as much as another frame.
    const SKIPPED: u64 = 4 << 10;
    /// Bytes for us that make up for one frame.
    const USEFUL: usize = 256;

    pub(super) fn new() -> Self {
        Self(Self::MOST)
    }

    /// Counts a frame that holds nothing for us in `length` bytes.
    pub(super) fn spend(&mut self, length: u64) -> Result<(), Fault> {
        let cost = u16::try_from(1 + length / Self::SKIPPED).ok();
        let left = cost.and_then(|cost| self.0.checked_sub(cost));
        let why = "too many frames hold nothing";
        self.0 = left.ok_or_else(|| Fault::new(Code::EXCESSIVE_LOAD, why))?;
        Ok(())
    }

    /// Counts bytes that were for us.
    pub(super) fn earn(&mut self, bytes: usize) {
        let back = u16::try_from(bytes / Self::USEFUL).unwrap_or(u16::MAX);
        self.0 = self.0.saturating_add(back).min(Self::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_comes_back_with_time() {
        let mut rate = Rate::new(3);
        let mut spend = |n: usize| (0..n).filter(|_| rate.spend("too many").is_ok()).count();
        assert_eq!(spend(5), 3);
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(spend(2), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(spend(2), 1);
        tokio::time::advance(Duration::from_secs(50)).await;
        assert_eq!(spend(5), 2);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(spend(5), 1, "ten seconds were left over");
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(spend(5), 3);
    }

    #[test]
    fn an_allowance_is_earned() {
        let mut allowance = Allowance::new();
        let mut frames = |n: usize| (0..n).filter(|_| allowance.spend(0).is_ok()).count();
        assert_eq!(frames(100), 64);
        allowance.earn(511);
        assert!(allowance.spend(0).is_ok() && allowance.spend(0).is_err());
        allowance.earn(1 << 20);
        assert!(allowance.spend(63 << 12).is_ok() && allowance.spend(0).is_err());
        assert!(Allowance::new().spend(64 << 12).is_err());
        assert!(Allowance::new().spend(u64::MAX).is_err());
    }
}
