//! What every rule of this host goes by.

use std::collections::BTreeSet;

use super::privilege::Exemption;
use super::ruleset::Exclusions;

/// What holds for all captured workloads of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How the proxy's own packets are told from the workloads'.
    pub exemption: Exemption,
    /// What is let alone everywhere.
    pub exclusions: Exclusions,
    /// Ports that are let alone on the host's own network besides: those by which it is reached and
    /// run.
    pub host_ports: BTreeSet<u16>,
    /// Users whom no workload may be: the proxy, and whoever opens its sockets.
    pub reserved: BTreeSet<u32>,
    /// Whether what workloads on the host's own network ask of name servers is captured.
    pub dns: bool,
    /// Whether namespaces are filtered on the host's side of their links too.
    pub strict: bool,
}

impl Terms {
    /// What is let alone on the host's own network.
    pub fn on_host(&self) -> Exclusions {
        let mut exclusions = self.exclusions.clone();
        exclusions.ports.extend(&self.host_ports);
        exclusions
    }
}

impl From<Exemption> for Terms {
    /// Nothing is let alone, but SSH on the host's own network.
    fn from(exemption: Exemption) -> Self {
        let reserved = match exemption {
            Exemption::Uid(uid) => BTreeSet::from([uid]),
            Exemption::Mark => BTreeSet::new(),
        };
        Self {
            exemption,
            exclusions: Exclusions::default(),
            host_ports: BTreeSet::from([SSH]),
            reserved,
            dns: false,
            strict: false,
        }
    }
}

/// The port by which most hosts are reached.
pub const SSH: u16 = 22;
