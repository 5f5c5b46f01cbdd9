//! Whether the next step of replacing a root would cut anybody off (`spec/control-plane.md` §4.5).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ca::Phase;
use super::revision::Kind;
use super::server::Handle;
use crate::model::declaration::{Node, Proxy};

/// Times are kept in seconds, so what was made in the second of a step may be from before it.
const GRAIN: Duration = Duration::from_secs(1);

/// How one node that is part of the mesh stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub node: Arc<str>,
    /// A stock proxy: it hears of roots with its certificates only.
    pub stock: bool,
    /// It has acknowledged the trust bundle in force.
    pub acknowledged: bool,
    /// When its own certificate was made; none for a stock proxy.
    pub renewed: Option<SystemTime>,
    /// Its workloads' identities, and when it last had a certificate of each.
    pub issued: Vec<(String, Option<SystemTime>)>,
    /// It has not been here for longer than any certificate it could have lives.
    pub gone: bool,
}

/// How every node that could be cut off stands.
pub fn standings(control: &Handle, now: SystemTime) -> Vec<Standing> {
    let Some(input) = control.inputs.borrow().clone() else {
        return Vec::new();
    };
    let revision = control.revisions.borrow().clone();
    let joined = control.enrolment.nodes();
    let clients = control.clients.snapshot();
    let life = input.mesh.settings.certificate_ttl;
    let td = control.authority.trust_domain();
    let standing = |(name, node): (&Arc<str>, &Node)| {
        let stock = node.proxy == Proxy::Ztunnel;
        let record = joined.iter().find(|n| n.name == *name && !n.revoked);
        let client = clients.iter().find(|c| c.node == *name);
        let connected = client.is_some_and(|c| c.streams > 0);
        if record.is_none() && !connected {
            return None;
        }
        let since = revision.as_ref().map_or(0, |r| r.trust_since());
        let acked = client.and_then(|c| c.acked(Kind::Trust));
        let ids = revision.iter().flat_map(|r| r.identities(name));
        let ids = ids.map(|(ns, sa)| format!("spiffe://{td}/ns/{ns}/sa/{sa}"));
        let issued: Vec<_> = ids
            .map(|id| (id.clone(), control.issued.last(name, &id)))
            .collect();
        let renewed = record.map(|r| UNIX_EPOCH + Duration::from_secs(r.renewed));
        let last = issued.iter().filter_map(|(_, at)| *at).chain(renewed).max();
        Some(Standing {
            node: Arc::clone(name),
            stock,
            acknowledged: acked.is_some_and(|acked| acked >= since),
            renewed: renewed.filter(|_| !stock),
            issued,
            gone: !connected && last.is_none_or(|last| last + life < now),
        })
    };
    input.mesh.nodes.iter().filter_map(standing).collect()
}

/// What must not be cut off by leaving `phase`, which began at `since`; empty when nothing would be.
pub fn in_the_way(phase: Phase, since: SystemTime, nodes: &[Standing]) -> Vec<String> {
    let here = nodes.iter().filter(|n| !n.gone);
    match phase {
        Phase::Steady => Vec::new(),
        Phase::Add => here
            .filter(|n| !n.stock && !n.acknowledged)
            .map(|n| format!("{} has not taken up the new root yet", n.node))
            .collect(),
        Phase::Switch => here.flat_map(|n| from_before(n, since + GRAIN)).collect(),
    }
}

fn from_before(node: &Standing, switch: SystemTime) -> Vec<String> {
    let name = &node.node;
    let mut reasons = Vec::new();
    if node.renewed.is_some_and(|at| at < switch) {
        reasons.push(format!("{name}'s own certificate is still from before"));
    }
    for (id, at) in &node.issued {
        if at.is_none_or(|at| at < switch) {
            reasons.push(format!("{name} has no new certificate of {id} yet"));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A node that is through with everything by the time 200.
    fn node() -> Standing {
        Standing {
            node: Arc::from("edge-1"),
            stock: false,
            acknowledged: true,
            renewed: Some(at(200)),
            issued: vec![(CART.to_owned(), Some(at(200)))],
            gone: false,
        }
    }

    #[test]
    fn a_step_waits_for_whom_it_would_cut_off() {
        let unheard = Standing {
            acknowledged: false,
            ..node()
        };
        let stock = Standing {
            stock: true,
            renewed: None,
            ..unheard.clone()
        };
        let old = Standing {
            renewed: Some(at(50)),
            ..node()
        };
        let old_leaf = Standing {
            issued: vec![(CART.to_owned(), Some(at(100)))],
            ..node()
        };
        let no_leaf = Standing {
            issued: vec![(CART.to_owned(), None)],
            ..node()
        };
        let gone = Standing {
            gone: true,
            ..no_leaf.clone()
        };
        for (name, phase, node, want) in [
            ("nothing is under way", Phase::Steady, &unheard, None),
            ("heard", Phase::Add, &node(), None),
            ("not heard", Phase::Add, &unheard, Some("has not taken up")),
            ("stock proxies hear later", Phase::Add, &stock, None),
            ("all new", Phase::Switch, &node(), None),
            ("stock, all new", Phase::Switch, &stock, None),
            (
                "old node certificate",
                Phase::Switch,
                &old,
                Some("own certificate"),
            ),
            (
                "made in that very second",
                Phase::Switch,
                &old_leaf,
                Some("no new certificate of"),
            ),
            (
                "never made",
                Phase::Switch,
                &no_leaf,
                Some("no new certificate of"),
            ),
            ("long gone", Phase::Switch, &gone, None),
        ] {
            let reasons = in_the_way(phase, at(100), std::slice::from_ref(node));
            let fits = match want {
                None => reasons.is_empty(),
                Some(want) => reasons.iter().any(|r| r.contains(want)),
            };
            assert!(fits, "{name}: {reasons:?}");
        }
    }
}
