//! Where the mesh places a waypoint: which of its instances this process is, and where that one
//! listens (`spec/waypoint-l7.md` §1.1).

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::warn;

use super::{Settings, Shared, limits};
use crate::agent::MeshState;
use crate::agent::certs::CertError;
use crate::hbone::{Connector, Endpoint, Links};
use crate::model::waypoint;
use crate::model::workload::Workload;

/// An instance of a waypoint on this node.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) instance: Arc<Workload>,
    /// Where peers connect to, on each of its addresses.
    port: u16,
    /// It knows how to treat what comes.
    told: bool,
}

/// Why a waypoint takes no tunnels.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unable {
    #[error("the mesh has no waypoint {name} on node {node}")]
    Missing { name: String, node: Arc<str> },
    #[error("waypoint {name} was not told of itself, or cannot read what it was told")]
    Untold { name: String },
    #[error("the mesh gives waypoint {name} no port")]
    NoPort { name: String },
    #[error("waypoint {name} has no address here")]
    NoAddress { name: String },
    #[error("waypoint {name} cannot prove who it is")]
    Unproven { name: String, source: CertError },
    #[error("waypoint {name} has no legal identity")]
    NoIdentity { name: String },
    #[error("cannot listen on {at}")]
    Listen { at: SocketAddr, source: io::Error },
}

impl Place {
    /// The place of a waypoint on this node, by the mesh as last heard.
    pub(super) fn of(settings: &Settings, mesh: &MeshState) -> Result<Self, Unable> {
        let (name, node) = (&settings.name, &settings.node);
        let instance = waypoint::instance(&mesh.view, name, node);
        let instance = instance.ok_or_else(|| Unable::Missing {
            name: name.to_string(),
            node: Arc::clone(node),
        })?;
        let port = waypoint::hbone_port(&mesh.view, name, instance);
        let port = port.ok_or_else(|| Unable::NoPort {
            name: name.to_string(),
        })?;
        Ok(Self {
            instance: Arc::clone(instance),
            port,
            told: mesh
                .waypoints
                .get(name)
                .is_none_or(|told| told.gateway.is_some()),
        })
    }

    /// Whether it is served as the other is.
    fn is_like(&self, other: &Self) -> bool {
        let (this, that) = (&self.instance, &other.instance);
        self.port == other.port
            && self.told == other.told
            && this.uid == that.uid
            && this.addresses == that.addresses
            && this.service_account == that.service_account
            && this.trust_domain == that.trust_domain
    }

    /// Returns once the mesh places the waypoint otherwise, or not here.
    pub(super) async fn left<C: Connector>(&self, shared: &Shared<C>) {
        let mut mesh = shared.mesh.clone();
        let elsewhere = |mesh: &Arc<MeshState>| {
            let now = Self::of(&shared.settings, mesh);
            let same = now.is_ok_and(|now| now.is_like(self));
            if same {
                shared.placed.store(Some(Arc::clone(mesh)));
            }
            !same
        };
        if mesh.wait_for(elsewhere).await.is_err() {
            // Nobody tells of the mesh any more: it stays as it is.
            std::future::pending().await
        }
    }
}

/// Asks for the certificate of the instance, and of nobody else.
pub(super) fn want<C: Connector>(shared: &Shared<C>, place: Option<&Place>) {
    let identity = place.and_then(|place| place.instance.identity().ok());
    let part = format!("waypoint {}", shared.settings.name);
    let ids: BTreeSet<_> = identity.into_iter().collect();
    shared.certs.set_wanted_by(&part, ids);
}

/// Where tunnels come to one address.
pub(super) struct Listener {
    pub(super) tcp: TcpListener,
    /// None where this host has none, or the port is another's.
    pub(super) quic: Option<Endpoint>,
}

/// The same address by QUIC.
fn quic<C: Connector>(shared: &Shared<C>, beside: &TcpListener) -> Option<Endpoint> {
    let opened = || -> io::Result<_> {
        let socket = UdpSocket::bind(beside.local_addr()?)?;
        socket.set_nonblocking(true)?;
        let name = shared.settings.name.to_string();
        Endpoint::new(socket, Links::here(), &name, &limits(&shared.settings))
    };
    let waypoint = &shared.settings.name;
    opened()
        .map_err(|error| warn!(%waypoint, %error, "no socket for QUIC, tunnels come by TCP alone"))
        .ok()
}

/// Listens at a place, once there is a certificate to serve with and it is known how to serve: until
/// then peers had better go by another instance.
pub(super) async fn listen<C: Connector>(
    shared: &Shared<C>,
    place: Result<Place, Unable>,
) -> Result<(Place, Vec<Listener>), Unable> {
    let place = place?;
    let name = || shared.settings.name.to_string();
    if !place.told {
        return Err(Unable::Untold { name: name() });
    }
    let identity = place.instance.identity();
    let identity = identity.map_err(|_illegal| Unable::NoIdentity { name: name() })?;
    let certificate = shared.certs.get(&identity).await;
    certificate.map_err(|source| Unable::Unproven {
        name: name(),
        source,
    })?;
    let mut listeners = Vec::new();
    for address in &place.instance.addresses {
        let at = SocketAddr::new(*address, place.port);
        let tcp = TcpListener::bind(at).await;
        let tcp = tcp.map_err(|source| Unable::Listen { at, source })?;
        let quic = shared.settings.quic.and_then(|_| quic(shared, &tcp));
        listeners.push(Listener { tcp, quic });
    }
    match listeners.is_empty() {
        true => Err(Unable::NoAddress { name: name() }),
        false => Ok((place, listeners)),
    }
}
