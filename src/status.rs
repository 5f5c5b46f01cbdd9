//! What a running process tells of itself over its admin socket: the one place that gathers it
//! from every role.

pub mod binding;
pub mod policy;
pub mod token;
pub mod trust;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::admin::{Answer, Routes};
use crate::agent;
use crate::agent::report::{CaptureState, LocalStates};
use crate::capture::kept::link::Linked;
use crate::clock;
use crate::config::diagnose::Style;
use crate::control::health::{CaptureState as HealthCapture, WorkloadHealth};
use crate::control::server::Handle as ControlHandle;
use crate::model::waypoint::WaypointName;
use crate::node::Connections;
use crate::tls::Svid;
use crate::waypoint;

mod health;
mod routed;
mod service;

pub use health::{ProbeLine, ServiceLine};

/// The parts of a process that follows a control plane, once they are up.
#[derive(Clone)]
pub struct NodeHandle {
    /// Its agent.
    pub agent: agent::Handle,
    /// How its workloads are.
    pub states: watch::Receiver<LocalStates>,
    /// What is open through the node role.
    pub connections: Connections,
    /// Whether the keeper is there, where the node role has one.
    pub keeper: Option<watch::Receiver<Linked>>,
}

/// Where status comes from.
pub struct Sources {
    host: String,
    control: Option<ControlHandle>,
    node: Option<watch::Receiver<Option<NodeHandle>>>,
    /// Whether what follows a control plane has workloads to capture.
    captures: bool,
    waypoints: Vec<(WaypointName, watch::Receiver<waypoint::State>)>,
}

/// `lateen status -o json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// Which build runs.
    pub version: String,
    /// This host's name.
    pub host: String,
    /// The control role, where it runs.
    pub control: Option<ControlStatus>,
    /// What follows a control plane: the node role, and waypoints.
    pub node: Option<NodeStatus>,
    /// The waypoints that this process is an instance of.
    #[serde(default)]
    pub waypoints: Vec<ServedLine>,
}

/// The control role's part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControlStatus {
    /// Number of the revision in force.
    pub revision: Option<u64>,
    /// Where it was read from.
    pub source: Option<String>,
    /// Whether the mesh directory no longer passes, so that an older revision stays in force.
    pub stale: bool,
    /// When the mesh directory was last read, in milliseconds since 1970.
    pub read: Option<u64>,
    /// What is wrong with the mesh directory, rendered for people; empty when nothing is.
    pub problems: String,
    /// Workloads, services and nodes declared.
    pub workloads: usize,
    /// Services declared.
    pub services: usize,
    /// Every node declared or heard of.
    pub nodes: Vec<NodeLine>,
    /// Every service that has endpoints.
    #[serde(default)]
    pub endpoints: Vec<ServiceLine>,
    /// Most nodes have fallen silent at once, so that nothing follows from their silence.
    #[serde(default)]
    pub mass_loss: bool,
}

/// One node, as the control plane sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// `connected`, `draining`, `unreachable`, `joined`, `not joined`, `frozen` or `revoked`.
    pub state: String,
    /// The revision it has in force.
    pub revision: Option<u64>,
    /// Where it calls from.
    pub address: Option<String>,
    /// Workloads that it reports as captured.
    pub captured: usize,
    /// Which build it runs.
    #[serde(default)]
    pub version: Option<String>,
    /// Its operating system.
    #[serde(default)]
    pub os: Option<String>,
    /// Certificates that it holds for its workloads.
    #[serde(default)]
    pub certificates: Option<u32>,
    /// When the first of them expires, in seconds since 1970.
    #[serde(default)]
    pub expires: Option<u64>,
    /// Seconds its clock is ahead of the control plane's, or behind it.
    #[serde(default)]
    pub clock_ahead: Option<i64>,
    /// What it refused or could not do, if anything.
    pub problem: Option<String>,
}

