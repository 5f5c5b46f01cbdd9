//! Where waypoints take HBONE (`spec/labels-and-policy.md` §1.4).

use std::collections::HashSet;

use crate::model::declaration::{Gateway, Mesh, Proxy};
use crate::model::outbound::HBONE_PORT;

/// The port beside a node proxy, which has the usual one.
const BESIDE_A_NODE: u16 = 15009;

/// The HBONE port of each waypoint of a mesh, in the order they were written: a node proxy takes the
/// usual one of every address of a machine that workloads are placed on. All instances of a waypoint
/// have the same.
pub fn hbone_ports(mesh: &Mesh) -> Vec<u16> {
    if mesh.gateways.is_empty() {
        return Vec::new();
    }
    let workloads = mesh.workloads.iter().filter_map(|w| w.node.as_deref());
    let busy: HashSet<&str> = workloads.collect();
    let foreign = |name: &str| {
        mesh.nodes
            .get(name)
            .is_some_and(|n| n.proxy == Proxy::Ztunnel)
    };
    let port = |gateway: &Gateway| {
        let mut machines = gateway.machines.names().iter();
        match machines.any(|name| busy.contains(&**name) || foreign(name)) {
            true => BESIDE_A_NODE,
            false => HBONE_PORT,
        }
    };
    let gateways = mesh.gateways.iter();
    gateways
        .map(|gateway| gateway.hbone_port.unwrap_or_else(|| port(gateway)))
        .collect()
}
