//! Which routes are attached to a service, and in which order they are tried (`spec/waypoint-l7.md`
//! §2.1).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::Warning;
use super::sites::{Site, Sites, bare};
use super::traffic::covers;
use crate::model::declaration::{ParentKind, ParentRef, Port, Route};
use crate::model::route::{Kind, RouteKey};
use crate::model::service::ServiceKey;
use crate::model::waypoint::BoundPort;

/// The routes of a mesh, in ORDER.
pub(super) struct Routes<'a> {
    /// By kind, namespace and name of what they are attached to.
    by_parent: HashMap<(ParentKind, &'a str, &'a str), Vec<Reference<'a>>>,
    /// Virtual services by host name.
    by_host: HashMap<&'a str, Vec<&'a Route>>,
    /// Virtual services that have a wildcard among their hosts.
    by_wildcard: Vec<&'a Route>,
}

/// A route and one of its parents.
type Reference<'a> = (&'a Route, &'a ParentRef);

/// The routes of a service at a waypoint.
pub(super) struct Attached<'a> {
    references: Vec<Reference<'a>>,
    virtual_services: Vec<&'a Route>,
}

/// The routes of a port, in the order they are tried.
pub(super) struct Lists<'a> {
    /// Those that name the port.
    pub(super) own: Vec<&'a Route>,
    /// Those for all ports.
    pub(super) general: Vec<&'a Route>,
}

/// The routes that are used, and the host names of what they are used for.
pub(super) type Used<'a> = BTreeMap<RouteKey, (&'a Route, BTreeSet<Arc<str>>)>;

impl<'a> Routes<'a> {
    pub(super) fn new(routes: &'a [Route]) -> Self {
        let mut sorted: Vec<&Route> = routes.iter().collect();
        sorted.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        let mut all = Self {
            by_parent: HashMap::new(),
            by_host: HashMap::new(),
            by_wildcard: Vec::new(),
        };
        for route in sorted {
            match route.key.kind {
                Kind::VirtualService => all.file(route),
                Kind::Grpc | Kind::Http | Kind::Tls | Kind::Tcp => {
                    for parent in &route.parents {
                        let key = (parent.kind, &*parent.namespace, &*parent.name);
                        let sharing = all.by_parent.entry(key).or_default();
                        sharing.push((route, parent));
                    }
                }
            }
        }
        all
    }

    fn file(&mut self, route: &'a Route) {
        for host in &route.hosts {
            match host.starts_with('*') {
                true => self.by_wildcard.push(route),
                false => self.by_host.entry(host).or_default().push(route),
            }
        }
    }

    /// What is attached to a service at a waypoint of `namespace`. Routes of any third namespace are
    /// their consumers' wish, and of no account.
    pub(super) fn on(&self, site: &Site<'_>, namespace: &str) -> Attached<'a> {
        let producer = |route: &Route| {
            let own = &route.key.namespace;
            *own == site.key.namespace || **own == *namespace
        };
        let references = self.by_parent.get(&site.parent());
        let references = references.into_iter().flatten();
        let references = references.filter(|(route, _)| producer(route));
        let named = self.by_host.get(&*site.key.hostname);
        let covering = self.by_wildcard.iter().filter(|route| {
            let mut hosts = route.hosts.iter();
            hosts.any(|host| covers(host, &site.key.hostname))
        });
        let virtual_services = named.into_iter().flatten().chain(covering);
        let virtual_services = virtual_services.copied().filter(|route| producer(route));
        let mut virtual_services: Vec<&Route> = virtual_services.collect();
        virtual_services.sort_by(|a, b| (&a.origin, &a.key).cmp(&(&b.origin, &b.key)));
        virtual_services.dedup_by(|a, b| a.key == b.key);
        Attached {
            references: references.copied().collect(),
            virtual_services,
        }
    }
}

impl<'a> Routes<'a> {
    /// Routes of which an older one takes all that a match of theirs would take: of two that are
    /// alike only the first is ever tried (§2.2).
    pub(super) fn twins(&self, sites: &Sites<'a>) -> Vec<Warning> {
        let mut twins = BTreeMap::new();
        for site in sites.iter() {
            let attached = self.on(site, &site.key.namespace);
            for lists in site.ports.iter().map(|port| attached.lists(port)) {
                for list in [lists.own, lists.general] {
                    for (older, newer) in alike(&list) {
                        twins.insert((&older.key, &newer.key), &site.key);
                    }
                }
            }
        }
        let warning = |((older, newer), service): ((&RouteKey, &RouteKey), &ServiceKey)| {
            Warning::SameRequests {
                older: older.to_string(),
                newer: newer.to_string(),
                service: service.clone(),
            }
        };
        twins.into_iter().map(warning).collect()
    }
}

/// Pairs of routes of a list, the older one first, that have a match in common.
fn alike<'a>(list: &[&'a Route]) -> Vec<(&'a Route, &'a Route)> {
    let mut seen: HashMap<String, &Route> = HashMap::new();
    let mut pairs = Vec::new();
    // A virtual service is made for being tried after others.
    let sorted = list.iter().filter(|r| r.key.kind != Kind::VirtualService);
    for route in sorted {
        for taken in taken_by(route) {
            match seen.get(&taken) {
                Some(older) if older.key != route.key => pairs.push((*older, *route)),
                Some(_) => {}
                None => {
                    seen.insert(taken, route);
                }
            }
        }
    }
    pairs
}