/// The node role's part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NodeStatus {
    /// Its name, once it has joined.
    pub name: Option<String>,
    /// The control plane it is connected to.
    pub control: Option<String>,
    /// Why it is not.
    pub control_error: Option<String>,
    /// Every control plane, in order of preference.
    #[serde(default)]
    pub controls: Vec<ControlLine>,
    /// Since when no control plane has vouched for the mesh view in force, in seconds since 1970;
    /// none while one does.
    #[serde(default)]
    pub stale_since: Option<u64>,
    /// Seconds between this machine's clock and that of the control plane heard last, where they are
    /// more than five minutes apart.
    #[serde(default)]
    pub clock_apart: Option<u64>,
    /// Seconds the connection has been as it is.
    pub since: Option<u64>,
    /// Seconds since the mesh view in force was kept, while it is one from disk.
    #[serde(default)]
    pub kept: Option<u64>,
    /// Seconds that workloads' certificates are taken past their end at the moment, since no control
    /// plane is there to renew them.
    #[serde(default)]
    pub expired_grace: Option<u64>,
    /// The revision in force here.
    pub revision: Option<u64>,
    /// The workloads placed here.
    pub workloads: Vec<WorkloadLine>,
    /// The certificates held.
    pub certificates: Vec<CertificateLine>,
    /// Connections open now.
    pub connections: usize,
    /// How the keeper is: none where this process is its own.
    #[serde(default)]
    pub keeper: Option<KeeperLine>,
}

/// The keeper, as its proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeeperLine {
    /// Whether it answers.
    pub connected: bool,
    /// Since when it does not, in seconds since 1970.
    pub since: Option<u64>,
    /// Why it does not.
    pub error: Option<String>,
}

/// One control plane, as a node sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControlLine {
    /// Where it is.
    pub url: String,
    /// Whether it is the one that is followed.
    pub connected: bool,
    /// Why it was of no use when it was last tried.
    pub error: Option<String>,
}

/// One local workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WorkloadLine {
    /// `namespace/name`.
    pub name: String,
    /// `captured`, `released`, `failed`, `pending` or `not enrolled`.
    pub capture: String,
    /// Why it failed.
    pub error: Option<String>,
    /// Over what tunnels towards it may go: `tcp`, `auto` or `quic`; empty where the mesh does not know it.
    #[serde(default)]
    pub transport: String,
    /// How its probe is.
    #[serde(default)]
    pub probe: ProbeLine,
}

/// One certificate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateLine {
    /// Whose it is.
    pub identity: String,
    /// Its serial in hex.
    pub serial: Option<String>,
    /// Seconds of life left.
    pub left: Option<u64>,
    /// Seconds of grace left, once it has expired and is taken all the same.
    #[serde(default)]
    pub grace: Option<u64>,
    /// Why renewing it fails.
    pub error: Option<String>,
}

/// A waypoint that this process is an instance of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServedLine {
    /// `namespace/name`.
    pub waypoint: String,
    /// Where it takes tunnels; nowhere while it does not.
    pub listens: Vec<SocketAddr>,
    /// Why it does not.
    pub error: Option<String>,
}

impl ServedLine {
    fn of((name, state): &(WaypointName, watch::Receiver<waypoint::State>)) -> Self {
        let (listens, error) = match &*state.borrow() {
            waypoint::State::Serving(at) => (at.clone(), None),
            waypoint::State::Pending(reason) => (Vec::new(), Some(reason.clone())),
        };
        Self {
            waypoint: name.to_string(),
            listens,
            error,
        }
    }
}

