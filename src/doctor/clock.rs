//! Whether this machine knows what time it is: certificates are good from a time, and until one.

use std::time::{Duration, SystemTime};

use super::Finding;
use super::codes::Code;
use crate::agent::identity::NodeIdentity;
use crate::agent::proven;
use crate::config::daemon::Config;
use crate::sys;

/// Difference that is not worth a word.
const SLACK: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    now: Option<SystemTime>,
    /// The latest time that is past for certain.
    proven: Option<SystemTime>,
    /// Whether the kernel takes its clock for right.
    synchronised: Option<bool>,
}

impl Facts {
    pub(super) fn read(config: &Config) -> Self {
        let identity = NodeIdentity::load(config.state_dir()).ok().flatten();
        let made = identity.map(|identity| identity.svid.not_before());
        Self {
            now: Some(SystemTime::now()),
            proven: made.max(proven(config.state_dir())),
            synchronised: sys::clock_synchronised().ok(),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let behind = self.proven.zip(self.now);
        let behind = behind.and_then(|(proven, now)| proven.duration_since(now).ok());
        if let Some(by) = behind.filter(|by| *by > SLACK) {
            let seen = format!(
                "the clock is at least {} s behind: what this machine has been told was later",
                by.as_secs()
            );
            let remedy = "timedatectl set-ntp true, or set it: date -s 'YYYY-MM-DD hh:mm'";
            found.push(Finding::new(Code::ClockBehind, seen, remedy));
        }
        if self.synchronised == Some(false) {
            let seen = "nothing keeps the clock right (the kernel says that it is not synchronised); certificates are \
                        refused when it is some minutes off";
            let remedy = "timedatectl set-ntp true, or install chrony";
            found.push(Finding::new(Code::ClockUnsynchronised, seen, remedy));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        for (name, proven, synchronised, want) in [
            ("a good clock", Some(now - hour), Some(true), vec![]),
            ("nothing is known", None, None, vec![]),
            (
                "behind",
                Some(now + hour),
                Some(true),
                vec![Code::ClockBehind],
            ),
            ("by little", Some(now + SLACK), Some(true), vec![]),
            (
                "left alone",
                None,
                Some(false),
                vec![Code::ClockUnsynchronised],
            ),
        ] {
            let facts = Facts {
                now: Some(now),
                proven,
                synchronised,
            };
            let codes: Vec<_> = facts.check().iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }
}
