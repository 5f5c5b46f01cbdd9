//! Who this machine is in its mesh, and for how long; and how long that mesh's authority lasts.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Finding;
use super::codes::Code;
use super::settings::Roles;
use crate::agent::identity::NodeIdentity;
use crate::causes::chain;
use crate::config::daemon::Config;
use crate::tls::{Svid, validity_of};

/// A node's certificate lasts for thirty days and is renewed daily: one with less than this left has
/// not been renewed for three weeks.
const SOON: Duration = Duration::from_secs(9 * 86_400);
/// An intermediate of ours is replaced with half a year left, a root by hand.
const SOON_INTERMEDIATE: Duration = Duration::from_secs(14 * 86_400);
const SOON_ROOT: Duration = Duration::from_secs(90 * 86_400);
/// What an authority has.
pub(super) const ROOT: &str = "root";
pub(super) const INTERMEDIATE: &str = "intermediate";

/// Where the unit finds a token by itself (systemd.exec(5)).
const CREDENTIALS: [&str; 2] = [
    "/etc/credstore/lateen.join-token",
    "/run/credstore/lateen.join-token",
];

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
    /// What signed the node's certificate and what that leads to, and until when.
    authority: Vec<(&'static str, SystemTime)>,
    now: Option<SystemTime>,
}

impl Facts {
    pub(super) fn read(config: &Config) -> Self {
        let control = config.control();
        let mut authority = Vec::new();
        let identity = match NodeIdentity::load(config.state_dir()) {
            Ok(None) => Identity::Missing,
            Ok(Some(identity)) => {
                authority = above(&identity.svid);
                Identity::Until(identity.svid.not_after())
            }
            Err(e) => Identity::Unreadable(chain(&e)),
        };
        // To others than its owner the directory is closed, and nothing follows from that.
        let closed = std::fs::read_dir(config.state_dir());
        let closed = closed.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
        Self {
            identity: Some(identity).filter(|_| !closed),
            token: control.join_token_file().is_some_and(|path| path.exists())
                || CREDENTIALS.iter().any(|path| Path::new(path).exists()),
            guest: control.bearer().is_some(),
            now: Some(SystemTime::now()),
            authority,
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
            Identity::Until(end) => {
                // The authority itself is asked where it is.
                let authority = self.authority.iter().filter(|_| !roles.control);
                let authority =
                    authority.filter_map(|(what, end)| authority_until(what, *end, now));
                lifetime(*end, now).into_iter().chain(authority).collect()
            }
        }
    }
}

/// The intermediates of a certificate's chain, and of several roots the one that lasts longest: the others
/// are on their way out.
fn above(svid: &Svid) -> Vec<(&'static str, SystemTime)> {
    let end = |certificate| Some(validity_of(certificate)?.1);
    let between = svid.chain().iter().skip(1).filter_map(end).min();
    let bundle = svid.trust().bundle();
    let root = bundle.roots().certificates().iter().filter_map(end).max();
    let between = between.map(|end| (INTERMEDIATE, end));
    between
        .into_iter()
        .chain(root.map(|end| (ROOT, end)))
        .collect()
}

/// What is wrong with a part of an authority that lasts until `end`.
pub(super) fn authority_until(what: &str, end: SystemTime, now: SystemTime) -> Option<Finding> {
    let (soon, remedy) = match what {
        ROOT => (SOON_ROOT, "lateen ca rotate --root, in three steps"),
        _ => (SOON_INTERMEDIATE, "lateen ca rotate"),
    };
    let remedy = format!(
        "on the control plane's host: {remedy}; of an authority in `ca-dir`: bring another there"
    );
    let left = end.duration_since(now).ok();
    let Some(left) = left.filter(|left| !left.is_zero()) else {
        let ago = now.duration_since(end).unwrap_or_default().as_secs() / 86_400;
        let seen = format!(
            "the {what} of the mesh's authority expired {ago} days ago: nothing it signed is good"
        );
        return Some(Finding::new(Code::AuthorityExpired, seen, remedy));
    };
    (left < soon).then(|| {
        let days = left.as_secs() / 86_400;
        let seen = format!("the {what} of the mesh's authority expires in {days} days");
        Finding::new(Code::AuthorityExpiring, seen, remedy)
    })
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
                authority: vec![(ROOT, now + days(3650)), (INTERMEDIATE, now + days(200))],
            };
            let codes: Vec<_> = facts.check(node).iter().map(|f| f.code).collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
            assert_eq!(facts.check(Roles::default()), Vec::new(), "{name}, no node");
        }
    }

    #[test]
    fn a_node_tells_of_the_authority_it_goes_by_unless_that_is_here() {
        let now = SystemTime::now();
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let node = Roles {
            node: true,
            known: true,
            ..Roles::default()
        };
        let both = Roles {
            control: true,
            ..node
        };
        for (name, roles, root, intermediate, want) in [
            ("both last", node, days(3650), days(15), vec![]),
            (
                "a root that ends",
                node,
                days(89),
                days(200),
                vec![Code::AuthorityExpiring],
            ),
            (
                "both at their end",
                node,
                days(0),
                days(13),
                vec![Code::AuthorityExpired, Code::AuthorityExpiring],
            ),
            ("a control plane", both, days(0), days(0), vec![]),
        ] {
            let facts = Facts {
                identity: Some(Identity::Until(now + days(25))),
                now: Some(now + Duration::from_secs(1)),
                authority: vec![(ROOT, now + root), (INTERMEDIATE, now + intermediate)],
                ..Facts::default()
            };
            let codes: Vec<_> = facts.check(roles).iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }
}
