//! A waypoint: stands for the services and workloads bound to it, and sends on what comes for them
//! (`spec/waypoint-l7.md`).
//!
//! [`server`] accepts tunnels, [`admission`] lets them in, [`place`] says where, [`report`] tells how that goes. [`protocol`]
//! finds out what is spoken in them, [`tcp`] and [`http`] carry it, [`routing`] knows the routes,
//! [`upstream`] finds and opens the way to an endpoint. For whom a tunnel is opened and where it goes on is
//! decided by [`crate::model::waypoint`], how bytes move by [`crate::hbone`].

mod account;
mod admission;
mod attached;
mod endpoints;
mod export;
mod filters;
mod http;
mod jwks;
mod lane;
mod limits;
mod outside;
mod place;
mod protocol;
mod records;
mod report;
mod routing;
mod secure;
mod server;
mod sni;
mod sniff;
mod tcp;
mod tracer;
mod upstream;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

pub use report::{State, Teller};
pub use server::Waypoint;

use crate::agent::MeshState;
use crate::agent::certs::Certs;
use crate::capture::near;
use crate::hbone::{self, Limits, Quic};
use crate::identity::SpiffeId;
use crate::model::policy::Peer;
use crate::model::route::SessionKey;
use crate::model::waypoint::{self, Bound, Options, WaypointName};
use crate::model::workload::Workload;
use crate::resolve::Names;
use crate::telemetry::files::Files;
use crate::telemetry::{Carrier, Metrics};
use endpoints::Endpoints;
use export::Exports;
use jwks::KeySets;
use lane::Lane;
use routing::Routing;
use upstream::Upstream;

/// Streams on one connection that a peer may open (`spec/waypoint-l7.md` §1.1).
const STREAMS: u32 = 100;

/// What a waypoint is and serves with.
pub struct Settings {
    /// Which waypoint.
    pub name: WaypointName,
    /// The node it runs on.
    pub node: Arc<str>,
    /// The threads that carry its connections, at least one.
    pub threads: Vec<Handle>,
    /// How long open connections may finish after a stop.
    pub drain: Duration,
    /// Seals what clients are told of the endpoints they stay with.
    pub sessions: SessionKey,
    /// The directory of the keys of those whose tokens are believed.
    pub keys: PathBuf,
    /// How tunnels go by QUIC; `None` for by TCP alone.
    pub quic: Option<Quic>,
    /// Longest time in which nothing of a request or its answer moves (`spec/waypoint-l7.md` §1.5).
    pub silence: Duration,
}

/// Names outside the mesh. Clients choose those of hosts that are looked up as they ask for them, and shall
/// push nobody else's out, nor keep them waiting.
#[derive(Clone)]
pub struct Lookups {
    /// Those that the mesh has.
    pub configured: Names,
    /// Those that clients ask for (`DYNAMIC_DNS`).
    pub asked_for: Names,
}

/// What [`Settings::silence`] is.
pub const SILENCE: Duration = Duration::from_secs(300);

/// What all tunnels of a waypoint share.
struct Shared<C: hbone::Connector> {
    settings: Settings,
    /// The mesh as last heard.
    mesh: watch::Receiver<Arc<MeshState>>,
    /// The same when it last had an instance here: what came then is served by it to its end.
    placed: ArcSwapOption<MeshState>,
    certs: Certs,
    metrics: Arc<Metrics>,
    upstream: Upstream<C>,
    endpoints: Endpoints,
    http: http::Pool,
    outside: outside::Instances,
    names: Lookups,
    keys: KeySets,
    routing: Routing,
    exports: Exports,
    /// Access logs.
    files: Files,
}

impl<C: hbone::Connector> Shared<C> {
    /// The mesh, and the instance in it. Once that has left, both as they last were: its routes have left
    /// with it, and what is still served must not go on as if there were none.
    fn known(&self, uid: &str) -> Option<(Arc<MeshState>, Arc<Workload>)> {
        let in_it = |mesh: Arc<MeshState>| {
            let instance = Arc::clone(mesh.view.workload(uid)?);
            Some((mesh, instance))
        };
        let now = Arc::clone(&self.mesh.borrow());
        in_it(now).or_else(|| in_it(self.placed.load_full()?))
    }

    /// The uid of the instance that the mesh has here now.
    fn here(&self) -> Option<Arc<str>> {
        let (mesh, settings) = (self.mesh.borrow(), &self.settings);
        let instance = waypoint::instance(&mesh.view, &settings.name, &settings.node)?;
        Some(Arc::clone(&instance.uid))
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        streams_in: STREAMS,
        // What is asked here looks at addresses throughout.
        quic: Quic {
            roaming: false,
            ..settings.quic.unwrap_or_default()
        },
        ..Limits::default()
    }
}

/// Who opened a tunnel. All but the identity and the address is for telemetry only.
struct Client {
    /// Who it has proven to be.
    identity: SpiffeId,
    /// What policies look at of that.
    peer: Option<Peer>,
    /// Where it connects from.
    source: SocketAddr,
    /// The workload of that address.
    workload: Option<Arc<Workload>>,
    /// What it tells of itself.
    /// By what it came here.
    carrier: Carrier,
    baggage: String,
    /// Joins the log lines of all who carry the connection.
    traceparent: String,
}

/// A tunnel that was let in.
struct Arrival<C: hbone::Connector> {
    shared: Arc<Shared<C>>,
    /// The thread that carries it.
    lane: Arc<Lane<C>>,
    /// The waypoint's instance on this node.
    instance: Arc<str>,
    client: Client,
    bound: Bound,
    started: Instant,
}

impl<C: hbone::Connector> Arrival<C> {
    /// Who this waypoint is, where applications are told of it (`spec/waypoint-l7.md` §1.3).
    fn tells_identity(&self) -> Option<SpiffeId> {
        let (_mesh, instance) = self.shared.known(&self.instance)?;
        match self.options(|told| told.xfcc_include_client_identity) {
            true => instance.identity().ok(),
            false => None,
        }
    }

    /// What the mesh says of how this waypoint treats what comes; the defaults where it says nothing.
    fn options<T>(&self, read: impl Fn(&Options) -> T) -> T {
        let known = self.shared.known(&self.instance);
        let told = known.as_ref().and_then(|(mesh, _instance)| {
            let told = mesh.waypoints.get(&self.shared.settings.name)?;
            told.gateway.as_ref()
        });
        match told {
            Some(gateway) => read(&gateway.options),
            None => read(&Options::default()),
        }
    }
}

/// Makes TCP connections from this host's own network.
#[derive(Clone, Debug, Default)]
pub struct HostNetwork;

impl hbone::Connector for HostNetwork {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(to).await?;
        // Refused, small writes are only slower.
        let _slower = stream.set_nodelay(true);
        near::tunnel(&stream);
        Ok(stream)
    }
}
