//! The way on to an endpoint: which one, and how it is reached (`spec/waypoint-l7.md` §1.8).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::Arrival;
use super::endpoints::{GroupKey, Outcome, Picker, Ruled, UnderWay};
use super::outside::{Outside, Unchosen};
use super::routing::Seen;
use super::secure::{Alpn, Materials, NotSecured, Secured, Stream, introduce};
use crate::agent::certs::{CertError, Certs};
use crate::hbone::{ConnectError, ConnectRequest, Connector, Hop, Tunnel, TunnelIo, headers};
use crate::model::balance::Endpoint;
use crate::model::balance::RoundRobin;
use crate::model::outbound::{Route, Tunnelled};
use crate::model::service::Service;
use crate::model::traffic::{Balance, Keepalive, Settings};
use crate::model::waypoint::{Destination, Picking, as_asked, toward};
use crate::model::workload::Workload;
use crate::node::transport;

/// What the first of two addresses of a name has before the other (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Opens ways as this waypoint.
pub(super) struct Upstream<C> {
    connector: C,
    certs: Certs,
    materials: Materials,
}

/// A way to an endpoint.
pub(super) enum Way {
    /// Through a tunnel.
    Tunnel(Tunnel),
    /// As it is.
    Plain(TcpStream),
    /// Either of them, with something before the program's own protocol.
    Stream(Box<dyn Stream>),
}

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("the waypoint's instance is not in the mesh view")]
    Gone,
    #[error(transparent)]
    Certificate(#[from] CertError),
    #[error(transparent)]
    Tunnel(#[from] ConnectError),
    #[error("cannot connect to {to}")]
    Plain { to: SocketAddr, source: io::Error },
    #[error("no connection to {to} in time")]
    Late { to: SocketAddr },
    #[error(transparent)]
    Unsecured(#[from] NotSecured),
}

impl OpenError {
    /// Whether another endpoint may do better. Nothing has been sent in any case.
    pub(super) fn retryable(&self) -> bool {
        match self {
            Self::Gone | Self::Certificate(_) => false,
            Self::Tunnel(e) => e.retryable(),
            Self::Plain { .. } | Self::Late { .. } | Self::Unsecured(_) => true,
        }
    }

    /// The flag that tells it in the metrics of connections.
    pub(super) fn flag(&self) -> &'static str {
        match self {
            Self::Gone => "CONNECT",
            Self::Certificate(_) => "IDENTITY_ERROR",
            Self::Tunnel(e) => e.flag(),
            Self::Plain { .. } | Self::Late { .. } | Self::Unsecured(_) => "CONNECT",
        }
    }
}

impl<C: Connector + Clone> Upstream<C> {
    pub(super) fn new(connector: C, certs: Certs) -> Self {
        Self {
            connector,
            certs,
            materials: Materials::default(),
        }
    }

    /// What it connects by.
    pub(super) fn connector(&self) -> &C {
        &self.connector
    }

    /// The files that TLS goes by.
    pub(super) fn materials(&self) -> &Materials {
        &self.materials
    }

    async fn tunnel(&self, arrival: &Arrival<C>, to: &Tunnelled) -> Result<Tunnel, OpenError> {
        let known = arrival.shared.known(&arrival.instance);
        let (_mesh, instance) = known.ok_or(OpenError::Gone)?;
        let identity = instance.identity().map_err(|_illegal| OpenError::Gone)?;
        let hop = Hop {
            to: to.hop,
            svid: self.certs.get(&identity).await?,
            accepted: Arc::clone(&to.accepted),
            name: to.name.clone(),
            transport: transport(&instance, &to.workload),
        };
        let client = &arrival.client;
        let service = arrival.bound.service().map(|s| &*s.key.hostname);
        let request = ConnectRequest {
            authority: to.target.into(),
            baggage: client.baggage.clone(),
            forwarded: headers::forwarded(client.source, service),
            traceparent: client.traceparent.clone(),
            carries: crate::hbone::Carries::Bytes,
        };
        let (tunnel, _answer) = arrival.lane.tunnels.connect(&hop, &request).await?;
        Ok(tunnel)
    }

    /// Connects, and to the rival too where the first is not quick (RFC 8305 §5).
    async fn plain(
        &self,
        to: SocketAddr,
        rival: Option<SocketAddr>,
    ) -> Result<TcpStream, OpenError> {
        let failed = |source| OpenError::Plain { to, source };
        let Some(rival) = rival else {
            return self.connector.connect(to).await.map_err(failed);
        };
        let first = self.connector.connect(to);
        tokio::pin!(first);
        let head_start = tokio::time::timeout(HEAD_START, &mut first).await;
        if let Ok(Ok(connected)) = head_start {
            return Ok(connected);
        }
        let second = self.connector.connect(rival);
        if let Ok(Err(_slower)) = head_start {
            return second.await.map_err(failed);
        }
        tokio::pin!(second);
        tokio::select! {
            connected = &mut first => match connected {
                Ok(connected) => Ok(connected),
                Err(_) => second.await.map_err(failed),
            },
            connected = &mut second => match connected {
                Ok(connected) => Ok(connected),
                Err(_) => first.await.map_err(failed),
            },
        }
    }
}

/// An endpoint that was chosen, and how it is reached.
pub(super) struct Chosen {
    pub(super) route: Route,
    /// The traffic policy that holds for it, wherever it goes.
    ruled: Ruled,
    /// That it goes there; absent of a workload by itself, and of an address the mesh does not know.
    pub(super) under_way: Option<Arc<UnderWay>>,
}

impl Chosen {
    /// The endpoint's own address.
    pub(super) fn address(&self) -> SocketAddr {
        match &self.route {
            Route::Passthrough { to } => *to,
            Route::Plain { endpoint, .. } => endpoint.address,
            // Never chosen: names are resolved before.
            Route::Named { port, .. } => SocketAddr::from(([0, 0, 0, 0], *port)),
            Route::Tunnel(tunnelled) => tunnelled.target,
        }
    }

    /// An address of the same name that does as well, of the other family.
    fn rival(&self) -> Option<SocketAddr> {
        let Route::Plain { endpoint, .. } = &self.route else {
            return None;
        };
        let to = endpoint.address;
        let named = Some(&endpoint.workload).filter(|w| !w.hostname.is_empty())?;
        let mut others = named.addresses.iter();
        let other = others.find(|a| a.is_ipv4() != to.is_ipv4())?;
        Some(SocketAddr::new(*other, to.port()))
    }

    /// The traffic policy that holds for it.
    pub(super) fn settings(&self) -> &Settings {
        self.ruled.settings()
    }

    /// Tells how it went.
    pub(super) fn note(&self, outcome: Outcome) {
        if let Some(under_way) = &self.under_way {
            under_way.note(outcome);
        }
    }

    /// How TLS is begun with the program, for a request to `host`, or else to the service by its name.
    pub(super) fn secured(&self, host: Option<&str>, alpn: Alpn) -> Option<Secured> {
        let origination = self.ruled.origination()?;
        let asked = host.or_else(|| self.ruled.hostname()).unwrap_or_default();
        Some(Secured {
            server_name: match &origination.sni {
                Some(sni) => Arc::clone(sni),
                None => Arc::from(asked),
            },
            origination,
            alpn,
        })
    }

    /// Where the connection goes on the wire.
    pub(super) fn hop(&self) -> SocketAddr {
        match &self.route {
            Route::Tunnel(tunnelled) => tunnelled.hop,
            Route::Passthrough { .. } | Route::Plain { .. } | Route::Named { .. } => self.address(),
        }
    }

    /// The endpoint, where the mesh knows it.
    pub(super) fn workload(&self) -> Option<&Arc<Workload>> {
        match &self.route {
            Route::Passthrough { .. } => None,
            Route::Plain { endpoint, .. } => Some(&endpoint.workload),
            Route::Named { workload, .. } => Some(workload),
            Route::Tunnel(tunnelled) => Some(&tunnelled.workload),
        }
    }

    /// The service that it is an endpoint of.
    pub(super) fn service(&self) -> Option<&Arc<Service>> {
        match &self.route {
            Route::Passthrough { .. } => None,
            Route::Plain { service, .. } | Route::Named { service, .. } => service.as_ref(),
            Route::Tunnel(tunnelled) => tunnelled.service.as_ref(),
        }
    }

    /// What the tunnel to it is, if it takes one.
    pub(super) fn tunnelled(&self) -> Option<&Tunnelled> {
        match &self.route {
            Route::Tunnel(tunnelled) => Some(tunnelled),
            Route::Passthrough { .. } | Route::Plain { .. } | Route::Named { .. } => None,
        }
    }
}

impl<C: Connector + Clone> Arrival<C> {
    /// Chooses an endpoint of `to`, as the traffic policy says.
    pub(super) async fn choose(
        &self,
        seen: &Seen,
        to: &Destination<'_>,
        picking: &Picking<'_>,
    ) -> Result<Chosen, Unchosen> {
        let (view, instance) = (&seen.mesh.view, &seen.instance);
        let Destination::Service {
            key,
            port,
            subset,
            asked,
        } = *to
        else {
            let route = toward(view, instance, to, picking, &mut RoundRobin::default())?;
            return Ok(Chosen {
                route,
                ruled: Ruled::default(),
                under_way: None,
            });
        };
        let (ruled, now) = (seen.ruled(to)?, Instant::now());
        let outside = self.outside(seen, to, picking.host).await?;
        let group = GroupKey {
            service: key.clone(),
            port,
            subset: match (&outside, subset) {
                // Each name has endpoints of its own.
                (Outside::Named { host, .. }, _) => Arc::clone(host),
                (_, Some(subset)) => Arc::clone(&subset.name),
                (_, None) => Arc::default(),
            },
        };
        let group = self.shared.endpoints.group(group, now);
        let balance = &ruled.settings().load_balancer.policy;
        let route = if let Outside::AsAsked(workload) = outside {
            Route::Plain {
                endpoint: Endpoint {
                    workload,
                    address: asked,
                },
                service: view.service(key).cloned(),
            }
        } else if *balance == Balance::Passthrough && outside.endpoints().is_none() {
            as_asked(view, instance, key, asked)?
        } else {
            let keyed = matches!(balance, Balance::Hash { .. }) && picking.hash.is_some();
            let picking = Picking {
                // What has a key is asked again where it was (§3.2).
                tried: if keyed { &[] } else { picking.tried },
                pinned: picking.pinned.filter(|at| !group.is_out(*at, now)),
                among: outside.endpoints(),
                ..*picking
            };
            // Of what is resolved only those of the subset were.
            let subset = subset.filter(|_| picking.among.is_none());
            let mut picker = Picker {
                group: &group,
                settings: ruled.settings(),
                locality: ruled.locality(),
                view,
                among: picking.among,
                source: instance,
                subset,
                hash: picking.hash,
                now,
            };
            let to = Destination::Service {
                key,
                port,
                subset,
                asked,
            };
            toward(view, instance, &to, &picking, &mut picker)?
        };
        let mut chosen = Chosen {
            route,
            ruled,
            under_way: None,
        };
        let (address, ruled) = (chosen.address(), &chosen.ruled);
        let enter = |w: &Arc<Workload>| Arc::new(group.enter(&w.uid, address, ruled.clone(), now));
        chosen.under_way = chosen.workload().map(enter);
        Ok(chosen)
    }

    /// Opens the way to an endpoint, as far as its program speaks for itself.
    pub(super) async fn open(
        &self,
        chosen: &Chosen,
        secured: Option<&Secured>,
    ) -> Result<Way, OpenError> {
        let limit = chosen.settings().connection_pool.connect_timeout;
        let opening = tokio::time::timeout(limit, self.way(chosen, secured));
        let to = chosen.address();
        let opened = opening.await.unwrap_or(Err(OpenError::Late { to }));
        match &opened {
            Ok(_) => chosen.note(Outcome::Connected),
            Err(e) if e.retryable() => chosen.note(Outcome::Unreachable),
            Err(_) => {}
        }
        opened
    }

    async fn way(&self, chosen: &Chosen, secured: Option<&Secured>) -> Result<Way, OpenError> {
        let upstream = &self.shared.upstream;
        let (settings, to) = (chosen.settings(), chosen.address());
        let way = match chosen.tunnelled() {
            Some(to) => Way::Tunnel(upstream.tunnel(self, to).await?),
            None => {
                let tcp = upstream.plain(to, chosen.rival()).await?;
                if let Some(keepalive) = settings.connection_pool.tcp_keepalive {
                    keep_alive(&tcp, keepalive);
                }
                Way::Plain(tcp)
            }
        };
        if settings.proxy_protocol.is_none() && secured.is_none() {
            return Ok(way);
        }
        let mut stream: Box<dyn Stream> = match way {
            Way::Tunnel(tunnel) => Box::new(TunnelIo::new(tunnel)),
            Way::Plain(tcp) => Box::new(tcp),
            Way::Stream(stream) => stream,
        };
        if let Some(version) = settings.proxy_protocol {
            let (client, asked) = (self.client.source, self.bound.asked());
            let told = introduce(&mut stream, version, client, asked).await;
            told.map_err(|source| OpenError::Plain { to, source })?;
        }
        if let Some(secured) = secured {
            stream = secured.begin(&upstream.materials, stream, to).await?;
        }
        Ok(Way::Stream(stream))
    }
}

/// What is refused is only probed less often than was asked for.
fn keep_alive(tcp: &TcpStream, wanted: Keepalive) {
    let mut probes = socket2::TcpKeepalive::new();
    if let Some(time) = wanted.time {
        probes = probes.with_time(time);
    }
    if let Some(interval) = wanted.interval {
        probes = probes.with_interval(interval);
    }
    if let Some(retries) = wanted.probes {
        probes = probes.with_retries(retries);
    }
    let _rarer = socket2::SockRef::from(tcp).set_tcp_keepalive(&probes);
}
