//! What became of every route of a mesh, for people.

use std::sync::Arc;

use super::super::service_key;
use super::attached::Routes;
use super::sites::{Is, Site, Sites};
use super::traffic::{Members, Traffic, covers};
use super::{World, targets_of};
use crate::model::binding::{Bindable, Waypoints};
use crate::model::condition::Condition;
use crate::model::declaration::{Gateway, Mesh, Origin, ParentKind, ParentRef, Route};
use crate::model::route::{BackendKind, BackendRef, Kind, RouteKey, Target};
use crate::model::service::ServiceKey;
use crate::model::waypoint::{BoundPort, WaypointName};

/// A route and how far it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// Which.
    pub key: RouteKey,
    /// Where it was written.
    pub origin: Origin,
    /// What it is attached to, in the order it was written; of a virtual service its hosts.
    pub parents: Vec<ParentState>,
    /// Whether all its backends are there.
    pub resolved: Condition,
}

/// What became of a route at one of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentState {
    /// As `Service shop/cart:80`.
    pub parent: String,
    /// Whether it is tried there.
    pub accepted: Condition,
}

/// The routes of a service behind a waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The waypoint.
    pub waypoint: WaypointName,
    /// The service.
    pub service: ServiceKey,
    /// Its ports and what is attached to them.
    pub ports: Vec<BoundPort>,
}

/// The routes of a mesh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surveyed {
    /// In the order they were written.
    pub routes: Vec<RouteState>,
    /// What is tried where, by waypoint and service.
    pub services: Vec<Routed>,
}

/// Surveys the routes of a mesh.
pub fn survey(mesh: &Mesh) -> Surveyed {
    let key = |s: &crate::model::declaration::Service| {
        service_key(&s.name, &s.namespace, &mesh.settings.domain)
    };
    let keys: Vec<ServiceKey> = mesh.services.iter().map(key).collect();
    let sites = Sites::new(mesh, &keys);
    let survey = Survey {
        waypoints: Waypoints::new(mesh),
        world: World {
            routes: Routes::new(&mesh.routes),
            traffic: Traffic::new(mesh, Members::default()),
            services: &[],
            sites: &sites,
        },
    };
    let mut routes: Vec<_> = mesh.routes.iter().map(|r| survey.state(r)).collect();
    routes.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
    let mut services: Vec<_> = sites.iter().flat_map(|site| survey.routed(site)).collect();
    services.sort_by(|a, b| (&a.waypoint, &a.service).cmp(&(&b.waypoint, &b.service)));
    Surveyed { routes, services }
}

struct Survey<'a> {
    waypoints: Waypoints<'a>,
    world: World<'a>,
}

impl<'a> Survey<'a> {
    fn before(&self, site: &Site<'a>) -> impl Iterator<Item = &'a Gateway> + use<'a> {
        self.waypoints.before(match site.is {
            Is::Service(service) => Bindable::from(service),
            Is::Entry(entry) => Bindable::from(entry),
        })
    }

    fn routed(&self, site: &Site<'a>) -> Vec<Routed> {
        let at = |waypoint: &Gateway| Routed {
            waypoint: WaypointName {
                namespace: Arc::clone(&waypoint.namespace),
                name: Arc::clone(&waypoint.name),
            },
            service: site.key.clone(),
            ports: self.world.routes.on(site, &waypoint.namespace).ports(site),
        };
        self.before(site).map(at).collect()
    }

    fn state(&self, route: &Route) -> RouteState {
        let parents = match route.key.kind {
            Kind::VirtualService => {
                let hosts = route.hosts.iter();
                hosts.map(|host| self.of_host(route, host)).collect()
            }
            Kind::Grpc | Kind::Http | Kind::Tls | Kind::Tcp => {
                let parents = route.parents.iter();
                parents
                    .map(|parent| self.of_parent(route, parent))
                    .collect()
            }
        };
        RouteState {
            key: route.key.clone(),
            origin: route.origin.clone(),
            parents,
            resolved: self.resolved(route),
        }
    }

    fn of_parent(&self, route: &Route, parent: &ParentRef) -> ParentState {
        let kind = match parent.kind {
            ParentKind::Service => "Service",
            ParentKind::ServiceEntry => "ServiceEntry",
        };
        let port = parent
            .port
            .map_or_else(String::new, |port| format!(":{port}"));
        let wanted = (parent.kind, &*parent.namespace, &*parent.name);
        let sites = self.world.sites.iter().filter(|s| s.parent() == wanted);
        ParentState {
            parent: format!("{kind} {}/{}{port}", parent.namespace, parent.name),
            accepted: self.accepted(route, sites.collect(), parent.port),
        }
    }