/// What a route takes, each written in one way.
fn taken_by(route: &Route) -> Vec<String> {
    match route.key.kind {
        Kind::Tcp => vec!["tcp".to_owned()],
        Kind::Tls => route
            .hosts
            .iter()
            .map(|host| format!("tls {host}"))
            .collect(),
        Kind::Grpc | Kind::Http | Kind::VirtualService => {
            let matches = route.rules.iter().flat_map(|rule| &rule.matches);
            matches.map(|m| format!("{m:?}")).collect()
        }
    }
}

impl<'a> Attached<'a> {
    /// The routes of a port. Only the first family there is holds, and virtual services come after
    /// it.
    pub(super) fn lists(&self, port: &Port) -> Lists<'a> {
        let fitting = self.references.iter();
        let fitting = fitting.filter(|(route, parent)| {
            let here = parent.port.is_none_or(|named| named == port.port);
            here && route.key.kind.fits(port.app_protocol)
        });
        let family = fitting.clone().map(|(route, _)| route.key.kind.family());
        let first = family.min();
        let holding = |named: bool| {
            let holding = fitting.clone().filter(move |(route, parent)| {
                parent.port.is_some() == named && Some(route.key.kind.family()) == first
            });
            once(holding.map(|(route, _)| *route))
        };
        let (own, mut general) = (holding(true), holding(false));
        if Kind::VirtualService.fits(port.app_protocol) {
            general.extend(&self.virtual_services);
        }
        Lists { own, general }
    }

    /// The ports of a service with their routes.
    pub(super) fn ports(&self, site: &Site<'_>) -> Vec<BoundPort> {
        let keys = |routes: &[&Route]| routes.iter().map(|r| r.key.clone()).collect();
        let port = |port: &Port| {
            let lists = self.lists(port);
            BoundPort {
                routes: keys(&lists.own),
                general: keys(&lists.general),
                ..bare(port)
            }
        };
        site.ports.iter().map(port).collect()
    }

    /// Adds the routes that are used for a service.
    pub(super) fn note(&self, site: &Site<'_>, used: &mut Used<'a>) {
        for port in site.ports {
            let lists = self.lists(port);
            for route in lists.own.into_iter().chain(lists.general) {
                let (_, hosts) = used
                    .entry(route.key.clone())
                    .or_insert_with(|| (route, BTreeSet::new()));
                match (route.key.kind, route.hosts.is_empty()) {
                    (Kind::Tls, true) => {
                        hosts.insert(Arc::clone(&site.key.hostname));
                    }
                    (Kind::Tls, false) => hosts.extend(route.hosts.iter().cloned()),
                    _ => {}
                }
            }
        }
    }
}

/// A route with two references to one port is tried once.
fn once<'a>(routes: impl Iterator<Item = &'a Route>) -> Vec<&'a Route> {
    let mut all: Vec<&Route> = routes.collect();
    all.dedup_by(|a, b| a.key == b.key);
    all
}
