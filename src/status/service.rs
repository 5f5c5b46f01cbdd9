//! What the service manager is told: what a start still waits for, and how the process is, in one
//! line.

use std::sync::Arc;

use super::{NodeHandle, Sources};
use crate::agent::report::{CaptureState, LocalStates};
use crate::agent::{MeshState, Placement};
use crate::control::server::Handle as ControlHandle;
use crate::identity::SpiffeId;
use crate::service::State;
use crate::waypoint;

impl Sources {
    /// How the process is as a service.
    pub fn service(&self) -> State {
        State {
            pending: self.unsettled(),
            status: self.brief(),
        }
    }

    /// What a start still waits for. Beyond being [ready](Self::ready) a node has all its workloads
    /// captured and certified, or can say why not.
    fn unsettled(&self) -> Option<String> {
        if let Err(pending) = self.ready() {
            let what = pending.trim_end();
            return Some(what.strip_prefix("pending: ").unwrap_or(what).to_owned());
        }
        let node = self.node.as_ref().filter(|_| self.captures)?;
        let node = node.borrow().clone()?;
        let certified = certificates(&node);
        let mesh = Arc::clone(&node.agent.mesh.borrow());
        unsettled(&mesh, &node.states.borrow(), &certified)
    }

    fn brief(&self) -> String {
        let control = self.control.as_ref().map(control);
        let node = self.node.as_ref().map(|node| match &*node.borrow() {
            Some(handle) => follower(handle, self.captures),
            None => "this machine has not joined: lateen join".to_owned(),
        });
        let waypoints = self.waypoints.iter().map(|(name, state)| {
            let how = match &*state.borrow() {
                waypoint::State::Serving(_) => "serving".to_owned(),
                waypoint::State::Pending(reason) => reason.clone(),
            };
            format!("waypoint {name}: {how}")
        });
        let parts: Vec<String> = control.into_iter().chain(node).chain(waypoints).collect();
        parts.join("; ")
    }
}

/// Whose certificates are there, or fail for a reason that is known.
fn certificates(node: &NodeHandle) -> Vec<SpiffeId> {
    let known = node.agent.certs.snapshot().into_iter();
    let known = known.filter(|c| c.svid.is_some() || c.error.is_some());
    known.map(|c| c.id).collect()
}

fn unsettled(mesh: &MeshState, states: &LocalStates, certified: &[SpiffeId]) -> Option<String> {
    let captured = |p: &&Arc<Placement>| p.enrolled && p.capture.is_some();
    mesh.placements.iter().filter(captured).find_map(|p| {
        let state = states.workloads.get(&p.uid);
        if state.is_none_or(|s| s.capture.is_none()) {
            return Some(format!("the capture of {}/{}", p.namespace, p.name));
        }
        let id = mesh.view.workload(&p.uid)?.identity().ok()?;
        let missing = !certified.contains(&id);
        missing.then(|| format!("a certificate for {id}"))
    })
}

fn control(handle: &ControlHandle) -> String {
    let revision = handle.revisions.borrow().as_ref().map(|r| r.number());
    let revision = revision.map_or_else(|| "no revision".to_owned(), |n| format!("revision {n}"));
    let clients = handle.clients.snapshot();
    let nodes = clients.iter().filter(|client| client.streams > 0).count();
    let stale = handle.source.borrow().stale || handle.compile.borrow().failure.is_some();
    let trouble = match stale {
        true => ", the mesh directory does not pass: lateen check",
        false => "",
    };
    format!("control: {revision}, {nodes} nodes connected{trouble}")
}

fn follower(handle: &NodeHandle, captures: bool) -> String {
    let link = handle.agent.link.borrow().clone();
    let mesh = Arc::clone(&handle.agent.mesh.borrow());
    let revision = mesh.revision.as_ref();
    let revision = revision.map_or_else(String::new, |r| format!(", revision {}", r.number));
    let link = match (link.connected, link.error) {
        (Some(url), _) => format!("connected to {url}"),
        (None, Some(reason)) => format!("not connected: {reason}"),
        (None, None) => "connecting".to_owned(),
    };
    let node = &handle.agent.node;
    if !captures {
        return format!("{node}: {link}{revision}");
    }
    let workloads = workloads(&mesh, &handle.states.borrow());
    let open = handle.connections.len();
    format!("node {node}: {link}{revision}, {workloads}, {open} connections")
}

/// How many workloads are captured, and why one is not.
fn workloads(mesh: &MeshState, states: &LocalStates) -> String {
    let enrolled: Vec<_> = mesh.placements.iter().filter(|p| p.enrolled).collect();
    let state = |p: &Placement| states.workloads.get(&p.uid)?.capture.clone();
    let captured = |p: &&&Arc<Placement>| state(p) == Some(CaptureState::Captured);
    let captured = enrolled.iter().filter(captured).count();
    let failed = enrolled.iter().find_map(|p| match state(p) {
        Some(CaptureState::Failed(reason)) => {
            Some(format!(" ({}/{}: {reason})", p.namespace, p.name))
        }
        _ => None,
    });
    let of = enrolled.len();
    format!(
        "{captured} of {of} workloads captured{}",
        failed.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::declaration::Capture;
    use crate::model::testing::{view, workload};

    fn placed(name: &str, enrolled: bool) -> Arc<Placement> {
        Arc::new(Placement {
            uid: Arc::from(name),
            name: Arc::from(name),
            namespace: Arc::from("shop"),
            service_account: Arc::from(name),
            enrolled,
            capture: Some(Capture::Netns(Arc::from(name))),
            dns_capture: None,
            health: None,
        })
    }

    #[test]
    fn a_start_is_over_when_every_workload_is_captured_or_fails_for_a_reason() {
        use CaptureState::{Captured, Failed};
        let mesh = MeshState {
            placements: vec![
                placed("cart", true),
                placed("web", true),
                placed("old", false),
            ],
            ..MeshState::default()
        };
        let failed = || Failed("no such network".to_owned());
        let cases: [(_, &[(&str, CaptureState)], _, _); 3] = [
            (
                "nothing is known",
                &[],
                Some("the capture of shop/cart"),
                "0 of 2 workloads captured",
            ),
            (
                "one is captured",
                &[("cart", Captured)],
                Some("the capture of shop/web"),
                "1 of 2 workloads captured",
            ),
            (
                "the other one fails",
                &[("cart", Captured), ("web", failed())],
                None,
                "1 of 2 workloads captured (shop/web: no such network)",
            ),
        ];
        for (name, known, pending, told) in cases {
            let mut states = LocalStates::default();
            for (uid, state) in known {
                states.captured(&Arc::from(*uid), state.clone());
            }
            assert_eq!(unsettled(&mesh, &states, &[]).as_deref(), pending, "{name}");
            assert_eq!(workloads(&mesh, &states), told, "{name}");
        }
    }

    #[test]
    fn a_start_waits_for_certificates_of_workloads_that_the_mesh_knows() {
        let mesh = MeshState {
            placements: vec![placed("cart", true), placed("unknown", true)],
            view: Arc::new(view(vec![workload("cart", &["10.1.0.1"])], Vec::new())),
            ..MeshState::default()
        };
        let mut states = LocalStates::default();
        for uid in ["cart", "unknown"] {
            states.captured(&Arc::from(uid), CaptureState::Captured);
        }
        let cart: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let pending = unsettled(&mesh, &states, &[]);
        assert_eq!(pending, Some(format!("a certificate for {cart}")));
        assert_eq!(unsettled(&mesh, &states, &[cart]), None);
    }
}