impl Sources {
    /// Nothing but the host's name yet.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            control: None,
            node: None,
            captures: false,
            waypoints: Vec::new(),
        }
    }

    /// The control role runs.
    pub fn control(&mut self, handle: ControlHandle) {
        self.control = Some(handle);
    }

    /// A role runs that follows a control plane, and is there once this machine has joined.
    pub fn node(&mut self, handle: watch::Receiver<Option<NodeHandle>>) {
        self.node = Some(handle);
    }

    /// The node role is one of those.
    pub fn captures(&mut self) {
        self.captures = true;
    }

    /// An instance of a waypoint runs, and tells how it is.
    pub fn waypoint(&mut self, name: &WaypointName, state: watch::Receiver<waypoint::State>) {
        self.waypoints.push((name.clone(), state));
    }

    /// Whether all roles do what they are for; else what is still pending.
    ///
    /// # Errors
    /// What is pending, in words.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(control) = &self.control
            && control.revisions.borrow().is_none()
        {
            return Err("pending: a first revision of the mesh\n".to_owned());
        }
        if let Some(node) = &self.node {
            match &*node.borrow() {
                None => return Err("pending: this machine has not joined\n".to_owned()),
                Some(node) if !node.agent.link.borrow().viewed => {
                    return Err("pending: a first view of the mesh\n".to_owned());
                }
                Some(_) => {}
            }
        }
        for (_, waypoint) in &self.waypoints {
            if let waypoint::State::Pending(reason) = &*waypoint.borrow() {
                return Err(format!("pending: {reason}\n"));
            }
        }
        Ok(())
    }

    /// The pages of the admin socket.
    pub fn routes(self: &Arc<Self>) -> Routes {
        let page = |answer: fn(&Self, &[u8]) -> Answer| {
            let sources = Arc::clone(self);
            move |body: Bytes| {
                let sources = Arc::clone(&sources);
                // Some of them are answered only once something is on disk.
                let answered = spawn_blocking(move || answer(&sources, &body));
                async move {
                    answered.await.unwrap_or_else(|e| {
                        Answer::error(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
                    })
                }
            }
        };
        Routes::default()
            .on(
                Method::GET,
                "/status",
                page(|s, _| Answer::json(&s.status())),
            )
            .on(Method::GET, "/connections", page(Self::connections))
            .on(Method::GET, "/policies", page(Self::policies))
            .on(Method::GET, "/waypoints", page(Self::waypoints))
            .on(Method::POST, "/explain", page(Self::explain))
            .on(Method::GET, "/tokens", page(Self::tokens))
            .on(Method::POST, "/tokens", page(Self::create_token))
            .on(Method::POST, "/tokens/node", page(Self::create_bearer))
            .on(Method::POST, "/tokens/revoke", page(Self::revoke_token))
            .on(Method::GET, "/ca", page(Self::ca))
            .on(Method::POST, "/ca/rotate", page(Self::ca_rotate))
            .on(Method::POST, "/ca/revoke", page(Self::ca_revoke))
            .on(Method::POST, "/nodes/revoke", page(Self::revoke_node))
            .on(Method::POST, "/nodes/approve", page(Self::approve_node))
            .on(Method::GET, "/certificates", page(Self::certificates))
    }

    fn status(&self) -> Status {
        let node = self.node.as_ref().map(|n| node_status(n.borrow().as_ref()));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.host.clone(),
            control: self.control.as_ref().map(control_status),
            node,
            waypoints: self.waypoints.iter().map(ServedLine::of).collect(),
        }
    }

    fn connections(&self, _body: &[u8]) -> Answer {
        match self.node.as_ref().and_then(|n| n.borrow().clone()) {
            Some(node) => Answer::json(&node.connections.snapshot()),
            None => Answer::error(StatusCode::NOT_FOUND, "no node role runs in this process"),
        }
    }

    /// The control role, where it is the one that enrols and revokes.
    fn of_primary(&self) -> Result<&ControlHandle, Answer> {
        let control = self.of_control()?;
        match &control.primary {
            None => Ok(control),
            Some(primary) => {
                let reason = format!("this control plane leaves that to {primary}; ask there");
                Err(Answer::error(StatusCode::CONFLICT, reason))
            }
        }
    }

    fn of_control(&self) -> Result<&ControlHandle, Answer> {
        let answer = || {
            let reason = "no control role runs in this process; ask on the control plane's host";
            Answer::error(StatusCode::NOT_FOUND, reason)
        };
        self.control.as_ref().ok_or_else(answer)
    }
}

