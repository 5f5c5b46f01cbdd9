//! What `lateen check` prints: the findings, and what the mesh holds when there are no errors.

use serde_json::{Value, json};

use super::diagnose::Style;
use super::load::Loaded;
use crate::model::declaration::Mesh;
use crate::model::route::Kind;

/// The findings of a mesh directory as text, with a last line on what is in it.
pub fn text(loaded: &Loaded, style: &Style) -> String {
    let findings = match loaded.report.diagnostics().is_empty() {
        true => String::new(),
        false => loaded.report.text(style),
    };
    match &loaded.mesh {
        Some(mesh) => format!("{findings}ok: {}\n", contents(mesh)),
        None => findings,
    }
}

/// The same as JSON: what [`Report::json`](super::Report::to_json) gives, with `valid` and, when it
/// is, `resources`: how many there are of each kind.
pub fn json(loaded: &Loaded) -> Value {
    let mut value = loaded.report.to_json();
    value["valid"] = json!(loaded.mesh.is_some());
    if let Some(mesh) = &loaded.mesh {
        value["resources"] = json!({
            "node": mesh.nodes.len(),
            "namespace": mesh.namespaces.len(),
            "workload": mesh.workloads.len(),
            "service": mesh.services.len(),
            "gateway": mesh.gateways.len(),
            "authorization-policy": mesh.authorization_policies.len(),
            "rate-limit": mesh.rate_limits.len(),
            "peer-authentication": mesh.peer_authentications.len(),
            "request-authentication": mesh.request_authentications.len(),
            "grpc-route": of_kind(mesh, Kind::Grpc),
            "http-route": of_kind(mesh, Kind::Http),
            "tls-route": of_kind(mesh, Kind::Tls),
            "tcp-route": of_kind(mesh, Kind::Tcp),
        });
    }
    value
}

fn of_kind(mesh: &Mesh, kind: Kind) -> usize {
    let of_kind = mesh.routes.iter().filter(|route| route.key.kind == kind);
    of_kind.count()
}

fn contents(mesh: &Mesh) -> String {
    let count = |n: usize, kind: &str| match n {
        1 => format!("1 {kind}"),
        n => format!("{n} {kind}s"),
    };
    let gateways = match mesh.gateways.len() {
        0 => None,
        n => Some(count(n, "gateway")),
    };
    let policies = match mesh.authorization_policies.len() {
        0 => None,
        1 => Some("1 authorization policy".to_owned()),
        n => Some(format!("{n} authorization policies")),
    };
    let authentications = match mesh.peer_authentications.len() {
        0 => None,
        n => Some(count(n, "peer authentication")),
    };
    let requests = match mesh.request_authentications.len() {
        0 => None,
        n => Some(count(n, "request authentication")),
    };
    let limits = match mesh.rate_limits.len() {
        0 => None,
        n => Some(count(n, "rate limit")),
    };
    let routes = [
        (Kind::Grpc, "grpc route"),
        (Kind::Http, "http route"),
        (Kind::Tls, "tls route"),
        (Kind::Tcp, "tcp route"),
    ];
    let routes = routes.map(|(kind, words)| (of_kind(mesh, kind), words));
    let routes = routes.into_iter().filter(|(n, _)| *n > 0);
    let routes = routes.map(|(n, words)| count(n, words));
    let kinds = [
        count(mesh.nodes.len(), "node"),
        count(mesh.namespaces.len(), "namespace"),
        count(mesh.workloads.len(), "workload"),
        count(mesh.services.len(), "service"),
    ];
    let kinds = kinds.into_iter().chain(gateways);
    let kinds = kinds.chain(policies).chain(authentications).chain(requests);
    let kinds = kinds.chain(limits).chain(routes);
    kinds.collect::<Vec<_>>().join(", ")
}
