//! The kinds of findings. Their texts are stable: scripts may match on them, and `docs/doctor.md`
//! explains each.

use serde::{Serialize, Serializer};

use super::Severity;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $severity:ident $text:literal,)+) => {
        /// The kind of a finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// How grave it is; the same for every finding of one kind.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)+ }
            }
        }
    };
}

codes! {
    /// `lateen.toml` does not pass.
    SettingsInvalid = Error "settings-invalid",
    /// The mesh directory does not pass.
    MeshInvalid = Error "mesh-invalid",
    /// Neither the settings nor a unit says what this host is to be.
    NoRole = Note "no-role",
    /// The kernel is older than capture needs.
    KernelOld = Error "kernel-old",
    /// The kernel is older than capture by unit needs.
    KernelOldForUnits = Warning "kernel-old-for-units",
    /// The kernel is older than it takes to capture datagrams of units and users.
    KernelOldForDatagrams = Warning "kernel-old-for-datagrams",
    /// cgroup v2 is not mounted where nft looks for it.
    CgroupHybrid = Warning "cgroup-hybrid",
    /// There is no cgroup v2.
    CgroupV1 = Warning "cgroup-v1",
    /// The kernel has no IPv6.
    Ipv6Off = Note "ipv6-off",
    /// Marks do not pass on to accepted sockets.
    NoFwmarkAccept = Warning "no-fwmark-accept",
    /// The connection tracking table is filling up.
    ConntrackFull = Error "conntrack-full",
    /// It is almost full.
    ConntrackFilling = Warning "conntrack-filling",
    /// A strict reverse-path filter does not regard marks.
    ReversePathStrict = Warning "reverse-path-strict",
    /// A process may have few descriptors.
    FewDescriptors = Warning "few-descriptors",
    /// `lateen doctor` was not run as root.
    NotRoot = Note "not-root",
    /// The user of the settings does not exist.
    UserMissing = Error "user-missing",
    /// The keeper has no user of its own.
    KeeperUserMissing = Note "keeper-user-missing",
    /// Nobody answers where the keeper should.
    KeeperGone = Error "keeper-gone",
    /// The proxy is to run as root.
    UserIsRoot = Error "user-is-root",
    /// What must survive a reboot has little room left.
    DiskLow = Warning "disk-low",
    /// It has none.
    DiskFull = Error "disk-full",
    /// The state directory is on a file system that may not be written.
    StateReadOnly = Error "state-read-only",
    /// Something in the state directory belongs to another user than the one who needs it.
    StateOwner = Error "state-owner",
    /// Others may read the state directory.
    StateExposed = Warning "state-exposed",
    /// This machine is a node and has not joined.
    NotJoined = Error "not-joined",
    /// The node's identity does not read.
    IdentityUnreadable = Error "identity-unreadable",
    /// The node's certificate has expired.
    CertificateExpired = Error "certificate-expired",
    /// It soon will, so renewing it fails.
    CertificateExpiring = Warning "certificate-expiring",
    /// A workload's certificate has expired.
    WorkloadCertificateExpired = Error "workload-certificate-expired",
    /// It soon will, so renewing it fails.
    WorkloadCertificateExpiring = Warning "workload-certificate-expiring",
    /// There is none for a workload, and a reason why.
    WorkloadCertificateMissing = Error "workload-certificate-missing",
    /// A certificate of the mesh's authority has expired.
    AuthorityExpired = Error "authority-expired",
    /// It soon will.
    AuthorityExpiring = Warning "authority-expiring",
    /// The clock is far from the control plane's.
    ClockApart = Warning "clock-apart",
    /// The clock is behind what has been proven to be past.
    ClockBehind = Error "clock-behind",
    /// Nothing keeps the clock right.
    ClockUnsynchronised = Warning "clock-unsynchronised",
    /// There is no name server.
    ResolverNone = Error "resolver-none",
    /// Names are asked for with many endings first.
    NdotsHigh = Warning "ndots-high",
    /// Programs of the host are to know names of the mesh, and its resolver has to be told by hand.
    DnsHost = Note "dns-host",
    /// systemd-resolved is to be told of the mesh, and is not, or does not run.
    DnsUntold = Warning "dns-untold",
    /// nft is not installed.
    NftMissing = Error "nft-missing",
    /// ip is not installed.
    IpMissing = Error "ip-missing",
    /// nft is older than capture needs.
    NftOld = Error "nft-old",
    /// The kernel or nft does not take our rules.
    RulesRefused = Error "rules-refused",
    /// A firewall drops what peers send here.
    FirewallDrops = Error "firewall-drops",
    /// A firewall drops what is passed on to guests.
    ForwardDrops = Warning "forward-drops",
    /// Rules in the legacy tables, which nft does not show.
    LegacyTables = Warning "legacy-tables",
    /// Another mesh has left its rules here.
    ForeignMesh = Error "foreign-mesh",
    /// A port that lateen needs is another program's.
    PortTaken = Error "port-taken",
    /// A control plane's name leads to no address.
    ControlUnresolved = Error "control-unresolved",
    /// A control plane does not answer.
    ControlUnreachable = Error "control-unreachable",
    /// Packets on the way to a control plane may be no larger than QUIC and IPv6 need.
    PathMtuSmall = Warning "path-mtu-small",
    /// A unit of lateen has failed.
    UnitFailed = Error "unit-failed",
    /// A unit is restarted again and again.
    UnitRestarting = Warning "unit-restarting",
    /// A unit runs and will not after a reboot.
    UnitNotEnabled = Note "unit-not-enabled",
    /// A unit's file has changed since systemd read it.
    UnitChanged = Warning "unit-changed",
    /// Two units that have the same role, or share what only one can have, are to start.
    UnitsConflict = Warning "units-conflict",
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn texts_are_distinct_and_each_is_explained() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        let docs = include_str!("../../docs/doctor.md");
        for code in Code::ALL {
            let row = format!("| `{}` | {} |", code.as_str(), code.severity().as_str());
            assert!(docs.contains(&row), "no row {row} in docs/doctor.md");
        }
    }
}
