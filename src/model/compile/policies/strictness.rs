//! What peer authentications make of plain connections (`spec/labels-and-policy.md` §4): policies
//! that deny peers without an identity.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::selectors::Selectors;
use crate::model::declaration::{Mesh, MtlsMode, Origin, PeerAuthentication, Workload};
use crate::model::policy::{Clause, Effect, Match, Pattern, Policy, Rule, Scope, Values};

/// The policy of workloads that take no plain connection on any port.
const ALL_STRICT: &str = "istio_converted_static_strict";
/// What begins the name of a policy made of one with exceptions.
const CONVERTED: &str = "converted_peer_authentication_";

/// What peer authentications make of each workload.
pub(super) struct Strictness<'a> {
    /// Where no peer authentication selects.
    wide: Wide<'a>,
    /// What selects, by its place in the order, oldest first.
    selecting: Selectors<'a, usize>,
    /// What comes of each of those.
    outcomes: Vec<Option<Arc<Policy>>>,
}

/// Those of the mesh and of namespaces: the oldest of each.
struct Wide<'a> {
    mesh: MtlsMode,
    namespaces: HashMap<&'a str, MtlsMode>,
    all: Arc<Policy>,
}

impl<'a> Strictness<'a> {
    pub(super) fn new(mesh: &'a Mesh) -> Self {
        let root = &*mesh.settings.root_namespace;
        let mut written: Vec<_> = mesh.peer_authentications.iter().collect();
        written.sort_by(|a, b| a.origin.cmp(&b.origin));
        let (wide, selecting): (Vec<_>, Vec<_>) =
            written.into_iter().partition(|p| p.selector.is_empty());
        let wide = Wide::new(&mesh.settings.root_namespace, &wide);
        let mut strictness = Self {
            wide,
            selecting: Selectors::default(),
            outcomes: Vec::new(),
        };
        // In the root namespace a selector selects nothing (§4.1).
        for policy in selecting.into_iter().filter(|p| &*p.namespace != root) {
            let at = strictness.outcomes.len();
            let within = Some(&*policy.namespace);
            strictness.selecting.file(within, &policy.selector, at);
            let outcome = strictness.wide.outcome(policy);
            strictness.outcomes.push(outcome);
        }
        strictness
    }

    /// All policies that workloads may list for it, by key.
    pub(super) fn policies(&self) -> impl Iterator<Item = (&str, &Arc<Policy>)> {
        let some = self.outcomes.iter().flatten();
        some.chain([&self.wide.all])
            .map(|policy| (&*policy.key, policy))
    }

    /// What a workload's plain connections are denied by; none when it takes them all.
    pub(super) fn over(&self, workload: &Workload) -> Option<&Arc<Policy>> {
        match self.selecting.of(workload).min() {
            Some(oldest) => self.outcomes.get(oldest)?.as_ref(),
            None => {
                let mode = self.wide.mode(&workload.namespace);
                (mode == MtlsMode::Strict).then_some(&self.wide.all)
            }
        }
    }
}

impl<'a> Wide<'a> {
    fn new(root: &Arc<str>, written: &[&'a PeerAuthentication]) -> Self {
        let mut namespaces = HashMap::new();
        for policy in written {
            let oldest = namespaces.entry(&*policy.namespace);
            oldest.or_insert(policy.mode);
        }
        let rule = Rule {
            line: 0,
            clauses: vec![clause(plaintext())],
        };
        Self {
            mesh: namespaces.remove(&**root).unwrap_or_default(),
            namespaces,
            all: Arc::new(deny(root, ALL_STRICT, vec![rule], None)),
        }
    }

    fn mode(&self, namespace: &str) -> MtlsMode {
        let own = self.namespaces.get(namespace).copied();
        own.unwrap_or_default()
            .or(self.mesh)
            .or(MtlsMode::Permissive)
    }

    /// What comes of one with a selector where it is the oldest that selects.
    fn outcome(&self, own: &PeerAuthentication) -> Option<Arc<Policy>> {
        let strict = own.mode.or(self.mode(&own.namespace)) == MtlsMode::Strict;
        let other = exceptions(&own.ports, strict);
        match (strict, other.is_empty()) {
            (true, true) => Some(Arc::clone(&self.all)),
            (false, true) => None,
            (_, false) => Some(Arc::new(converted(own, strict, other))),
        }
    }
}

/// The ports whose mode is another than the rest's.
fn exceptions(ports: &BTreeMap<u16, MtlsMode>, strict: bool) -> Vec<u16> {
    let other = ports.iter().filter(|(_, mode)| match mode {
        MtlsMode::Unset => false,
        MtlsMode::Strict => !strict,
        MtlsMode::Disable | MtlsMode::Permissive => strict,
    });
    other.map(|(port, _)| *port).collect()
}

/// Plain connections to `ports` are denied, or to all others when it is `strict`.
fn converted(from: &PeerAuthentication, strict: bool, ports: Vec<u16>) -> Policy {
    let line = from.origin.line;
    let rules = match strict {
        false => {
            let rule = |port| Rule {
                line,
                clauses: vec![clause(Match {
                    destination_ports: any(port),
                    ..plaintext()
                })],
            };
            ports.into_iter().map(rule).collect()
        }
        true => {
            let but = |port| {
                let mut but = Match::default();
                but.destination_ports.not.push(port);
                clause(but)
            };
            let clauses = [clause(plaintext())].into_iter();
            vec![Rule {
                line,
                clauses: clauses.chain(ports.into_iter().map(but)).collect(),
            }]
        }
    };
    let name = format!("{CONVERTED}{}", from.name);
    deny(&from.namespace, &name, rules, Some(from.origin.clone()))
}

fn deny(namespace: &Arc<str>, name: &str, rules: Vec<Rule>, origin: Option<Origin>) -> Policy {
    Policy {
        key: Policy::key_of(namespace, name),
        namespace: Arc::clone(namespace),
        name: Arc::from(name),
        scope: Scope::Listed,
        effect: Effect::Deny,
        dry_run: false,
        rules,
        origin,
        unreadable: None,
    }
}

fn any(port: u16) -> Values<u16> {
    Values {
        any: vec![port],
        not: Vec::new(),
    }
}

/// Who has no identity at all.
fn plaintext() -> Match {
    let mut nobody = Match::default();
    nobody.principals.not.push(Pattern::Present);
    nobody
}

fn clause(only: Match) -> Clause {
    Clause {
        matches: vec![only],
    }
}
