//! `spec/labels-and-policy.md` §3.1 to §3.9, §4 and §6, read aloud: judges what is declared, as it is
//! declared. It shares nothing with what it is compared with, text and network matching included.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::shorthand::{Asked, ROOT};
use crate::identity::SpiffeId;
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Condition, Mesh, MtlsMode, Operation,
    PeerAuthentication, Rule, Source, Values, Workload,
};
use crate::model::policy::Pattern;

/// The peer's identity in parts; all of them there or none.
struct Identity {
    trust_domain: String,
    namespace: String,
    account: String,
}

/// One connection to one workload of a mesh.
pub(super) struct Naive<'a> {
    mesh: &'a Mesh,
    workload: &'a Workload,
    peer: Option<Identity>,
    source: IpAddr,
    destination: SocketAddr,
}

impl<'a> Naive<'a> {
    pub(super) fn new(mesh: &'a Mesh, workload: &'a Workload, asked: &Asked) -> Self {
        let peer = asked.peer.as_ref().and_then(|id| match id {
            SpiffeId::Workload {
                trust_domain,
                namespace,
                service_account,
            } => Some(Identity {
                trust_domain: trust_domain.to_string(),
                namespace: namespace.to_string(),
                account: service_account.to_string(),
            }),
            _ => None,
        });
        Self {
            mesh,
            workload,
            peer,
            source: asked.source,
            destination: SocketAddr::new(workload.addresses[0], asked.port),
        }
    }

    /// §6: `in`, `unallowed`, or the smallest key of what denies.
    pub(super) fn verdict(&self) -> String {
        let real = || self.in_force().filter(|policy| !policy.dry_run);
        let denying = real().filter(|p| p.action == Action::Deny && self.matches(p));
        let mut denying: BTreeSet<String> = denying.map(key).collect();
        denying.extend(self.refused_plaintext());
        if let Some(first) = denying.pop_first() {
            return first;
        }
        let mut allowing = real().filter(|p| p.action == Action::Allow).peekable();
        let open = allowing.peek().is_none() || allowing.any(|p| self.matches(p));
        if open { "in" } else { "unallowed" }.to_owned()
    }

    /// §3.7.
    pub(super) fn rehearsal(&self) -> BTreeSet<String> {
        let tried = || self.in_force().filter(|policy| policy.dry_run);
        let mut would: BTreeSet<String> = tried()
            .filter(|p| self.matches(p))
            .map(|p| match p.action {
                Action::Deny => format!("deny {}", key(p)),
                _ => format!("allow {}", key(p)),
            })
            .collect();
        let real_allow = self
            .in_force()
            .any(|p| !p.dry_run && p.action == Action::Allow);
        let allows: Vec<_> = tried().filter(|p| p.action == Action::Allow).collect();
        let matched = allows.iter().any(|p| self.matches(p));
        if let (false, false, Some(first)) =
            (real_allow, matched, allows.iter().map(|p| key(p)).min())
        {
            would.insert(format!("unallowed {first}"));
        }
        would
    }

