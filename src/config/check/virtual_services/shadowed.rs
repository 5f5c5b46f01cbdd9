//! Matches that others take everything from: those before them in the same virtual service, or in one
//! before it for the same host (§3.1).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Judged, title};
use crate::config::check::destinations::in_full;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::WrittenVirtualService;
use crate::config::source::Place;
use crate::model::declaration::Mesh;
use crate::model::route::{Match, PathMatch};

/// What has been taken so far of a host.
#[derive(Default)]
struct Taken<'a> {
    /// All that begins so, without any further condition.
    prefixes: HashMap<Arc<str>, Holder<'a>>,
    /// What is the same in every respect.
    matches: HashMap<String, Holder<'a>>,
}

/// By whom, and where that is written.
type Holder<'a> = (&'a WrittenVirtualService, &'a Place);

/// Virtual services come in the order in which they are tried.
pub(super) fn check(judged: &[Judged<'_>], mesh: &Mesh, found: &mut Vec<Diagnostic>) {
    let mut of_hosts: HashMap<Arc<str>, Taken<'_>> = HashMap::new();
    let mut told: HashSet<(usize, usize)> = HashSet::new();
    for one in judged {
        let (namespace, domain) = (&one.written.route.namespace.value, &mesh.settings.domain);
        let hosts = one.written.hosts.iter().zip(&one.state.parents);
        let accepted: Vec<_> = hosts.filter(|(_, parent)| parent.accepted.status).collect();
        let mut late = match accepted.is_empty() {
            true => Taken::default().by(one.written),
            false => Vec::new(),
        };
        for (host, _) in accepted {
            let host = in_full(domain, namespace, &host.value);
            late.extend(of_hosts.entry(host).or_default().by(one.written));
        }
        for (place, holder) in late {
            let at = (Arc::as_ptr(place.source()).addr(), place.span().start);
            if told.insert(at) {
                found.push(shadowed(one.written, place, holder));
            }
        }
    }
}

impl<'a> Taken<'a> {
    /// Has another one take its share; those of its matches that come too late, and who was first.
    fn by(&mut self, one: &'a WrittenVirtualService) -> Vec<(&'a Place, Holder<'a>)> {
        let mut late = Vec::new();
        for (number, rule) in one.route.rules.iter().enumerate() {
            // What others do not take of that goes on.
            let delegated = one.delegates.iter().any(|d| d.value.rule == number);
            for (matched, place) in rule.rule.matches.iter().zip(&rule.matches) {
                match self.holder(matched) {
                    Some(holder) => late.push((place, holder)),
                    None if delegated => {}
                    None => self.take(matched, (one, place)),
                }
            }
        }
        late
    }

    fn take(&mut self, matched: &Match, holder: Holder<'a>) {
        let prefix = match &matched.path {
            PathMatch::TextPrefix(text) | PathMatch::Prefix(text) => Some(text),
            PathMatch::Exact(_) | PathMatch::Regex(_) => None,
        };
        let bare = Match {
            path: matched.path.clone(),
            ..Match::default()
        };
        match prefix {
            Some(text) if *matched == bare => {
                self.prefixes.insert(Arc::clone(text), holder);
            }
            _ => {
                self.matches.insert(format!("{matched:?}"), holder);
            }
        }
    }

    fn holder(&self, matched: &Match) -> Option<Holder<'a>> {
        let text = match &matched.path {
            PathMatch::Exact(text) | PathMatch::TextPrefix(text) if !matched.ignore_case => &**text,
            // Every path begins so.
            _ => "/",
        };
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        let mut starts = ends.filter_map(|end| text.get(..end));
        let prefix = starts.find_map(|start| self.prefixes.get(start));
        let same = || self.matches.get(&format!("{matched:?}"));
        prefix.or_else(same).copied()
    }
}

fn shadowed(one: &WrittenVirtualService, place: &Place, (first, other): Holder<'_>) -> Diagnostic {
    let message = match std::ptr::eq(one, first) {
        true => format!(
            "a match of {} comes too late: one before takes it all",
            title(one)
        ),
        false => format!(
            "a match of {} comes too late: {} is tried first, and takes it all",
            title(one),
            title(first)
        ),
    };
    Diagnostic::new(Code::Superseded, place.clone(), message)
        .label("matches nothing that is left")
        .related(other.clone(), "this one takes it")
        .help("write what matches more closely first: the first rule that takes a request has it")
}
