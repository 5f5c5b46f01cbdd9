//! What the authority is made of: which files hold its roots and who signs now. One small file,
//! replaced as a whole, so that every step of a rotation either has happened or has not.

use serde::{Deserialize, Serialize};

use crate::hex::hex;

/// Where a change of the root stands (`spec/control-plane.md` §4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// One root.
    #[default]
    Steady,
    /// The next root is believed and signs nothing yet.
    Add,
    /// The next root signs; the former one is still believed.
    Switch,
}

/// The authority's table of contents. Names are of files without their endings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Manifest {
    /// Grows with everything that peers must know.
    pub(super) sequence: u64,
    /// The highest number in a file's name.
    pub(super) made: u32,
    pub(super) phase: Phase,
    /// When the phase began, in seconds since 1970.
    pub(super) since: u64,
    /// The root that signs.
    pub(super) root: String,
    /// The root that is being added, or that retires.
    pub(super) other: Option<String>,
    /// The root that signs, certified by the one that retires.
    pub(super) bridge: Option<String>,
    /// The intermediate that signs.
    pub(super) issuing: String,
    /// Intermediates that sign no more but revoke.
    pub(super) retired: Vec<Retired>,
    /// Certificates made before this are to be replaced, in milliseconds since 1970.
    pub(super) reissue_before_ms: u64,
    /// Number of the revocation lists that are signed.
    pub(super) crl_number: u64,
    /// When they were signed, in seconds since 1970.
    pub(super) crl_signed: u64,
    /// SHA-256 of the keys of a plugged-in authority's roots, in hex, as the mesh was last told.
    pub(super) roots: Vec<String>,
    /// The plugged-in intermediate that signed last.
    #[serde(default)]
    pub(super) plugged: Option<String>,
    /// Encrypts serial numbers; hex.
    pub(super) serial_key: String,
}

/// An intermediate of which certificates may be about still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Retired {
    pub(super) name: String,
    /// When the last of them expires, in seconds since 1970.
    pub(super) until: u64,
}

impl Manifest {
    /// Of a new authority.
    pub(super) fn first(now: u64) -> Self {
        let key: [u8; 16] = rand::random();
        Self {
            sequence: 1,
            made: 1,
            phase: Phase::Steady,
            since: now,
            root: "root".to_owned(),
            other: None,
            bridge: None,
            issuing: "issuing-1".to_owned(),
            retired: Vec::new(),
            reissue_before_ms: 0,
            crl_number: 0,
            crl_signed: 0,
            roots: Vec::new(),
            plugged: None,
            serial_key: hex(&key),
        }
    }

    pub(super) fn serial_key(&self) -> Option<[u8; 16]> {
        let digits =
            |at: usize| u8::from_str_radix(self.serial_key.get(2 * at..2 * at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..16).map(digits).collect();
        bytes?.try_into().ok()
    }

    /// Whether roots may take the place of those that were told: some added or some taken away, but
    /// never all exchanged at once, which would cut off everyone.
    pub(super) fn may_be_followed_by(&self, roots: &[String]) -> bool {
        let within = |a: &[String], b: &[String]| a.iter().all(|key| b.contains(key));
        self.roots.is_empty() || within(&self.roots, roots) || within(roots, &self.roots)
    }

    /// The name of the next file of a kind.
    pub(super) fn next(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{}", self.made)
    }

    /// Has another intermediate sign; the former one revokes until `until`.
    pub(super) fn issue_by(&mut self, issuing: String, until: u64) {
        let name = std::mem::replace(&mut self.issuing, issuing);
        self.retired.push(Retired { name, until });
        self.sequence += 1;
    }

    /// Takes note of the plugged-in intermediate that signs; another one that did before revokes until
    /// `until`, and its certificates are to be replaced.
    pub(super) fn plugged_in(&mut self, name: &str, until: u64, now: u64) {
        self.retired.retain(|r| r.name != name);
        let former = self.plugged.replace(name.to_owned());
        if let Some(former) = former.filter(|former| former != name) {
            self.retired.push(Retired {
                name: former,
                until,
            });
            self.reissue_before_ms = (now + 1).saturating_mul(1000);
        }
    }

    /// Begins to believe another root.
    pub(super) fn add(&mut self, root: String, bridge: String, now: u64) {
        self.other = Some(root);
        self.bridge = Some(bridge);
        self.enter(Phase::Add, now);
    }

    /// Lets the added root sign, by this intermediate.
    pub(super) fn switch(&mut self, issuing: String, until: u64, now: u64) {
        if let Some(added) = self.other.take() {
            let former = std::mem::replace(&mut self.root, added);
            self.other = Some(former);
        }
        self.issue_by(issuing, until);
        // Certificates tell when they were made in seconds: those of this second may be from before.
        self.reissue_before_ms = (now + 1).saturating_mul(1000);
        self.enter(Phase::Switch, now);
    }

    /// Believes the former root no more.
    pub(super) fn remove(&mut self, now: u64) {
        self.other = None;
        self.bridge = None;
        self.enter(Phase::Steady, now);
    }

    fn enter(&mut self, phase: Phase, now: u64) {
        self.phase = phase;
        self.since = now;
        self.sequence += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_step_by_step() {
        let mut m = Manifest::first(100);
        let (root, bridge) = (m.next("root"), m.next("bridge"));
        m.add(root, bridge, 200);
        assert_eq!(
            (m.phase, m.root.as_str(), m.other.as_deref()),
            (Phase::Add, "root", Some("root-2"))
        );
        assert_eq!(m.sequence, 2);
        let issuing = m.next("issuing");
        m.switch(issuing, 900, 300);
        assert_eq!(
            (m.phase, m.root.as_str(), m.other.as_deref()),
            (Phase::Switch, "root-2", Some("root"))
        );
        assert_eq!(
            (m.issuing.as_str(), m.reissue_before_ms),
            ("issuing-4", 301_000)
        );
        assert_eq!(
            m.retired,
            [Retired {
                name: "issuing-1".to_owned(),
                until: 900
            }]
        );
        m.remove(400);
        assert_eq!(
            (m.phase, m.root.as_str(), m.other, m.bridge),
            (Phase::Steady, "root-2", None, None)
        );
        assert_eq!((m.sequence, m.since), (5, 400));
    }

    #[test]
    fn the_serial_key_reads_back() {
        let m = Manifest::first(0);
        assert!(m.serial_key().is_some());
        let short = Manifest {
            serial_key: "00".to_owned(),
            ..m
        };
        assert!(short.serial_key().is_none());
    }
}