    /// §2.3, §3.5: what node proxies have of what holds for the workload.
    fn in_force(&self) -> impl Iterator<Item = &'a AuthorizationPolicy> {
        let known = |p: &&AuthorizationPolicy| matches!(p.action, Action::Allow | Action::Deny);
        self.mesh
            .authorization_policies
            .iter()
            .filter(known)
            .filter(|p| {
                let near = *p.namespace == *ROOT || p.namespace == self.workload.namespace;
                near && match &p.attachment {
                    Attachment::Targets(_) => false,
                    Attachment::Namespace => true,
                    Attachment::Selector(labels) => self.carries(labels),
                }
            })
    }

    fn carries(&self, labels: &BTreeMap<String, String>) -> bool {
        labels
            .iter()
            .all(|(key, value)| self.workload.labels.get(key) == Some(value))
    }

    fn matches(&self, policy: &AuthorizationPolicy) -> bool {
        let left_out = |rule: &&Rule| policy.action == Action::Allow && any_http(rule);
        policy
            .rules
            .iter()
            .filter(|rule| !left_out(rule))
            .any(|rule| self.rule(rule))
    }

    /// §3.1; what only HTTP knows has no part in it, and what then asks for nothing does not match.
    fn rule(&self, rule: &Rule) -> bool {
        let from = rule.from.is_empty() || rule.from.iter().any(|source| self.source(source));
        let to = rule.to.is_empty() || rule.to.iter().any(|operation| self.operation(operation));
        from && to && rule.when.iter().all(|condition| self.condition(condition))
    }

    fn source(&self, source: &Source) -> bool {
        let Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            ..
        } = source;
        let asks = asks(principals)
            || asks(namespaces)
            || asks(service_accounts)
            || asks(trust_domains)
            || asks(ip_blocks);
        asks && self.principal(principals)
            && self.namespace(namespaces)
            && holds(service_accounts, |a| self.account(&a.namespace, &a.name))
            && self.trust_domain(trust_domains)
            && holds(ip_blocks, |block| contains(block, self.source))
    }

    fn operation(&self, operation: &Operation) -> bool {
        asks(&operation.ports) && holds(&operation.ports, |port| *port == self.destination.port())
    }

    fn condition(&self, condition: &Condition) -> bool {
        match condition {
            Condition::SourceIp(values) => holds(values, |block| contains(block, self.source)),
            Condition::SourceNamespace(values) => self.namespace(values),
            Condition::SourcePrincipal(values) => self.principal(values),
            Condition::SourceServiceAccount(values) => {
                holds(values, |a| self.account(&a.namespace, &a.name))
            }
            Condition::SourceTrustDomain(values) => self.trust_domain(values),
            Condition::DestinationIp(values) => {
                holds(values, |block| contains(block, self.destination.ip()))
            }
            Condition::DestinationPort(values) => {
                holds(values, |port| *port == self.destination.port())
            }
            Condition::RemoteIp(_) | Condition::Waypoint { .. } => false,
        }
    }

    fn namespace(&self, values: &Values<Pattern>) -> bool {
        let namespace = self.peer.as_ref().map_or("", |peer| &peer.namespace);
        holds(values, |pattern| like(&pattern.to_string(), namespace))
    }

    fn account(&self, namespace: &str, name: &str) -> bool {
        self.peer
            .as_ref()
            .is_some_and(|peer| peer.namespace == namespace && peer.account == name)
    }

    /// §3.9: whoever a value of the bundle is meant for, all of the bundle is.
    fn principal(&self, values: &Values<Pattern>) -> bool {
        let Some(peer) = &self.peer else {
            return values.any.is_empty();
        };
        let principal = format!(
            "{}/ns/{}/sa/{}",
            peer.trust_domain, peer.namespace, peer.account
        );
        holds(values, |pattern| {
            let meant = self.meant(&pattern.to_string());
            meant.iter().any(|pattern| like(pattern, &principal))
        })
    }

    fn meant(&self, principal: &str) -> Vec<String> {
        let bundle = self.bundle();
        let (first, rest) = match principal.split('/').collect::<Vec<_>>()[..] {
            [first, a, b, c, d] if first != "*" => (first, [a, b, c, d].join("/")),
            _ => return vec![principal.to_owned()],
        };
        if first != "cluster.local" && !bundle.iter().any(|entry| like(first, entry)) {
            return vec![principal.to_owned()];
        }
        let renamed = |entry: &String| match first.starts_with('*') && like(first, entry) {
            true => principal.to_owned(),
            false => format!("{entry}/{rest}"),
        };
        bundle.iter().map(renamed).collect()
    }

    fn trust_domain(&self, values: &Values<Pattern>) -> bool {
        let Some(peer) = &self.peer else {
            return values.any.is_empty();
        };
        let bundle = self.bundle();
        holds(values, |pattern| {
            let pattern = pattern.to_string();
            let ours = bundle.contains(&pattern) && bundle.contains(&peer.trust_domain);
            ours || like(&pattern, &peer.trust_domain)
        })
    }

    fn bundle(&self) -> Vec<String> {
        let settings = &self.mesh.settings;
        let aliases = settings.trust_domain_aliases.iter();
        std::iter::once(&settings.trust_domain)
            .chain(aliases)
            .map(ToString::to_string)
            .collect()
    }

    /// §4.2: the key of what refuses a plain connection in this mode.
    fn refused_plaintext(&self) -> Option<String> {
        let level = |root: bool, narrow: bool| {
            let namespace = if root {
                ROOT
            } else {
                &*self.workload.namespace
            };
            let mut all = self.mesh.peer_authentications.iter();
            all.find(|p| {
                *p.namespace == *namespace
                    && p.selector.is_empty() != narrow
                    && self.carries(&p.selector)
            })
        };
        let workload = level(false, true).filter(|_| *self.workload.namespace != *ROOT);
        let mode = |p: Option<&PeerAuthentication>, wider| match p.map(|p| p.mode) {
            None | Some(MtlsMode::Unset) => wider,
            Some(mode) => mode,
        };
        let mesh = mode(level(true, false), MtlsMode::Permissive);
        let default = mode(workload, mode(level(false, false), mesh));
        let of_port = |port: &MtlsMode| {
            if *port == MtlsMode::Unset {
                default
            } else {
                *port
            }
        };
        let ports: BTreeMap<u16, MtlsMode> = workload.map_or_else(BTreeMap::new, |w| {
            w.ports.iter().map(|(p, m)| (*p, of_port(m))).collect()
        });
        let here = ports
            .get(&self.destination.port())
            .copied()
            .unwrap_or(default);
        let everywhere =
            default == MtlsMode::Strict && ports.values().all(|m| *m == MtlsMode::Strict);
        let name = match workload {
            Some(own) if !everywhere => format!(
                "{}/converted_peer_authentication_{}",
                own.namespace, own.name
            ),
            _ => format!("{ROOT}/istio_converted_static_strict"),
        };
        (self.peer.is_none() && here == MtlsMode::Strict).then_some(name)
    }
}

