//! Matches that another one takes everything from: the same at the same parent, in a route or rule
//! that comes first (§2.2).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::attached::{Attached, Name};
use super::title;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenRoute;
use crate::config::source::Place;
use crate::model::route::{Kind, Match, PathMatch};

/// One of the lists in which matches are sorted: those that name a port are not among those that
/// name none.
type List<'a> = (Name<'a>, Option<u16>, Kind);

/// Routes come in the order in which the first of two counts.
pub(super) fn check(attached: &[Attached<'_>], found: &mut Vec<Diagnostic>) {
    let mut known: HashMap<(List<'_>, String), (&WrittenRoute, &Place)> = HashMap::new();
    let mut told: HashSet<(usize, usize)> = HashSet::new();
    for one in attached.iter().filter(|one| !one.ports.is_empty()) {
        let list = (one.to, one.parent.value.port, one.route.kind);
        for (key, place) in keys(one) {
            let Some((first, other)) = known.get(&(list, key.clone())) else {
                known.insert((list, key), (one.route, place));
                continue;
            };
            let at = (Arc::as_ptr(place.source()).addr(), place.span().start);
            if told.insert(at) {
                found.push(twin(one.route, place, first, other));
            }
        }
    }
}

/// What of each match decides whom it takes, and where it is written.
fn keys<'a>(one: &Attached<'a>) -> Vec<(String, &'a Place)> {
    let route = one.route;
    match route.kind {
        Kind::Tcp => vec![(String::new(), &one.parent.place)],
        Kind::Tls if route.hosts.is_empty() => vec![(String::new(), &one.parent.place)],
        Kind::Tls => {
            let hosts = route.hosts.iter();
            hosts
                .map(|host| (host.to_string(), &one.parent.place))
                .collect()
        }
        Kind::Grpc | Kind::Http | Kind::VirtualService => {
            let rules = route.rules.iter();
            let matches = rules.flat_map(|rule| rule.rule.matches.iter().zip(&rule.matches));
            matches.map(|(is, place)| (key(is), place)).collect()
        }
    }
}

/// The same for two matches that take the same.
fn key(of: &Match) -> String {
    let mut of = of.clone();
    if let PathMatch::Prefix(prefix) = &of.path {
        of.path = PathMatch::Prefix(Arc::from(prefix.trim_end_matches('/')));
    }
    of.headers.sort_by(|a, b| a.0.cmp(&b.0));
    of.query.sort_by(|a, b| a.0.cmp(&b.0));
    format!("{of:?}")
}

fn twin(route: &WrittenRoute, place: &Place, first: &WrittenRoute, other: &Place) -> Diagnostic {
    let what = match route.kind {
        Kind::Tcp => "takes every connection",
        Kind::Tls => "takes these server names",
        Kind::Grpc | Kind::Http | Kind::VirtualService => "has the same match",
    };
    let message = match std::ptr::eq(route, first) {
        true => format!(
            "a match of {} is there twice: the first counts",
            title(route)
        ),
        false => format!(
            "{} comes too late: {} {what}, and is first",
            title(route),
            title(first)
        ),
    };
    Diagnostic::new(Code::Superseded, place.clone(), message)
        .label("matches nothing that is left")
        .related(other.clone(), "this one counts")
        .help("match on something more, or take one of the two out; of equal ones the first counts, by file and line")
}