fn control_status(handle: &ControlHandle) -> ControlStatus {
    let source = handle.source.borrow().clone();
    let compile = handle.compile.borrow().clone();
    let revision = handle.revisions.borrow().clone();
    let mut problems = match source.report.errors() + source.report.warnings() {
        0 => String::new(),
        _ => source.report.text(&Style::for_stream(false, true, 100)),
    };
    if let Some(failure) = &compile.failure {
        problems.push_str(failure);
    }
    let input = handle.inputs.borrow().clone();
    let sizes = input
        .as_ref()
        .map(|i| (i.mesh.workloads.len(), i.mesh.services.len()));
    let (workloads, services) = sizes.unwrap_or_default();
    ControlStatus {
        revision: revision.as_ref().map(|r| r.number()),
        source: revision.as_ref().map(|r| r.summary().source.clone()),
        stale: source.stale || compile.failure.is_some(),
        read: source.read.map(|at| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH);
            u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
        }),
        problems,
        workloads,
        services,
        nodes: nodes(handle),
        endpoints: health::services(&compile.endpoints),
        mass_loss: handle.health.mass_loss(),
    }
}

fn nodes(handle: &ControlHandle) -> Vec<NodeLine> {
    let input = handle.inputs.borrow().clone();
    let joined = handle.enrolment.nodes();
    let clients = handle.clients.snapshot();
    let health = handle.health.snapshot();
    let names = input
        .as_ref()
        .map(|i| i.mesh.nodes.keys().cloned().collect());
    let names: Vec<Arc<str>> = names.unwrap_or_default();
    let line = |name: &Arc<str>| {
        let enrolled = joined.iter().find(|n| n.name == *name);
        let client = clients.iter().find(|c| c.node == *name && c.streams > 0);
        let heard = health.iter().find(|h| h.node == *name);
        let frozen = enrolled.is_some_and(|n| n.frozen);
        let revoked = enrolled.is_some_and(|n| n.revoked);
        let state = match (enrolled, client, heard) {
            _ if revoked => "revoked",
            _ if frozen => "frozen",
            (_, _, Some(heard)) if !heard.reachable => "unreachable",
            (_, Some(_), Some(heard)) if heard.draining => "draining",
            (_, Some(_), _) => "connected",
            (_, None, Some(_)) => "unreachable",
            (Some(_), None, None) => "joined",
            (None, None, None) => "not joined",
        };
        let captured = heard.map_or(0, |h| {
            let captured = |w: &&WorkloadHealth| w.capture == HealthCapture::Captured;
            h.workloads.iter().filter(captured).count()
        });
        NodeLine {
            name: name.to_string(),
            state: state.to_owned(),
            // One that follows another control plane reports it.
            revision: client.and_then(|c| c.revision()).or_else(|| {
                let applied = heard?.applied.iter();
                applied.filter_map(|a| a.version.parse().ok()).next()
            }),
            version: heard
                .map(|h| h.host.version.clone())
                .filter(|v| !v.is_empty()),
            os: heard.map(|h| h.host.os.clone()).filter(|os| !os.is_empty()),
            certificates: heard.and_then(|h| h.certificates).map(|c| c.count),
            expires: heard.and_then(|h| h.certificates).and_then(|c| {
                u64::try_from(c.soonest_not_after_ms / 1000)
                    .ok()
                    .filter(|at| *at > 0)
            }),
            clock_ahead: heard
                .filter(|h| h.host.wall_clock_ms > 0)
                .map(|h| h.clock_ahead_ms / 1000),
            address: client.map(|c| c.address.ip().to_string()),
            captured,
            problem: client
                .and_then(|c| c.nack.as_ref())
                .map(|n| n.message.clone())
                .or_else(|| heard.and_then(health::finding)),
        }
    };
    names.iter().map(line).collect()
}

