//! What became of every route of a mesh, for people.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::policies::Bundle;
use super::super::service_key;
use super::attached::Routes;
use super::backends::Missing;
use super::delegates::{self, Delegates, is_for_others};
use super::sites::{Is, Site, Sites};
use super::targets::Targets;
use super::telemetry::Levels;
use super::traffic::{Members, Traffic, covers};
use super::{World, targets_of};
use crate::model::binding::{Bindable, Waypoints};
use crate::model::condition::Condition;
use crate::model::declaration::{Gateway, Mesh, Origin, ParentKind, ParentRef, Route};
use crate::model::route::{BackendRef, Kind, RouteKey};
use crate::model::service::ServiceKey;
use crate::model::waypoint::{BoundPort, WaypointName};

/// A route and how far it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// Which.
    pub key: RouteKey,
    /// Where it was written.
    pub origin: Origin,
    /// What it is attached to, in the order it was written; of a virtual service its hosts, or those
    /// that delegate to it.
    pub parents: Vec<ParentState>,
    /// Whether all its backends are there.
    pub resolved: Condition,
    /// Those that are not, and why.
    pub missing: Vec<(BackendRef, Missing)>,
}

/// What became of a route at one of its parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentState {
    /// As `Service shop/cart:80`, `host cart.shop.mesh.internal`, `virtual-service shop/cart`.
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
    let resolved = delegates::resolved(&mesh.routes);
    let survey = Survey {
        waypoints: Waypoints::new(mesh),
        declared: &mesh.routes,
        delegates: Delegates::new(&mesh.routes),
        world: World {
            bundle: Bundle::new(&mesh.settings),
            providers: super::extensions::by_name(&mesh.settings),
            policies: Targets::new(&mesh.authorization_policies, &mesh.settings.root_namespace),
            authentications: Targets::new(
                &mesh.request_authentications,
                &mesh.settings.root_namespace,
            ),
            // It says nothing of where anything goes.
            telemetry: Levels::new(&[], &mesh.settings.root_namespace),
            limits: Targets::new(&mesh.rate_limits, &mesh.settings.root_namespace),
            routes: Routes::new(&resolved),
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
    declared: &'a [Route],
    delegates: Delegates<'a>,
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

    fn state(&self, route: &'a Route) -> RouteState {
        let parents = match route.key.kind {
            Kind::VirtualService if is_for_others(route) => self.of_others(route),
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
        let missing = self.missing(route);
        RouteState {
            key: route.key.clone(),
            origin: route.origin.clone(),
            parents,
            resolved: self.resolved(route, &missing),
            missing,
        }
    }

    /// The virtual services that delegate to this one.
    fn delegating(&self, route: &Route) -> impl Iterator<Item = &'a Route> + use<'a> {
        let key = route.key.clone();
        let to = move |r: &&Route| {
            let mut delegates = r.delegates.iter();
            delegates.any(|d| (&d.namespace, &d.name) == (&key.namespace, &key.name))
        };
        self.declared.iter().filter(to)
    }

    fn of_others(&self, route: &Route) -> Vec<ParentState> {
        let state = |by: &Route| {
            let mut delegates = by.delegates.iter();
            let served = delegates.any(|d| self.delegates.of(d).is_ok_and(|r| r.key == route.key));
            let why = || {
                refused(
                    "Unsupported",
                    "it delegates itself, and one level is all".into(),
                )
            };
            ParentState {
                parent: by.key.to_string(),
                accepted: served.then(accepted).unwrap_or_else(why),
            }
        };
        let all: Vec<_> = self.delegating(route).map(state).collect();
        if !all.is_empty() {
            return all;
        }
        let why = "it is for no host, and no virtual-service delegates to it".to_owned();
        vec![ParentState {
            parent: "nobody".to_owned(),
            accepted: refused("NoMatchingParent", why),
        }]
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
            true => accepted(),
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

    /// The namespaces of the waypoints that a route is at: destination rules are looked for there
    /// first.
    fn places(&self, route: &'a Route) -> BTreeSet<Arc<str>> {
        let mut places = BTreeSet::new();
        let mut at = vec![route];
        if is_for_others(route) {
            at.extend(self.delegating(route));
        }
        for route in at {
            let sites = self.world.sites.iter();
            let sites = sites.filter(|site| {
                let mut hosts = route.hosts.iter();
                hosts.any(|host| covers(host, &site.key.hostname))
            });
            for site in sites {
                let waypoints = self.before(site);
                let waypoints = waypoints.filter(|waypoint| producer(route, site, waypoint));
                places.extend(waypoints.map(|waypoint| Arc::clone(&waypoint.namespace)));
            }
        }
        if places.is_empty() {
            places.insert(Arc::clone(&route.key.namespace));
        }
        places
    }

    fn missing(&self, route: &'a Route) -> Vec<(BackendRef, Missing)> {
        let places = match route.key.kind {
            Kind::VirtualService => self.places(route),
            Kind::Grpc | Kind::Http | Kind::Tls | Kind::Tcp => {
                [Arc::clone(&route.key.namespace)].into()
            }
        };
        let backends = route.rules.iter().flat_map(targets_of);
        let missing = backends.filter_map(|wanted| {
            let mut places = places.iter();
            let missing = places.find_map(|place| self.world.found(wanted, place).err())?;
            Some((wanted.clone(), missing))
        });
        missing.collect()
    }

    fn resolved(&self, route: &Route, missing: &[(BackendRef, Missing)]) -> Condition {
        let unresolved = |reason, message| Condition {
            kind: "ResolvedRefs",
            status: false,
            reason,
            message,
        };
        let mut delegates = route.delegates.iter();
        if let Some(why) = delegates.find_map(|delegate| self.delegates.of(delegate).err()) {
            return unresolved("DelegateNotFound", why);
        }
        match missing.first() {
            None => Condition {
                kind: "ResolvedRefs",
                status: true,
                reason: "ResolvedRefs",
                message: String::new(),
            },
            Some((_, missing)) => {
                let reason = match missing {
                    Missing::Kind(_) => "InvalidKind",
                    Missing::Service(_)
                    | Missing::Host(_)
                    | Missing::Port(..)
                    | Missing::Subset(..) => "BackendNotFound",
                };
                unresolved(reason, missing.to_string())
            }
        }
    }
}

fn producer(route: &Route, site: &Site<'_>, waypoint: &Gateway) -> bool {
    let own = &route.key.namespace;
    *own == site.key.namespace || *own == waypoint.namespace
}

fn accepted() -> Condition {
    Condition {
        kind: "Accepted",
        status: true,
        reason: "Accepted",
        message: String::new(),
    }
}

fn refused(reason: &'static str, message: String) -> Condition {
    Condition {
        kind: "Accepted",
        status: false,
        reason,
        message,
    }
}
