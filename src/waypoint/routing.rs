//! Which routes hold for what comes through a tunnel: tables made of what the control plane tells, once
//! per revision, and kept until the next.
//!
//! A request or a connection is judged by one [`Seen`] from start to end, whatever changes meanwhile
//! (`spec/control-plane.md` §8.3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, OnceLock};

use arc_swap::ArcSwapOption;

use super::attached::{Attached, InForce};
use super::endpoints::Ruled;
use super::limits::{Counted, Counters};
use super::{Arrival, Shared};
use crate::agent::MeshState;
use crate::hbone::Connector;
use crate::model::attached::PolicyKey;
use crate::model::route::{Retry, Table, Target, TlsTable, Unresolved};
use crate::model::service::{AppProtocol, ServiceKey};
use crate::model::waypoint::{
    Bound, BoundPort, Destination, External, GatewayConfig, Options, Resources,
};
use crate::model::workload::Workload;

/// What holds where nobody says otherwise.
static DEFAULT: LazyLock<Options> = LazyLock::new(Options::default);

/// The tables of the latest revision.
#[derive(Default)]
pub(super) struct Routing {
    latest: ArcSwapOption<Tables>,
    counters: Counters,
}

/// The tables of one revision, each made when it is first asked for.
struct Tables {
    of: Arc<Resources>,
    services: HashMap<ServiceKey, Service>,
    /// What holds for all that is addressed to workloads.
    workloads: Attached,
    /// The rate limits, made with the tables and not when they are first asked for: what has been
    /// counted is handed from one revision to the next.
    limits: HashMap<PolicyKey, Arc<Counted>>,
}

/// What holds for a service.
#[derive(Default)]
struct Service {
    /// In the order of the binding's ports.
    ports: Vec<Port>,
    attached: Attached,
}

/// The routes of a port.
#[derive(Default)]
struct Port {
    requests: OnceLock<Result<Table, Unresolved>>,
    connections: OnceLock<Result<TlsTable, Unresolved>>,
}

/// The mesh as one request or connection sees it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) mesh: Arc<MeshState>,
    /// The waypoint's instance on this node.
    pub(super) instance: Arc<Workload>,
    tables: Option<Arc<Tables>>,
}

/// Why nobody knows where something goes: it is refused, and never sent on as if there were no routes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
    #[error("the waypoint was not told of itself")]
    Itself,
    #[error("the waypoint was not told of service {0}")]
    Service(ServiceKey),
    #[error("the waypoint was not told of port {port} of service {service}")]
    Port { service: ServiceKey, port: u16 },
    #[error("the waypoint was not told of subset `{subset}` of service {service}")]
    Subset {
        service: ServiceKey,
        subset: Arc<str>,
    },
    #[error("the waypoint was not told of rate-limit {0}")]
    Limit(PolicyKey),
    #[error("the waypoint was not told of `{rule}`, the traffic policy of service {service}")]
    Traffic { service: ServiceKey, rule: Arc<str> },
    #[error("the waypoint was not told of telemetry `{0}`")]
    Telemetry(PolicyKey),
    #[error(transparent)]
    Route(#[from] Unresolved),
}

impl Routing {
    /// The tables of these resources.
    fn of(&self, resources: &Arc<Resources>) -> Arc<Tables> {
        let latest = self.latest.load();
        if let Some(tables) = &*latest
            && Arc::ptr_eq(&tables.of, resources)
        {
            return Arc::clone(tables);
        }
        let tables = Arc::new(Tables::new(resources, &self.counters));
        self.latest.store(Some(Arc::clone(&tables)));
        tables
    }
}

impl Tables {
    fn new(resources: &Arc<Resources>, counters: &Counters) -> Self {
        let limits = resources.limits.iter();
        let limits = limits.map(|(key, limit)| (key.clone(), Arc::new(counters.counted(limit))));
        let services = resources.services.iter();
        let services = services.map(|(key, binding)| {
            let ports = binding.ports.iter().map(|_| Port::default());
            let service = Service {
                ports: ports.collect(),
                attached: Attached::default(),
            };
            (key.clone(), service)
        });
        Self {
            services: services.collect(),
            workloads: Attached::default(),
            limits: limits.collect(),
            of: Arc::clone(resources),
        }
    }

