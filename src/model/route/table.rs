//! Which rule a request gets (`spec/waypoint-l7.md` §2.1, §2.2).

use http::{HeaderMap, Method};
use std::sync::Arc;

use super::list::List;
use super::{Kind, Match, Route, RouteKey, Rule, Target};
use crate::model::waypoint::{BoundPort, Resources};

/// What of a request counts.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, normalised and without query.
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// Its `Host`, as it was received.
    pub authority: &'a str,
    /// Its scheme.
    pub scheme: &'a str,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// The service port asked for.
    pub port: u16,
    /// The client's namespace.
    pub source_namespace: &'a str,
}

/// A route that a port names is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not there")]
pub struct Unresolved(pub RouteKey);

/// What a request gets.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    /// There is no rule for the port: the service itself.
    Default,
    /// There are rules, and none takes it: 404.
    NoMatch,
    /// This rule, whatever becomes of its backends.
    Rule(Chosen<'a>),
}

/// A rule that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    /// The route it is of.
    pub route: &'a Arc<Route>,
    /// The rule.
    pub rule: &'a Rule<Target>,
    /// Which of its matches took it.
    pub matched: &'a Match,
    /// The rule's name, else `namespace.route.index`: what logs call it.
    pub name: &'a str,
}

/// The HTTP rules of a service port: of routes that name the port, then of those for all ports.
#[derive(Clone, Debug)]
pub struct Table {
    lists: [List; 2],
}

impl Table {
    /// The rules of a port. Routes of TCP and TLS are left to [`super::TlsTable`].
    ///
    /// # Errors
    /// [`Unresolved`] where one of its routes is not there.
    pub fn new(resources: &Resources, port: &BoundPort) -> Result<Self, Unresolved> {
        let list = |keys: &[RouteKey]| {
            let routes = resolved(resources, keys, |kind| {
                matches!(kind, Kind::Grpc | Kind::Http | Kind::VirtualService)
            })?;
            Ok(List::new(&routes))
        };
        Ok(Self {
            lists: [list(&port.routes)?, list(&port.general)?],
        })
    }

    /// The rule of a request.
    pub fn select(&self, asked: &Asked<'_>) -> Selection<'_> {
        if self.lists.iter().all(List::is_empty) {
            return Selection::Default;
        }
        let chosen = self.lists.iter().find_map(|list| list.select(asked));
        chosen.map_or(Selection::NoMatch, |candidate| {
            Selection::Rule(candidate.chosen())
        })
    }
}

/// The routes of some kinds that keys name, in that order.
pub(super) fn resolved(
    resources: &Resources,
    keys: &[RouteKey],
    wanted: impl Fn(Kind) -> bool,
) -> Result<Vec<Arc<Route>>, Unresolved> {
    let wanted = keys.iter().filter(|key| wanted(key.kind));
    let routes = wanted.map(|key| {
        let route = resources.routes.get(key);
        route.cloned().ok_or_else(|| Unresolved(key.clone()))
    });
    routes.collect()
}

/// What logs call a rule (§6.2).
pub(super) fn rule_name(route: &Route, index: usize) -> Arc<str> {
    match route.rules.get(index) {
        Some(rule) if !rule.name.is_empty() => Arc::clone(&rule.name),
        _ => Arc::from(format!(
            "{}.{}.{index}",
            route.key.namespace, route.key.name
        )),
    }
}

#[cfg(test)]
mod tests;