/// Seconds for which a certificate that has expired is still taken.
fn grace_left(svid: &Svid) -> Option<u64> {
    let now = clock::now();
    let left = svid.good_until().duration_since(now).ok()?;
    (svid.not_after() <= now).then_some(left.as_secs())
}

fn node_status(handle: Option<&NodeHandle>) -> NodeStatus {
    let Some(handle) = handle else {
        return NodeStatus {
            name: None,
            control: None,
            control_error: Some("this machine has not joined a mesh".to_owned()),
            controls: Vec::new(),
            stale_since: None,
            clock_apart: None,
            since: None,
            kept: None,
            expired_grace: None,
            revision: None,
            workloads: Vec::new(),
            certificates: Vec::new(),
            connections: 0,
            keeper: None,
        };
    };
    let link = handle.agent.link.borrow().clone();
    let mesh = Arc::clone(&handle.agent.mesh.borrow());
    let states = handle.states.borrow().clone();
    let workload = |placement: &Arc<agent::Placement>| {
        let state = states.workloads.get(&placement.uid);
        let (capture, error) = match state.and_then(|s| s.capture.as_ref()) {
            _ if !placement.enrolled => ("not enrolled", None),
            None => ("pending", None),
            Some(CaptureState::Captured) => ("captured", None),
            Some(CaptureState::Released) => ("released", None),
            Some(CaptureState::Failed(reason)) => ("failed", Some(reason.clone())),
        };
        WorkloadLine {
            name: format!("{}/{}", placement.namespace, placement.name),
            capture: capture.to_owned(),
            error,
            transport: {
                let known = mesh.view.workload(&placement.uid);
                known.map_or_else(String::new, |w| w.transport.as_str().to_owned())
            },
            probe: ProbeLine::of(state.and_then(|s| s.probe.as_ref())),
        }
    };
    let certificate = |status: agent::certs::CertStatus| CertificateLine {
        identity: status.id.to_string(),
        serial: status.svid.as_ref().map(|s| s.serial().to_owned()),
        left: status.svid.as_ref().map(|s| {
            let left = s.not_after().duration_since(clock::now());
            left.unwrap_or_default().as_secs()
        }),
        grace: status.svid.as_ref().and_then(|s| grace_left(s)),
        error: status.error.map(|e| e.to_string()),
    };
    let identity = handle.agent.identity.as_ref();
    let grace = identity.map(|id| id.borrow().svid.trust().grace());
    let grace = grace.filter(|g| g.alone.is_some() && !g.lasts.is_zero());
    let stale_since = link.stale_since();
    let controls = link.controls.into_iter().map(|line| ControlLine {
        connected: link.connected.as_ref() == Some(&line.url),
        url: line.url,
        error: line.error,
    });
    NodeStatus {
        name: Some(handle.agent.node.to_string()),
        controls: controls.collect(),
        stale_since,
        clock_apart: handle.agent.clock_apart.borrow().map(|by| by.as_secs()),
        control: link.connected,
        control_error: link.error,
        kept: link.kept.map(|k| k.elapsed().unwrap_or_default().as_secs()),
        since: link
            .since
            .map(|s| s.elapsed().unwrap_or_default().as_secs()),
        expired_grace: grace.map(|g| g.lasts.as_secs()),
        revision: mesh.revision.as_ref().map(|r| r.number),
        workloads: mesh.placements.iter().map(workload).collect(),
        certificates: handle
            .agent
            .certs
            .snapshot()
            .into_iter()
            .map(certificate)
            .collect(),
        connections: handle.connections.len(),
        keeper: handle.keeper.as_ref().map(|k| keeper(&k.borrow())),
    }
}

fn keeper(linked: &Linked) -> KeeperLine {
    let (since, error) = match linked {
        Linked::Up => (None, None),
        Linked::Down { since, reason } => (Some(clock::seconds(*since)), Some(reason.clone())),
    };
    KeeperLine {
        connected: *linked == Linked::Up,
        since,
        error,
    }
}
