//! Which rule a connection gets that is not HTTP (`spec/waypoint-l7.md` §2.8).

use std::sync::Arc;

use super::table::{resolved, rule_name};
use super::{Kind, Route, Rule, Target, Unresolved};
use crate::model::waypoint::{BoundPort, Resources};

/// What a connection gets.
#[derive(Clone, Copy, Debug)]
pub enum TlsSelection<'a> {
    /// There is no rule for the port: the service itself.
    Default,
    /// There are rules, and none takes it: it is closed.
    Close,
    /// This rule.
    Rule(TlsChosen<'a>),
}

/// A rule that takes a connection.
#[derive(Clone, Copy, Debug)]
pub struct TlsChosen<'a> {
    /// The route it is of.
    pub route: &'a Arc<Route>,
    /// The rule.
    pub rule: &'a Rule<Target>,
    /// The rule's name, else `namespace.route.index`: what logs call it.
    pub name: &'a str,
}

/// The rules of a service port for TLS and TCP: of routes that name the port, then of those for all
/// ports.
#[derive(Clone, Debug)]
pub struct TlsTable {
    lists: [List; 2],
    /// The service's own name, which a route that names none is for.
    own: Arc<str>,
}

/// The first rule of each route, with the name logs call it.
#[derive(Clone, Debug)]
struct List {
    tls: Vec<(Arc<Route>, Arc<str>)>,
    tcp: Option<(Arc<Route>, Arc<str>)>,
}

impl TlsTable {
    /// The rules of a port of the service with this host name. Routes of HTTP are left to
    /// [`super::Table`].
    ///
    /// # Errors
    /// [`Unresolved`] where one of its routes is not there.
    pub fn new(
        resources: &Resources,
        hostname: &Arc<str>,
        port: &BoundPort,
    ) -> Result<Self, Unresolved> {
        Ok(Self {
            own: Arc::clone(hostname),
            lists: [
                List::new(resources, &port.routes)?,
                List::new(resources, &port.general)?,
            ],
        })
    }

    /// The rule of a connection, by the server name its client has sent.
    pub fn select(&self, sni: Option<&str>) -> TlsSelection<'_> {
        if self.lists.iter().all(List::is_empty) {
            return TlsSelection::Default;
        }
        let chosen = self
            .lists
            .iter()
            .find_map(|list| list.select(sni, &self.own));
        let chosen = chosen.and_then(|(route, name)| {
            let rule = route.rules.first()?;
            Some(TlsChosen { route, rule, name })
        });
        chosen.map_or(TlsSelection::Close, TlsSelection::Rule)
    }
}

impl List {
    fn new(resources: &Resources, keys: &[super::RouteKey]) -> Result<Self, Unresolved> {
        let of = |wanted: Kind| {
            let routes = resolved(resources, keys, |kind| kind == wanted)?;
            let ruled = routes.into_iter().filter(|route| !route.rules.is_empty());
            let named = ruled.map(|route| {
                let name = rule_name(&route, 0);
                (route, name)
            });
            Ok(named.collect::<Vec<_>>())
        };
        Ok(Self {
            tls: of(Kind::Tls)?,
            tcp: of(Kind::Tcp)?.into_iter().next(),
        })
    }

    fn is_empty(&self) -> bool {
        self.tls.is_empty() && self.tcp.is_none()
    }

    fn select(&self, sni: Option<&str>, own: &Arc<str>) -> Option<&(Arc<Route>, Arc<str>)> {
        let mut best: Option<(usize, _)> = None;
        for entry in &self.tls {
            let names = match entry.0.server_names.as_slice() {
                [] => std::slice::from_ref(own),
                names => names,
            };
            let taken =
                sni.and_then(|sni| names.iter().filter_map(|name| closeness(name, sni)).max());
            // Of equals the first stays: it is the older route.
            if taken > best.map(|(length, _)| length) {
                best = taken.map(|length| (length, entry));
            }
        }
        best.map(|(_, entry)| entry).or(self.tcp.as_ref())
    }
}

/// How closely a name of a route means a server name; `None` where it means another.
fn closeness(name: &str, sni: &str) -> Option<usize> {
    let Some(suffix) = name.strip_prefix('*') else {
        return name.eq_ignore_ascii_case(sni).then_some(usize::MAX);
    };
    let start = sni
        .len()
        .checked_sub(suffix.len())
        .filter(|start| *start > 0)?;
    let end = sni.as_bytes().get(start..)?;
    end.eq_ignore_ascii_case(suffix.as_bytes())
        .then_some(suffix.len())
}

#[cfg(test)]
mod tests;