    /// A port that is asked for, with what is told of it.
    fn port(&self, service: &ServiceKey, port: u16) -> Result<(&Port, &BoundPort), Untold> {
        let unknown = || Untold::Service(service.clone());
        let binding = self.of.services.get(service).ok_or_else(unknown)?;
        let ports = self.services.get(service).ok_or_else(unknown)?;
        let mut both = ports.ports.iter().zip(&binding.ports);
        both.find(|(_, told)| told.port == port)
            .ok_or_else(|| Untold::Port {
                service: service.clone(),
                port,
            })
    }
}

impl<C: Connector> Shared<C> {
    /// The mesh as it is now; none where it no longer has the waypoint's instance.
    pub(super) fn look(&self, instance: &str) -> Option<Seen> {
        let (mesh, instance) = self.known(instance)?;
        let told = mesh.waypoints.get(&self.settings.name);
        // The agent has something for every waypoint of this process, be it that nothing is told.
        let tables = told.map(|resources| self.routing.of(resources));
        Some(Seen {
            tables,
            mesh,
            instance,
        })
    }
}

impl<C: Connector> Arrival<C> {
    /// The mesh as it is now; none where it no longer has the waypoint's instance.
    pub(super) fn look(&self) -> Option<Seen> {
        self.shared.look(&self.instance)
    }
}

impl Seen {
    /// What is known of the port of a service that was asked for. None is a workload, or a waypoint
    /// that goes by no routes.
    fn port(&self, bound: &Bound) -> Result<Option<(&Tables, &Port, &BoundPort)>, Untold> {
        let Some((tables, _gateway)) = self.itself()? else {
            return Ok(None);
        };
        let Bound::Service { service, asked, .. } = bound else {
            return Ok(None);
        };
        let (port, told) = tables.port(&service.key, asked.port())?;
        Ok(Some((tables, port, told)))
    }

