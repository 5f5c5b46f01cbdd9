//! Istio's node proxy, one for each workload, with the mesh from a file and certificates from its
//! own pretended authority. Log level, threads and pools are as it comes.

use std::path::Path;

use serde_json::json;

use super::{Mesh, capture_by_mark, listens};
use crate::exec::Daemon;
use crate::fault::Fault;
use crate::rig::{Ground, Place, Stage};

/// Where its tunnels arrive.
const TUNNELS: u16 = 15008;
/// Where it takes captured connections.
const CAPTURED: u16 = 15001;

/// Brings it up in every namespace, then captures them.
pub(super) fn up(stage: &Stage, ground: &Ground, binary: &Path) -> Result<Mesh, Fault> {
    let places = ground.places();
    let workloads: Vec<_> = places.iter().map(|place| workload(place)).collect();
    // JSON is YAML.
    let text = json!({ "workloads": workloads }).to_string();
    let file = stage.write(&format!("{}/mesh.yaml", ground.name), &text)?;
    let mut mesh = Mesh::transparent(ground);
    for place in places {
        let name = &place.namespace;
        let mut command = stage.within(place, &binary.display().to_string());
        command
            .env("PROXY_MODE", "dedicated")
            .env("PROXY_WORKLOAD_INFO", format!("bench/{name}/{name}"))
            .env("FAKE_CA", "true")
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS_PATH", &file)
            .env(
                "PACKET_MARK",
                ::lateen::capture::ruleset::PROXY_MARK.to_string(),
            )
            .env("CLUSTER_ID", "bench")
            .env("NODE_NAME", &place.host);
        let log = stage.file(&format!("{}/{name}.log", ground.name));
        let daemon = Daemon::start(&mut command, &log)?;
        if place.namespace == ground.client.namespace {
            mesh.client_side.push(daemon.pid());
        } else if place.namespace == ground.server.namespace {
            mesh.server_side.push(daemon.pid());
        }
        mesh.daemons.push(daemon);
    }
    for place in ground.places() {
        for port in [CAPTURED, TUNNELS] {
            listens(stage, place, port, &mut mesh)?;
        }
        capture_by_mark(stage, place)?;
    }
    mesh.tunnel_port = Some(TUNNELS);
    Ok(mesh)
}

fn workload(place: &Place) -> serde_json::Value {
    let name = &place.namespace;
    json!({
        "uid": format!("bench//v1/Pod/bench/{name}"),
        "name": name,
        "namespace": "bench",
        "serviceAccount": name,
        "workloadIps": place.addresses,
        "protocol": "HBONE",
        "node": place.host,
        "network": "",
        "services": {},
    })
}
