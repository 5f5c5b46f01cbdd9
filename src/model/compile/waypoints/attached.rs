//! Which routes are attached to a service, and in which order they are tried (`spec/waypoint-l7.md`
//! §2.1).

use std::collections::{BTreeMap, HashMap};

use super::sites::{Site, bare};
use super::traffic::covers;
use crate::model::declaration::{ParentKind, ParentRef, Port, Route};
use crate::model::route::{Kind, RouteKey};
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

/// The routes that are used.
pub(super) type Used<'a> = BTreeMap<RouteKey, &'a Route>;

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
            let routes: Vec<&Route> = holding.map(|(route, _)| *route).collect();
            routes
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
            let both = lists.own.into_iter().chain(lists.general);
            used.extend(both.map(|route| (route.key.clone(), route)));
        }
    }
}
