//! Routes in a few words.

use std::sync::Arc;

use super::{gateway, mesh, service, using};
use crate::model::declaration::{
    Machines, Mesh, Origin, ParentKind, ParentRef, Route, WaypointFor,
};
use crate::model::route::{
    Backend, BackendKind, BackendRef, Fault, Kind, Match, RouteKey, Rule, Timeouts,
};

/// `cart` and `web` behind waypoint `wp`, which runs on `edge-1`; `cart` goes to `web`.
pub(crate) fn rerouted() -> Mesh {
    let mut mesh = mesh();
    let mut wp = gateway("wp", WaypointFor::Service);
    wp.machines = Machines::One(Arc::from("edge-1"));
    mesh.gateways = vec![wp];
    mesh.services = vec![service("cart"), service("web")];
    mesh.namespaces.get_mut("shop").unwrap().use_waypoint = using("wp");
    mesh.routes = vec![http("a", 1, "cart", &["web:80"])];
    mesh
}

/// Line 1 of `mesh.toml` is older than line 2.
pub(crate) fn at(line: u32) -> Origin {
    Origin {
        file: Arc::from("mesh.toml"),
        line,
    }
}

/// `name`, `ns/name` or `host:…`, with `:port` and `#subset`.
pub(crate) fn backend(written: &str) -> BackendRef {
    let (written, subset) = written.split_once('#').unwrap_or((written, ""));
    let (kind, written) = match written.split_once('=') {
        Some(("host", name)) => (BackendKind::Hostname, name),
        Some((kind, name)) => (BackendKind::Unknown(Arc::from(kind)), name),
        None => (BackendKind::Service, written),
    };
    let (name, port) = written.split_once(':').unwrap_or((written, ""));
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    BackendRef {
        kind,
        name: Arc::from(name),
        namespace: Arc::from(namespace),
        port: port.parse().ok(),
        subset: Some(subset).filter(|s| !s.is_empty()).map(Arc::from),
        origin: at(9),
    }
}

pub(crate) fn rule(to: &[&str]) -> Rule<BackendRef> {
    let backend = |to: &&str| Backend {
        to: backend(to),
        weight: 1,
        filters: Vec::new(),
    };
    Rule {
        name: Arc::default(),
        line: 1,
        matches: vec![Match::default()],
        filters: Vec::new(),
        backends: to.iter().map(backend).collect(),
        timeouts: Timeouts::default(),
        retry: None,
        persistence: None,
        fault: Fault::default(),
    }
}

/// In `shop`, of `echo` or another service; `echo:80` names the port.
pub(crate) fn route(kind: Kind, name: &str, line: u32, parent: &str, to: &[&str]) -> Route {
    let (parent, port) = parent.split_once(':').unwrap_or((parent, ""));
    let virtual_service = kind == Kind::VirtualService;
    Route {
        origin: at(line),
        key: RouteKey {
            kind,
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        },
        parents: match virtual_service {
            true => Vec::new(),
            false => vec![ParentRef {
                kind: ParentKind::Service,
                namespace: Arc::from("shop"),
                name: Arc::from(parent),
                port: port.parse().ok(),
                origin: at(line),
            }],
        },
        hosts: match virtual_service {
            true => vec![Arc::from(parent)],
            false => Vec::new(),
        },
        rules: vec![rule(to)],
        delegates: Vec::new(),
    }
}

pub(crate) fn http(name: &str, line: u32, parent: &str, to: &[&str]) -> Route {
    route(Kind::Http, name, line, parent, to)
}
