//! The form of policy that node proxies evaluate: Istio's own, so that a stock one reaches the same
//! verdicts (`spec/labels-and-policy.md` §3.5, §6; `spec/control-plane.md` §2.2).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use super::Pattern;
use crate::identity::SpiffeId;
use crate::model::declaration::Origin;

/// Values that a field must have and must not have. An empty list asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T> {
    /// One of these, when there are any.
    pub any: Vec<T>,
    /// None of these.
    pub not: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            not: Vec::new(),
        }
    }
}

impl<T> Values<T> {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.not.is_empty()
    }

    /// Whether a value for which `hits` tells what fits is as it must be.
    pub(in crate::model) fn hold(&self, hits: impl Fn(&T) -> bool) -> bool {
        (self.any.is_empty() || self.any.iter().any(&hits)) && !self.not.iter().any(&hits)
    }
}

/// A service account by namespace and name; of any trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// For which workloads a policy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// For all of the mesh.
    Mesh,
    /// For all of its namespace.
    Namespace,
    /// For those that list it.
    Listed,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The connection may be let in.
    Allow,
    /// It is kept out, whatever allows it.
    Deny,
}

/// A policy as node proxies evaluate it. It matches when one of its rules does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is known by in the whole mesh: `namespace/name`.
    pub key: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// For whom it holds.
    pub scope: Scope,
    /// What a match means.
    pub effect: Effect,
    /// Matches are told of and mean nothing.
    pub dry_run: bool,
    /// Its rules; with none it never matches, and an allowing one still shuts out what no other
    /// allows.
    pub rules: Vec<Rule>,
    /// Where it was written; unknown under a control plane that does not say.
    pub origin: Option<Origin>,
    /// Why it could not be read. Such a one denies everything.
    pub unreadable: Option<Arc<str>>,
}

/// A rule matches when all its clauses do; with none it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The line it begins on in the policy's file; 0 when unknown.
    pub line: u32,
    /// What must hold.
    pub clauses: Vec<Clause>,
}

/// A clause matches when one of these does; with none it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// What may hold.
    pub matches: Vec<Match>,
}

/// Fields that must all hold. Without any it matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The namespace of the peer's identity; empty for a peer without one.
    pub namespaces: Values<Pattern>,
    /// The peer's identity without `spiffe://`.
    pub principals: Values<Pattern>,
    /// The service account of the peer's identity.
    pub service_accounts: Values<ServiceAccount>,
    /// The peer's address.
    pub source_ips: Values<IpNet>,
    /// The workload's address.
    pub destination_ips: Values<IpNet>,
    /// The workload's port.
    pub destination_ports: Values<u16>,
}

/// Who has proven himself to be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    principal: String,
    account: ServiceAccount,
}

impl Peer {
    /// What policies look at of an identity; none of one that is no workload's.
    pub fn new(identity: &SpiffeId) -> Option<Self> {
        let SpiffeId::Workload {
            trust_domain,
            namespace,
            service_account,
        } = identity
        else {
            return None;
        };
        Some(Self {
            principal: format!("{trust_domain}/ns/{namespace}/sa/{service_account}"),
            account: ServiceAccount {
                namespace: Arc::clone(namespace),
                name: Arc::clone(service_account),
            },
        })
    }
}

/// A connection as policies of a node proxy see it (§3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks; none on a plain connection.
    pub peer: Option<Peer>,
    /// Where he connects from; none where that is not proven, or may be elsewhere by now.
    pub source: Option<IpAddr>,
    /// The workload's address and port.
    pub destination: SocketAddr,
}

impl Peer {
    /// The identity without `spiffe://`.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Its service account.
    pub fn account(&self) -> &ServiceAccount {
        &self.account
    }

    /// Its trust domain.
    pub fn trust_domain(&self) -> &str {
        let domain = self.principal.split('/').next();
        domain.unwrap_or_default()
    }
}

impl Request {
    /// A connection by its ends; IPv4 addresses in IPv6 clothes are taken for what they are.
    pub fn new(
        identity: Option<&SpiffeId>,
        source: Option<IpAddr>,
        destination: SocketAddr,
    ) -> Self {
        Self {
            peer: identity.and_then(Peer::new),
            source: source.map(|ip| ip.to_canonical()),
            destination: SocketAddr::new(destination.ip().to_canonical(), destination.port()),
        }
    }
}

impl Policy {
    /// The key of a policy.
    pub fn key_of(namespace: &str, name: &str) -> Arc<str> {
        Arc::from(format!("{namespace}/{name}"))
    }

    /// Whether both say the same, wherever it is written.
    pub fn means(&self, other: &Self) -> bool {
        let same = |(a, b): (&Rule, &Rule)| a.clauses == b.clauses;
        self.key == other.key
            && self.effect == other.effect
            && self.rules.len() == other.rules.len()
            && self.rules.iter().zip(&other.rules).all(same)
    }

    /// The first rule that matches, by its place in the policy. What it asks of an address that nobody
    /// knows holds where the policy denies, and does not where it allows.
    pub fn matching(&self, request: &Request) -> Option<usize> {
        let unknown = self.effect == Effect::Deny;
        let matches = |rule: &Rule| rule.matches(request, unknown);
        self.rules.iter().position(matches)
    }
}

impl Rule {
    fn matches(&self, request: &Request, unknown: bool) -> bool {
        let matches = |clause: &Clause| clause.matches(request, unknown);
        self.clauses.iter().all(matches)
    }
}

impl Clause {
    fn matches(&self, request: &Request, unknown: bool) -> bool {
        self.matches.is_empty() || self.matches.iter().any(|m| m.holds(request, unknown))
    }
}

impl Match {
    /// Whether it has no field, and so matches nothing.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.principals.is_empty()
            && self.service_accounts.is_empty()
            && self.source_ips.is_empty()
            && self.destination_ips.is_empty()
            && self.destination_ports.is_empty()
    }

    /// `unknown` is what asking for an unknown address comes to.
    fn holds(&self, request: &Request, unknown: bool) -> bool {
        let peer = request.peer.as_ref();
        let to = request.destination;
        // The namespace of nobody is the empty one; everything else of his is absent.
        let of = peer.map_or("", |peer| &peer.account.namespace);
        let namespace = |p: &Pattern| p.matches(of);
        let principal = |p: &Pattern| peer.is_some_and(|peer| p.matches(&peer.principal));
        let source = || match request.source {
            Some(source) => self.source_ips.hold(|net| net.contains(&source)),
            None => self.source_ips.is_empty() || unknown,
        };
        let account = |a: &ServiceAccount| peer.is_some_and(|peer| peer.account == *a);
        !self.is_empty()
            && self.destination_ports.hold(|port| *port == to.port())
            && source()
            && self.destination_ips.hold(|net| net.contains(&to.ip()))
            && self.namespaces.hold(namespace)
            && self.service_accounts.hold(account)
            && self.principals.hold(principal)
    }
}

#[cfg(test)]
mod tests;
