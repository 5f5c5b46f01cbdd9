//! Who this machine is in its mesh, and for how long.

use std::io::ErrorKind;
use std::time::{Duration, SystemTime};

use super::Finding;
use super::codes::Code;
use super::settings::Roles;
use crate::agent::identity::NodeIdentity;
use crate::config::daemon::Config;
use crate::telemetry::access_log::chain;

/// A node's certificate lasts for thirty days and is renewed daily: one with less than this left has
/// not been renewed for three weeks.
const SOON: Duration = Duration::from_secs(9 * 86_400);

/// The identity of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    Missing,
    Unreadable(String),
    Until(SystemTime),
}

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    identity: Option<Identity>,
    /// A token by which it joins by itself.
    token: bool,
    /// It is no node of a mesh of ours.
    guest: bool,
    now: Option<SystemTime>,
}

impl Facts {
    pub(super) fn read(config: &Config) -> Self {
        let control = config.control();
        let identity = match NodeIdentity::load(config.state_dir()) {
            Ok(None) => Identity::Missing,
            Ok(Some(identity)) => Identity::Until(identity.svid.not_after()),
            Err(e) => Identity::Unreadable(chain(&e)),
        };
        // To others than its owner the directory is closed, and nothing follows from that.
        let closed = std::fs::read_dir(config.state_dir());
        let closed = closed.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
        Self {
            identity: Some(identity).filter(|_| !closed),
            token: control.join_token_file().is_some_and(|path| path.exists()),
            guest: control.bearer().is_some(),
            now: Some(SystemTime::now()),
        }
    }

    pub(super) fn check(&self, roles: Roles) -> Vec<Finding> {
        let (Some(identity), Some(now)) = (&self.identity, self.now) else {
            return Vec::new();
        };
        match identity {
            _ if self.guest || !roles.follows() => Vec::new(),
            Identity::Missing if self.token => Vec::new(),
            Identity::Missing => {
                let seen = "this machine has not joined a mesh";
                let remedy = "lateen join https://CONTROL:15012 --token-file FILE, with a token of `lateen token create NODE`";
                vec![Finding::new(Code::NotJoined, seen, remedy)]
            }
            Identity::Unreadable(reason) => {
                let seen = format!("the node's identity does not read: {reason}");
                let remedy = "run as root, or join again with a token of `lateen token create NODE --replace`";
                vec![Finding::new(Code::IdentityUnreadable, seen, remedy)]
            }
            Identity::Until(end) => lifetime(*end, now).into_iter().collect(),
        }
    }
}

fn lifetime(end: SystemTime, now: SystemTime) -> Option<Finding> {
    let Ok(left) = end.duration_since(now) else {
        let ago = now.duration_since(end).unwrap_or_default().as_secs() / 86_400;
        let seen = format!("the node's certificate expired {ago} days ago");
        let remedy = "bring its control plane in reach; after 90 days join again: lateen token create NODE --replace";
        return Some(Finding::new(Code::CertificateExpired, seen, remedy));
    };
    (left < SOON).then(|| {
        let days = left.as_secs() / 86_400;
        let seen = format!("the node's certificate expires in {days} days and is not renewed");
        let remedy = "lateen certificates says why; lateen status says which control planes answer";
        Finding::new(Code::CertificateExpiring, seen, remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_named() {
        let now = SystemTime::now();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let node = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        let unreadable = Identity::Unreadable("damaged".to_owned());
        for (name, identity, token, guest, want) in [
            (
                "joined",
                Identity::Until(now + days(25)),
                false,
                false,
                None,
            ),
            (
                "not joined",
                Identity::Missing,
                false,
                false,
                Some(Code::NotJoined),
            ),
            ("about to", Identity::Missing, true, false, None),
            ("a node of an istiod", Identity::Missing, false, true, None),
            (
                "damaged",
                unreadable,
                false,
                false,
                Some(Code::IdentityUnreadable),
            ),
            (
                "not renewed",
                Identity::Until(now + days(2)),
                false,
                false,
                Some(Code::CertificateExpiring),
            ),
            (
                "expired",
                Identity::Until(now - days(2)),
                false,
                false,
                Some(Code::CertificateExpired),
            ),
        ] {
            let facts = Facts {
                identity: Some(identity),
                token,
                guest,
                now: Some(now),
            };
            let codes: Vec<_> = facts.check(node).iter().map(|f| f.code).collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
            assert_eq!(facts.check(Roles::default()), Vec::new(), "{name}, no node");
        }
    }
}