fn key(policy: &AuthorizationPolicy) -> String {
    format!("{}/{}", policy.namespace, policy.name)
}

fn any_http(rule: &Rule) -> bool {
    rule.from
        .iter()
        .any(|s| asks(&s.remote_ip_blocks) || asks(&s.request_principals))
        || rule
            .to
            .iter()
            .any(|o| asks(&o.hosts) || asks(&o.methods) || asks(&o.paths))
        || rule
            .when
            .iter()
            .any(|c| matches!(c, Condition::RemoteIp(_) | Condition::Waypoint { .. }))
}

fn asks<T>(values: &Values<T>) -> bool {
    !(values.any.is_empty() && values.not.is_empty())
}

/// One of the values, when there are any, and none of the others.
fn holds<T>(values: &Values<T>, mut hits: impl FnMut(&T) -> bool) -> bool {
    (values.any.is_empty() || values.any.iter().any(&mut hits)) && !values.not.iter().any(hits)
}

/// §3.2: at most one star, at one end.
fn like(pattern: &str, value: &str) -> bool {
    match pattern.split('*').collect::<Vec<_>>()[..] {
        ["", ""] => !value.is_empty(),
        ["", end] => value.len() >= end.len() && &value[value.len() - end.len()..] == end,
        [begin, ""] => value.len() >= begin.len() && &value[..begin.len()] == begin,
        _ => pattern == value,
    }
}

/// Bit by bit from the first; IPv4 in IPv6 is IPv4.
fn contains(block: &IpNet, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
    };
    let (block, length, address) = (
        bits(block.addr()),
        usize::from(block.prefix_len()),
        bits(address),
    );
    block.len() == address.len() && block[..length] == address[..length]
}
