//! Which revisions may come into force: never another mesh's, and never an older one while a newer
//! may be had (`spec/control-plane.md` §6.5). Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::convert::RevisionSummary;

/// What becomes of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It comes into force.
    Apply,
    /// It comes into force though it is older: nobody has had a newer one for long.
    Overdue,
    /// It is older than the one in force.
    Older,
    /// It is of another mesh than the one this node joined.
    Foreign,
}

/// The order of revisions.
#[derive(Debug)]
pub(super) struct Order {
    /// The mesh joined; empty where the control plane tells none.
    epoch: Vec<u8>,
    patience: Duration,
    /// The serial in force; 0 for none.
    serial: u64,
    /// Since when only older ones have been to be had.
    older: Option<Instant>,
}

impl Order {
    /// Of the mesh with this epoch, before any revision.
    pub(super) fn new(epoch: Vec<u8>, patience: Duration) -> Self {
        Self {
            epoch,
            patience,
            serial: 0,
            older: None,
        }
    }

    /// The serial in force; 0 for none.
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// What is to become of a revision.
    pub(super) fn judge(&self, revision: &RevisionSummary, now: Instant) -> Verdict {
        if !self.epoch.is_empty() && self.epoch != revision.epoch {
            return Verdict::Foreign;
        }
        // Without a serial there is no order.
        if revision.serial == 0 || revision.serial >= self.serial {
            return Verdict::Apply;
        }
        match self.older {
            Some(since) if now >= since + self.patience => Verdict::Overdue,
            _ => Verdict::Older,
        }
    }

    /// An older one was all that its control plane had, and nobody else is followed.
    pub(super) fn withheld(&mut self, now: Instant) {
        self.older.get_or_insert(now);
    }

    /// It is in force.
    pub(super) fn applied(&mut self, revision: &RevisionSummary) {
        self.serial = revision.serial;
        self.older = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;

    fn revision(epoch: u8, serial: u64) -> RevisionSummary {
        RevisionSummary {
            epoch: [epoch; 16],
            serial,
            number: 1,
            digest: [0; 32],
            source: String::new(),
            compiled_at: SystemTime::UNIX_EPOCH,
            totals: BTreeMap::default(),
            warnings: 0,
            expired_grace: Duration::ZERO,
            domain: String::new(),
        }
    }

    #[test]
    fn an_older_revision_waits_for_ten_minutes() {
        use Verdict::{Apply, Foreign, Older, Overdue};
        let minutes = |n: u64| Duration::from_secs(60 * n);
        for (name, in_force, withheld_for, epoch, serial, want) in [
            ("the first", None, None, 7, 3, Apply),
            ("newer", Some(5), None, 7, 6, Apply),
            ("the same", Some(5), None, 7, 5, Apply),
            ("older", Some(5), None, 7, 4, Older),
            ("older, for a while", Some(5), Some(9), 7, 4, Older),
            ("older, for long", Some(5), Some(10), 7, 4, Overdue),
            ("newer after that", Some(5), Some(10), 7, 6, Apply),
            ("none beside one", Some(5), None, 7, 0, Apply),
            ("one beside none", Some(0), None, 7, 1, Apply),
            ("another mesh", None, None, 8, 9, Foreign),
            ("another mesh, for long", Some(5), Some(10), 8, 9, Foreign),
        ] {
            let start = Instant::now();
            let mut order = Order::new(vec![7; 16], minutes(10));
            if let Some(serial) = in_force {
                order.applied(&revision(7, serial));
            }
            if withheld_for.is_some() {
                order.withheld(start);
                // Only the first time counts.
                order.withheld(start + minutes(5));
            }
            let now = start + minutes(withheld_for.unwrap_or_default());
            assert_eq!(order.judge(&revision(epoch, serial), now), want, "{name}");
        }
    }

    #[test]
    fn what_is_applied_begins_anew() {
        let start = Instant::now();
        let mut order = Order::new(Vec::new(), Duration::from_secs(1));
        order.applied(&revision(1, 5));
        order.withheld(start);
        let later = start + Duration::from_secs(2);
        assert_eq!(order.judge(&revision(2, 4), later), Verdict::Overdue);
        order.applied(&revision(2, 4));
        assert_eq!(order.judge(&revision(2, 3), later), Verdict::Older);
        assert_eq!(order.serial(), 4);
    }
}