    fn of_host(&self, route: &Route, host: &str) -> ParentState {
        let sites = self.world.sites.iter();
        let sites = sites.filter(|site| covers(host, &site.key.hostname));
        // A wildcard is for those it may be for.
        let bound = |site: &&Site<'a>| !host.starts_with('*') || self.takes(route, site);
        ParentState {
            parent: format!("host {host}"),
            accepted: self.accepted(route, sites.filter(bound).collect(), None),
        }
    }

    fn takes(&self, route: &Route, site: &Site<'a>) -> bool {
        self.before(site)
            .any(|waypoint| producer(route, site, waypoint))
    }

    fn accepted(&self, route: &Route, sites: Vec<&Site<'a>>, port: Option<u16>) -> Condition {
        let Some(site) = sites.first() else {
            return refused(
                "NoMatchingParent",
                "nothing of that name is declared".to_owned(),
            );
        };
        if let Some(port) = port
            && !site.ports.iter().any(|p| p.port == port)
        {
            let message = format!("{} declares no port {port}", site.key);
            return refused("NoMatchingParent", message);
        }
        let tried = sites.iter().any(|site| {
            self.before(site).any(|waypoint| {
                let attached = self.world.routes.on(site, &waypoint.namespace);
                let mut meant = site
                    .ports
                    .iter()
                    .filter(|p| port.is_none_or(|n| n == p.port));
                meant.any(|port| {
                    let lists = attached.lists(port);
                    let mut all = lists.own.iter().chain(&lists.general);
                    all.any(|tried| tried.key == route.key)
                })
            })
        });
        match tried {
            true => Condition {
                kind: "Accepted",
                status: true,
                reason: "Accepted",
                message: String::new(),
            },
            false => self.why_not(route, site, port),
        }
    }

    fn why_not(&self, route: &Route, site: &Site<'a>, port: Option<u16>) -> Condition {
        if self.before(site).next().is_none() {
            let message = format!("{} is behind no waypoint, and only those route", site.key);
            return refused("AncestorNotBound", message);
        }
        if !self.takes(route, site) {
            let message = format!(
                "it is a consumer's route: its namespace is neither that of {} nor its waypoint's",
                site.key
            );
            return refused("NotAllowedByListeners", message);
        }
        let mut meant = site
            .ports
            .iter()
            .filter(|p| port.is_none_or(|n| n == p.port));
        if !meant.any(|p| route.key.kind.fits(p.app_protocol)) {
            let kind = route.key.kind.as_str();
            let message = format!(
                "no {kind} can be for what is spoken on the ports of {}",
                site.key
            );
            return refused("UnsupportedProtocol", message);
        }
        let message = format!(
            "{} has routes of a kind that goes before {}s",
            site.key,
            route.key.kind.as_str()
        );
        refused("Conflicted", message)
    }

    fn resolved(&self, route: &Route) -> Condition {
        let backends = route.rules.iter().flat_map(targets_of);
        let mut missing = backends.filter_map(|wanted: &BackendRef| {
            match self.world.target(wanted, &route.key.namespace) {
                Target::Service { .. } => None,
                Target::Invalid(why) => Some((wanted, why)),
            }
        });
        match missing.next() {
            None => Condition {
                kind: "ResolvedRefs",
                status: true,
                reason: "ResolvedRefs",
                message: String::new(),
            },
            Some((wanted, why)) => Condition {
                kind: "ResolvedRefs",
                status: false,
                reason: match wanted.kind {
                    BackendKind::Unknown(_) => "InvalidKind",
                    BackendKind::Service | BackendKind::Hostname => "BackendNotFound",
                },
                message: why.to_string(),
            },
        }
    }
}

fn producer(route: &Route, site: &Site<'_>, waypoint: &Gateway) -> bool {
    let own = &route.key.namespace;
    *own == site.key.namespace || *own == waypoint.namespace
}

fn refused(reason: &'static str, message: String) -> Condition {
    Condition {
        kind: "Accepted",
        status: false,
        reason,
        message,
    }
}
