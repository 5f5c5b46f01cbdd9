//! The way of datagrams, which no waypoint stands in.

use super::walk::{Arrival, Explaining, Turn, address, tunnel};
use super::{Explanation, Way, label, step};
use crate::model::outbound::Tunnelled;
use crate::model::udp::{self, Route};
use crate::model::workload::TunnelProtocol;

impl Explaining<'_> {
    /// Where they go, and what becomes of them.
    pub(super) fn datagrams(&self, explanation: &mut Explanation) {
        if self.source.addresses.contains(&self.to.ip()) {
            let text = format!("{} is the workload itself: it is not left", self.to);
            return past(true, text, explanation);
        }
        if self.source.tunnel == TunnelProtocol::None {
            return self.unseen(explanation);
        }
        let mut turn = Turn { now: 0, of: 1 };
        while turn.now < turn.of {
            match udp::decide(self.view, self.source, self.to, &mut turn) {
                Err(refusal) => {
                    explanation.reason = format!("dropped by the client's node: {refusal}");
                    explanation.steps.push(step("route", refusal.to_string()));
                    return;
                }
                Ok(Route::Past) => {
                    let to = self.to;
                    let text = format!(
                        "{to} is no UDP port of the mesh's that datagrams are carried to: they leave as they are, from nobody"
                    );
                    return past(true, text, explanation);
                }
                Ok(Route::Tunnel(route)) => explanation.ways.push(self.carried(&route)),
            }
            turn.now += 1;
        }
        if explanation.ways.len() > 1 {
            let text = format!("{} endpoints may be chosen", explanation.ways.len());
            explanation.steps.push(step("route", text));
        }
    }

    /// Through a tunnel, past every waypoint.
    fn carried(&self, route: &Tunnelled) -> Way {
        let (workload, hop, to) = (&*route.workload, route.hop, route.target);
        let Some(source) = address(self.source, hop.ip()) else {
            return Self::no_way(self.source, workload, to);
        };
        let arrival = Arrival {
            identity: self.source.identity().ok(),
            source,
            at: to,
            service: route.service.as_deref(),
        };
        let via = format!(
            "{} to {} at {hop}, asking for UDP at {to}; no waypoint is passed",
            tunnel(self.source, workload),
            label(workload)
        );
        let host = arrival.service.map(|s| &*s.key.hostname);
        let delivery = udp::arrive(self.view, workload, hop.ip(), to, host);
        self.arrive(workload, &arrival, step("transport", via), delivery)
    }

    /// From a workload that is not captured: the server's node alone is on the way, if any.
    fn unseen(&self, explanation: &mut Explanation) {
        let (network, to) = (&self.source.network, self.to);
        let own = self.view.workload_at(network, to.ip());
        let served = own.or_else(|| self.view.udp_sharer_at(network, to));
        let served = served.filter(|w| w.carries_udp());
        let asked = served.zip(address(self.source, to.ip()));
        let Some((workload, source)) = asked.filter(|(workload, _)| {
            let ports = self.view.udp_inbound(&workload.uid);
            ports.contains(&to.port())
        }) else {
            let vip = self.view.is_vip(network, to.ip());
            let text = match vip {
                true => format!(
                    "{to} is a service's address, where nobody answers but for captured workloads"
                ),
                false => format!("nothing of the mesh looks at datagrams to {to}"),
            };
            return past(!vip, text, explanation);
        };
        let arrival = Arrival {
            identity: None,
            source,
            at: to,
            service: None,
        };
        let via = format!("plain datagrams to {} at {to}", label(workload));
        let delivery = udp::arrive(self.view, workload, to.ip(), to, None);
        let way = self.arrive(workload, &arrival, step("transport", via), delivery);
        explanation.ways.push(way);
    }
}

/// They get to no workload of the mesh.
fn past(allowed: bool, text: String, explanation: &mut Explanation) {
    explanation.allowed = allowed;
    explanation.steps.push(step("route", text.clone()));
    explanation.reason = text;
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::config;
    use crate::explain::{Question, explain, intended};

    const MESH: &str = r#"
[[node]]
name = "edge-1"
addresses = ["10.1.0.1"]
[[namespace]]
name = "shop"
dataplane-mode = "ambient"
[[workload]]
name = "web"
namespace = "shop"
node = "edge-1"
service-account = "web"
addresses = ["10.1.1.1"]
capture = { netns = "web" }
[[workload]]
name = "api"
namespace = "shop"
node = "edge-1"
service-account = "api"
addresses = ["10.1.1.2"]
capture = { netns = "api" }
[[workload]]
name = "old"
namespace = "shop"
node = "edge-1"
addresses = ["10.1.1.3"]
dataplane-mode = "none"
[[workload]]
name = "boot"
namespace = "shop"
node = "edge-1"
service-account = "boot"
addresses = ["10.1.1.9"]
labels = { app = "boot" }
capture = { netns = "boot" }
[[service]]
name = "boot"
namespace = "shop"
selector = { app = "boot" }
ports = [{ port = 69, target-port = 6969, protocol = "udp" }]
[[authorization-policy]]
name = "boots"
namespace = "shop"
selector = { match-labels = { app = "boot" } }
action = "ALLOW"
rules = [{ from = [{ source = { principals = ["cluster.local/ns/shop/sa/web"] } }] }]
"#;

    #[test]
    fn datagrams_are_explained_as_nodes_judge_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mesh.toml"), MESH).unwrap();
        let loaded = config::load(dir.path());
        assert_eq!(loaded.report.errors(), 0, "{}", loaded.report);
        let mesh = intended(&loaded.mesh.unwrap()).unwrap();
        for (from, to, allowed, reason, via) in [
            (
                "web",
                "boot:69",
                true,
                "allowed by",
                "asking for UDP at 10.1.1.9:6969",
            ),
            (
                "api",
                "boot:69",
                false,
                "not allowed by policy shop/boots",
                "asking for UDP at",
            ),
            (
                "web",
                "10.1.1.9:6969",
                true,
                "allowed by",
                "asking for UDP at",
            ),
            ("web", "boot:70", true, "no UDP port of the mesh's", ""),
            (
                "old",
                "10.1.1.9:6969",
                false,
                "not allowed by policy shop/boots",
                "plain datagrams to",
            ),
            ("old", "10.1.1.9:6970", true, "nothing of the mesh", ""),
            (
                "old",
                "boot:69",
                false,
                "nobody answers but for captured",
                "",
            ),
            ("boot", "10.1.1.9:6969", true, "is the workload itself", ""),
        ] {
            let question = Question {
                from: format!("shop/{from}"),
                to: to.to_owned(),
                request: None,
                udp: true,
            };
            let told = explain(&mesh.view, &mesh.names, &mesh.waypoints, &question).unwrap();
            let name = format!("{from} to {to}: {told:#?}");
            assert_eq!(told.allowed, allowed, "{name}");
            assert!(told.reason.contains(reason), "{name}");
            let steps = told.ways.iter().flat_map(|way| &way.steps);
            let found = steps.chain(&told.steps).any(|step| step.text.contains(via));
            assert!(found, "{name}");
        }
    }
}