    /// What is attached to what was asked for; none where no control plane knows of anything.
    pub(super) fn attached(&self, bound: &Bound) -> Result<Option<InForce<'_>>, Untold> {
        let Bound::Service { service, .. } = bound else {
            return self.unbound();
        };
        let Some((tables, _gateway)) = self.itself()? else {
            return Ok(None);
        };
        let unknown = || Untold::Service(service.key.clone());
        let made = tables.services.get(&service.key).ok_or_else(unknown)?;
        let told = tables.of.services.get(&service.key).ok_or_else(unknown)?;
        let attached = InForce::new(&tables.of, &told.set, &made.attached, &tables.limits);
        whole(attached).map(Some)
    }

    /// What holds for what is addressed to workloads, and to nobody that is known.
    pub(super) fn unbound(&self) -> Result<Option<InForce<'_>>, Untold> {
        let Some((tables, gateway)) = self.itself()? else {
            return Ok(None);
        };
        let attached = InForce::new(
            &tables.of,
            &gateway.workload_set,
            &tables.workloads,
            &tables.limits,
        );
        whole(attached).map(Some)
    }

    /// The tables, and what the waypoint is told of itself; none where it is told nothing.
    fn itself(&self) -> Result<Option<(&Tables, &GatewayConfig)>, Untold> {
        let Some(tables) = &self.tables else {
            return Ok(None);
        };
        match &tables.of.gateway {
            Some(gateway) => Ok(Some((tables, gateway))),
            None => Err(Untold::Itself),
        }
    }

    /// The routes of requests; none where everything goes to what was asked for.
    pub(super) fn requests(&self, bound: &Bound) -> Result<Option<&Table>, Untold> {
        let Some((tables, port, told)) = self.port(bound)? else {
            return Ok(None);
        };
        let table = port.requests.get_or_init(|| Table::new(&tables.of, told));
        Ok(Some(table.as_ref().map_err(Clone::clone)?))
    }

    /// The routes of connections; none where everything goes to what was asked for.
    pub(super) fn connections(&self, bound: &Bound) -> Result<Option<&TlsTable>, Untold> {
        let Some((tables, port, told)) = self.port(bound)? else {
            return Ok(None);
        };
        let Bound::Service { service, .. } = bound else {
            return Ok(None);
        };
        let made = || TlsTable::new(&tables.of, &service.key.hostname, told);
        let table = port.connections.get_or_init(made);
        Ok(Some(table.as_ref().map_err(Clone::clone)?))
    }

    /// Whom a backend stands for; none where that is nobody.
    pub(super) fn destination<'a>(
        &'a self,
        to: &'a Target,
        asked: SocketAddr,
    ) -> Result<Option<Destination<'a>>, Untold> {
        let Target::Service { key, port, subset } = to else {
            return Ok(None);
        };
        let unknown = |subset: &Arc<str>| Untold::Subset {
            service: key.clone(),
            subset: Arc::clone(subset),
        };
        let subset = match subset {
            None => None,
            Some(name) => {
                let tables = self.tables.as_ref();
                let binding = tables.and_then(|t| t.of.services.get(key));
                let mut subsets = binding.into_iter().flat_map(|b| &b.subsets);
                let found = subsets.find(|s| s.name == *name);
                Some(found.ok_or_else(|| unknown(name))?)
            }
        };
        Ok(Some(Destination::Service {
            key,
            port: match *port {
                0 => asked.port(),
                port => port,
            },
            subset,
            asked,
        }))
    }

    /// The traffic policy that holds for a destination.
    ///
    /// # Errors
    /// [`Untold`], where nobody knows which.
    pub(super) fn ruled(&self, to: &Destination<'_>) -> Result<Ruled, Untold> {
        match (to, &self.tables) {
            (
                Destination::Service {
                    key, port, subset, ..
                },
                Some(tables),
            ) => Ruled::new(&tables.of, key, *port, *subset),
            _ => Ok(Ruled::default()),
        }
    }

    /// How the endpoints of a service outside the mesh are found; none of one that is inside, or that
    /// nothing is told of.
    pub(super) fn external(&self, service: &ServiceKey) -> Option<&External> {
        let binding = self.tables.as_ref()?.of.services.get(service)?;
        binding.external.as_ref()
    }

    /// What is spoken on a destination's port, as far as it is declared.
    pub(super) fn spoken(&self, to: &Destination<'_>) -> AppProtocol {
        let Destination::Service { key, port, .. } = to else {
            return AppProtocol::Unknown;
        };
        let service = self.mesh.view.service(key);
        let mut ports = service.into_iter().flat_map(|s| &s.ports);
        let declared = ports.find(|p| p.service_port == *port);
        declared.map_or(AppProtocol::Unknown, |p| p.app_protocol)
    }

    /// All that the waypoint was told; none where no control plane tells it anything.
    pub(super) fn told(&self) -> Option<Arc<Resources>> {
        self.tables.as_ref().map(|tables| Arc::clone(&tables.of))
    }

    /// How the waypoint treats what comes; the defaults where nobody says so.
    pub(super) fn options(&self) -> &Options {
        let gateway = self.tables.as_ref().and_then(|t| t.of.gateway.as_ref());
        gateway.map_or(&*DEFAULT, |g| &g.options)
    }

    /// When requests are asked again that no rule has a word on.
    pub(super) fn retry(&self) -> &Retry {
        &self.options().default_retry
    }
}

/// What is attached, all of which is told.
fn whole(attached: InForce<'_>) -> Result<InForce<'_>, Untold> {
    match attached.untold_telemetry() {
        Some(key) => Err(Untold::Telemetry(key.clone())),
        None => Ok(attached),
    }
}
