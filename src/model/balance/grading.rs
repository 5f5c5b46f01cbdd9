//! How near endpoints are to a waypoint (`spec/waypoint-l7.md` §3.6).

use std::sync::Arc;

use super::rank;
use crate::model::service::{BalanceMode, Scope, Service};
use crate::model::traffic::{Distribute, LocalityPolicy};
use crate::model::workload::{Locality, Workload};

/// What a waypoint knows of its endpoints by the name of a label; `failover-priority` may name no other.
pub const KNOWN_LABELS: [&str; 10] = [
    "topology.istio.io/network",
    "topology.istio.io/cluster",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "kubernetes.io/hostname",
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "app",
    "version",
];

/// Tells the endpoints of one service apart by where they stand.
#[derive(Clone, Debug)]
pub struct Grading<'a> {
    source: &'a Workload,
    by: By<'a>,
}

#[derive(Clone, Debug)]
enum By<'a> {
    Nothing,
    /// The service's own word, `traffic-distribution`.
    Scopes(&'a [Scope]),
    /// Region, zone and subzone, and the region that takes over.
    Locality(Option<&'a Arc<str>>),
    Labels(&'a [Arc<str>]),
    Shares(&'a Distribute),
}

/// What an endpoint is by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// So far away; 0 is nearest.
    Level(usize),
    /// One of those that have a fixed share together.
    Share(usize),
    /// It gets nothing.
    Nothing,
}

impl<'a> Grading<'a> {
    /// How a waypoint's instance sees the endpoints of a service: as the destination rule says, else the
    /// service, else the mesh. Without `outliers`, nothing fails over but by the service's own word.
    pub fn new(
        source: &'a Workload,
        service: &'a Service,
        rule: Option<&'a LocalityPolicy>,
        mesh: &'a LocalityPolicy,
        outliers: bool,
    ) -> Self {
        let balancing = &service.load_balancing;
        let by = match (rule, balancing.mode) {
            (Some(rule), _) => Self::ruled(source, rule, outliers),
            (None, BalanceMode::Failover) => By::Scopes(&balancing.preference),
            (None, BalanceMode::Unspecified) => Self::ruled(source, mesh, outliers),
            (None, _) => By::Nothing,
        };
        Self { source, by }
    }

    fn ruled(source: &Workload, policy: &'a LocalityPolicy, outliers: bool) -> By<'a> {
        if !policy.enabled {
            return By::Nothing;
        }
        let mut shares = policy.distribute.iter();
        if let Some(shares) = shares.find(|d| lies_in(&source.locality, &d.from)) {
            return By::Shares(shares);
        }
        if !policy.distribute.is_empty() || !outliers {
            return By::Nothing;
        }
        if !policy.failover_priority.is_empty() {
            return By::Labels(&policy.failover_priority);
        }
        let mut failover = policy.failover.iter();
        let over = failover.find(|(from, _)| *from == source.locality.region);
        By::Locality(over.map(|(_, to)| to))
    }

    /// Whether all endpoints are alike, so that nobody need be asked.
    pub fn is_flat(&self) -> bool {
        matches!(self.by, By::Nothing)
    }

    /// The fixed shares in percent, by number; empty where there are none.
    pub fn shares(&self) -> impl Iterator<Item = u32> {
        let shares = match self.by {
            By::Shares(shares) => &shares.to[..],
            _ => &[],
        };
        shares.iter().map(|(_, percent)| *percent)
    }

    /// What an endpoint is.
    pub fn grade(&self, endpoint: &Workload) -> Grade {
        let Self { source, by } = self;
        match by {
            By::Nothing => Grade::Level(0),
            By::Scopes(scopes) => Grade::Level(furthest(scopes) - rank(source, endpoint, scopes)),
            By::Locality(over) => Grade::Level(distance(source, endpoint, *over)),
            By::Labels(labels) => {
                let equal =
                    |label: &&Arc<str>| label_of(source, label) == label_of(endpoint, label);
                Grade::Level(labels.len() - labels.iter().take_while(equal).count())
            }
            By::Shares(shares) => {
                let mut to = shares.to.iter();
                let share = to.position(|(locality, _)| lies_in(&endpoint.locality, locality));
                share.map_or(Grade::Nothing, Grade::Share)
            }
        }
    }
}

/// The best rank there is by these scopes.
fn furthest(scopes: &[Scope]) -> usize {
    match scopes {
        [Scope::Network, rest @ ..] => scopes.len() + rest.len(),
        _ => scopes.len(),
    }
}

fn distance(source: &Workload, endpoint: &Workload, over: Option<&Arc<str>>) -> usize {
    let (here, there) = (&source.locality, &endpoint.locality);
    if here.region != there.region {
        return match over {
            Some(over) if *over != there.region => 4,
            Some(_) | None => 3,
        };
    }
    match (here.zone == there.zone, here.subzone == there.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// Whether a locality lies in what `region/zone/subzone` means, where `*` or nothing is any.
fn lies_in(locality: &Locality, pattern: &str) -> bool {
    let own = [&locality.region, &locality.zone, &locality.subzone];
    let mut parts = own.into_iter().zip(pattern.split('/'));
    parts.all(|(own, part)| part == "*" || **own == *part)
}

fn label_of<'a>(workload: &'a Workload, label: &str) -> &'a str {
    match label {
        "topology.istio.io/network" => &workload.network,
        "topology.istio.io/cluster" => &workload.cluster_id,
        "topology.kubernetes.io/region" => &workload.locality.region,
        "topology.kubernetes.io/zone" => &workload.locality.zone,
        "topology.istio.io/subzone" => &workload.locality.subzone,
        "kubernetes.io/hostname" => &workload.node,
        "service.istio.io/canonical-name" | "app" => &workload.canonical_name,
        "service.istio.io/canonical-revision" | "version" => &workload.canonical_revision,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::{service, workload};

    fn at(locality: &str) -> Workload {
        let mut parts = locality.split('/').map(Arc::from);
        let mut part = || parts.next().unwrap_or_default();
        Workload {
            locality: Locality {
                region: part(),
                zone: part(),
                subzone: part(),
            },
            ..workload("w", &[])
        }
    }

    fn levels(grading: &Grading<'_>, localities: &[&str]) -> Vec<usize> {
        let level = |locality: &&str| match grading.grade(&at(locality)) {
            Grade::Level(level) => level,
            other => panic!("{other:?}"),
        };
        localities.iter().map(level).collect()
    }

    const EVERYWHERE: [&str; 5] = ["eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "as/a/1"];

    #[test]
    fn who_is_near_depends_on_what_is_said() {
        use Scope::{Network, Region, Zone};
        let pair = |from: &str, to: &str| (Arc::from(from), Arc::from(to));
        let enabled = LocalityPolicy::usual();
        let over = LocalityPolicy {
            failover: vec![pair("as", "eu"), pair("eu", "us")],
            ..enabled.clone()
        };
        let labels = LocalityPolicy {
            failover_priority: vec![
                Arc::from("topology.kubernetes.io/zone"),
                Arc::from("topology.kubernetes.io/region"),
            ],
            ..enabled.clone()
        };
        let off = LocalityPolicy::default();
        let elsewhere = LocalityPolicy {
            distribute: vec![Distribute {
                from: Arc::from("us/*"),
                to: vec![(Arc::from("us"), 100)],
            }],
            ..enabled.clone()
        };
        let any = (BalanceMode::Unspecified, &[][..]);
        let close = (BalanceMode::Failover, &[Network, Region, Zone][..]);
        for (name, balancing, rule, outliers, want) in [
            ("nothing said", any, None, false, [0; 5]),
            ("the mesh's way", any, None, true, [0, 1, 2, 3, 3]),
            ("the service's way", close, None, false, [0, 0, 1, 2, 2]),
            (
                "the rule's before it",
                close,
                Some(&enabled),
                true,
                [0, 1, 2, 3, 3],
            ),
            (
                "without outliers nothing fails over",
                any,
                Some(&over),
                false,
                [0; 5],
            ),
            (
                "another region takes over",
                any,
                Some(&over),
                true,
                [0, 1, 2, 3, 4],
            ),
            (
                "labels in their order",
                any,
                Some(&labels),
                true,
                [0, 0, 2, 1, 1],
            ),
            ("switched off", close, Some(&off), true, [0; 5]),
            ("shares for others", any, Some(&elsewhere), true, [0; 5]),
        ] {
            let (source, cart) = (at("eu/a/1"), service("cart", &[]));
            let cart = cart.balanced(balancing.0, balancing.1);
            let grading = Grading::new(&source, &cart, rule, &enabled, outliers);
            assert_eq!(levels(&grading, &EVERYWHERE), want, "{name}");
        }
        for (name, balancing, rule, mesh, outliers, want) in [
            ("the mesh switched off", any, None, &off, true, [0; 5]),
            (
                "the mesh's failover",
                any,
                None,
                &over,
                true,
                [0, 1, 2, 3, 4],
            ),
            ("not without outliers", any, None, &over, false, [0; 5]),
            (
                "the rule's",
                any,
                Some(&enabled),
                &off,
                true,
                [0, 1, 2, 3, 3],
            ),
            ("the service's", close, None, &off, true, [0, 0, 1, 2, 2]),
        ] {
            let (source, cart) = (at("eu/a/1"), service("cart", &[]));
            let cart = cart.balanced(balancing.0, balancing.1);
            let grading = Grading::new(&source, &cart, rule, mesh, outliers);
            assert_eq!(levels(&grading, &EVERYWHERE), want, "{name}");
        }
    }

    #[test]
    fn fixed_shares_are_by_locality() {
        let to = [("eu/a/*", 80), ("eu/b", 20)];
        let policy = LocalityPolicy {
            enabled: true,
            distribute: vec![Distribute {
                from: Arc::from("eu/*"),
                to: to.map(|(l, p)| (Arc::from(l), p)).to_vec(),
            }],
            ..LocalityPolicy::default()
        };
        let (source, cart) = (at("eu/c"), service("cart", &[]));
        let mesh = LocalityPolicy::usual();
        let grading = Grading::new(&source, &cart, Some(&policy), &mesh, false);
        assert_eq!(grading.shares().collect::<Vec<_>>(), [80, 20]);
        for (locality, want) in [
            ("eu/a/1", Grade::Share(0)),
            ("eu/b/7", Grade::Share(1)),
            ("eu/c", Grade::Nothing),
            ("", Grade::Nothing),
        ] {
            assert_eq!(grading.grade(&at(locality)), want, "{locality}");
        }
    }

    #[test]
    fn every_label_that_may_be_named_is_known() {
        let mut told = at("eu/a/1").on_network("n");
        told.cluster_id = Arc::from("c");
        for label in KNOWN_LABELS {
            assert_ne!(label_of(&told, label), "", "{label}");
        }
    }
}
