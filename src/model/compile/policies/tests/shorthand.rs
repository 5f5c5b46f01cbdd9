//! Meshes, policies, requests and verdicts in a line each.
//!
//! `DENY ns=shop name=p app=cart dry; RULE; RULE` is an authorization policy. The header has an
//! action and perhaps a namespace, a name, `target=SERVICE`, `dry`, and labels it selects. A rule is
//! `*` for `{}`, else `from FIELDS… to FIELDS… when FIELDS…`; each of these words begins another
//! source, operation or condition. A field is `key=a,b` or `!key=a,b` for its `not-` twin.
//!
//! `STRICT ns=shop name=p app=cart 9090=PERMISSIVE` is a peer authentication.
//!
//! `PEER from ADDRESS port PORT on WORKLOAD` is a request. `X` is `shop/web`, `WP` is `shop/wp`, `-`
//! a plain connection, `node` an identity that is no workload's; else `[TRUST-DOMAIN/]NS/SA`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::identity::SpiffeId;
use crate::model::compile::{Assignments, Compiled, Reported, compile, sample};
use crate::model::declaration::{
    Action, Attachment, AuthorizationPolicy, Condition, Mesh, MtlsMode, Operation, Origin,
    PathPattern, PeerAuthentication, Rule, ServiceAccount, Source, TargetKind, TargetRef, Values,
    Workload,
};
use crate::model::policy::{Denial, Guard, Pattern, Policies, Rehearsal, Request, Verdict};
use crate::model::workload as compiled;

pub(super) const ROOT: &str = "istio-system";

/// `cart-1` and `web-1` in `shop`, another `app=cart` in `infra`, one in the root namespace, and
/// these policies, the first of them the oldest.
pub(super) fn mesh(policies: &[&str]) -> Mesh {
    let mut mesh = sample::mesh();
    for (name, namespace, address) in [
        ("cart-2", "infra", "10.1.0.21"),
        ("root-1", ROOT, "10.1.0.31"),
    ] {
        let mut workload = sample::workload(name, "cart", "edge-1", address);
        workload.namespace = Arc::from(namespace);
        mesh.workloads.push(workload.into());
        let namespace = sample::namespace(namespace);
        mesh.namespaces.insert(namespace.name.clone(), namespace);
    }
    for (text, line) in policies.iter().zip(1..) {
        match text.split([' ', ';']).next().unwrap() {
            "ALLOW" | "DENY" | "AUDIT" | "CUSTOM" => {
                let mut policy = authorization(text);
                policy.origin = written_on(line);
                mesh.authorization_policies.push(policy);
            }
            _ => {
                let mut policy = peer_authentication(text);
                policy.origin = written_on(line);
                mesh.peer_authentications.push(policy);
            }
        }
    }
    mesh
}

pub(super) fn written_on(line: u32) -> Origin {
    Origin {
        line,
        ..sample::origin()
    }
}

pub(super) fn authorization(text: &str) -> AuthorizationPolicy {
    let mut parts = text.split(';').map(str::trim);
    let mut policy = AuthorizationPolicy {
        origin: sample::origin(),
        name: Arc::from("p"),
        namespace: Arc::from("shop"),
        attachment: Attachment::Namespace,
        action: Action::Allow,
        dry_run: false,
        rules: Vec::new(),
    };
    let mut labels = BTreeMap::new();
    for word in parts.next().unwrap().split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("ALLOW", _) => policy.action = Action::Allow,
            ("DENY", _) => policy.action = Action::Deny,
            ("AUDIT", _) => policy.action = Action::Audit,
            ("CUSTOM", _) => policy.action = Action::Custom(Arc::from("asker")),
            ("dry", _) => policy.dry_run = true,
            ("name", name) => policy.name = Arc::from(name),
            ("ns", namespace) => policy.namespace = Arc::from(namespace),
            ("target", name) => policy.attachment = at_service(name),
            (key, value) => drop(labels.insert(key.to_owned(), value.to_owned())),
        }
    }
    if !labels.is_empty() {
        policy.attachment = Attachment::Selector(labels);
    }
    policy.rules = parts.map(|text| rule(text, &policy.namespace)).collect();
    policy
}

fn at_service(name: &str) -> Attachment {
    Attachment::Targets(vec![TargetRef {
        kind: TargetKind::Service,
        name: Arc::from(name),
    }])
}

fn rule(text: &str, namespace: &str) -> Rule {
    let mut rule = Rule::default();
    let words: Vec<&str> = text.split_whitespace().filter(|w| *w != "*").collect();
    let begins = |word: &&str| matches!(*word, "from" | "to" | "when");
    let starts: Vec<usize> = (0..words.len()).filter(|n| begins(&words[*n])).collect();
    for (n, start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).copied().unwrap_or(words.len());
        let fields: Vec<Field<'_>> = words[start + 1..end].iter().map(|w| Field::of(w)).collect();
        match words[*start] {
            "from" => rule.from.push(source(&fields, namespace)),
            "to" => rule.to.push(operation(&fields)),
            _ => rule.when.push(condition(&fields, namespace)),
        }
    }
    rule
}

/// `key=a,b` or `!key=a,b`.
struct Field<'a> {
    not: bool,
    key: &'a str,
    values: &'a str,
}

impl<'a> Field<'a> {
    fn of(word: &'a str) -> Self {
        let (key, values) = word.trim_start_matches('!').split_once('=').unwrap();
        Self {
            not: word.starts_with('!'),
            key,
            values,
        }
    }

    fn put<T>(&self, values: &mut Values<T>, read: impl Fn(&str) -> T) {
        let read = self.values.split(',').map(read);
        match self.not {
            true => values.not.extend(read),
            false => values.any.extend(read),
        }
    }
}

fn source(fields: &[Field<'_>], namespace: &str) -> Source {
    let mut source = Source::default();
    for field in fields {
        match field.key {
            "principal" => field.put(&mut source.principals, pattern),
            "ns" => field.put(&mut source.namespaces, pattern),
            "sa" => field.put(&mut source.service_accounts, |t| account(t, namespace)),
            "td" => field.put(&mut source.trust_domains, pattern),
            "ip" => field.put(&mut source.ip_blocks, network),
            "remote-ip" => field.put(&mut source.remote_ip_blocks, network),
            "jwt" => field.put(&mut source.request_principals, pattern),
            other => panic!("no field of a source: {other}"),
        }
    }
    source
}

fn operation(fields: &[Field<'_>]) -> Operation {
    let mut operation = Operation::default();
    for field in fields {
        match field.key {
            "port" => field.put(&mut operation.ports, |text| text.parse().unwrap()),
            "host" => field.put(&mut operation.hosts, pattern),
            "method" => field.put(&mut operation.methods, pattern),
            "path" => field.put(&mut operation.paths, |t| PathPattern::Text(pattern(t))),
            other => panic!("no field of an operation: {other}"),
        }
    }
    operation
}

fn condition(fields: &[Field<'_>], namespace: &str) -> Condition {
    fn values<T>(fields: &[Field<'_>], read: impl Fn(&str) -> T) -> Values<T> {
        let mut values = Values::default();
        fields
            .iter()
            .for_each(|field| field.put(&mut values, &read));
        values
    }
    match fields[0].key {
        "source.ip" => Condition::SourceIp(values(fields, network)),
        "source.namespace" => Condition::SourceNamespace(values(fields, pattern)),
        "source.principal" => Condition::SourcePrincipal(values(fields, pattern)),
        "source.serviceAccount" => {
            Condition::SourceServiceAccount(values(fields, |t| account(t, namespace)))
        }
        "source.trustDomain" => Condition::SourceTrustDomain(values(fields, pattern)),
        "destination.ip" => Condition::DestinationIp(values(fields, network)),
        "destination.port" => Condition::DestinationPort(values(fields, |t| t.parse().unwrap())),
        "remote.ip" => Condition::RemoteIp(values(fields, network)),
        key => Condition::Waypoint {
            key: key.parse().unwrap(),
            values: values(fields, pattern),
        },
    }
}

pub(super) fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// `sa` in the policy's namespace, or `ns/sa`.
pub(super) fn account(text: &str, namespace: &str) -> ServiceAccount {
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    ServiceAccount {
        namespace: Arc::from(namespace),
        name: Arc::from(name),
    }
}

pub(super) fn network(text: &str) -> IpNet {
    let one = || IpNet::from(text.parse::<IpAddr>().unwrap());
    text.parse().unwrap_or_else(|_| one())
}

pub(super) fn peer_authentication(text: &str) -> PeerAuthentication {
    let mut policy = PeerAuthentication {
        origin: sample::origin(),
        name: Arc::from("p"),
        namespace: Arc::from("shop"),
        selector: BTreeMap::new(),
        mode: MtlsMode::Unset,
        ports: BTreeMap::new(),
    };
    for word in text.split_whitespace() {
        match word.split_once('=') {
            None => policy.mode = mode(word),
            Some(("name", name)) => policy.name = Arc::from(name),
            Some(("ns", namespace)) => policy.namespace = Arc::from(namespace),
            Some((key, value)) => match key.parse() {
                Ok(port) => drop(policy.ports.insert(port, mode(value))),
                Err(_) => drop(policy.selector.insert(key.to_owned(), value.to_owned())),
            },
        }
    }
    policy
}

fn mode(text: &str) -> MtlsMode {
    match text {
        "UNSET" => MtlsMode::Unset,
        "DISABLE" => MtlsMode::Disable,
        "PERMISSIVE" => MtlsMode::Permissive,
        "STRICT" => MtlsMode::Strict,
        other => panic!("no mode: {other}"),
    }
}

/// Who asks whom, before any of it is made fit for matching.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) peer: Option<SpiffeId>,
    pub(super) source: IpAddr,
    pub(super) port: u16,
    pub(super) workload: String,
}

impl Asked {
    pub(super) fn read(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let mut asked = Self {
            peer: peer(words.next().unwrap()),
            source: "10.1.0.12".parse().unwrap(),
            port: 8080,
            workload: "cart-1".to_owned(),
        };
        while let (Some(what), Some(value)) = (words.next(), words.next()) {
            match what {
                "from" => asked.source = value.parse().unwrap(),
                "port" => asked.port = value.parse().unwrap(),
                "on" => asked.workload = value.to_owned(),
                other => panic!("not part of a request: {other}"),
            }
        }
        asked
    }
}

pub(super) fn peer(text: &str) -> Option<SpiffeId> {
    let parts: Vec<&str> = text.split('/').collect();
    let (trust_domain, namespace, account) = match parts[..] {
        ["-"] => return None,
        ["node"] => return SpiffeId::node(&"cluster.local".parse().unwrap(), "edge-1").ok(),
        ["X"] => ("cluster.local", "shop", "web"),
        ["WP"] => ("cluster.local", "shop", "wp"),
        [namespace, account] => ("cluster.local", namespace, account),
        [trust_domain, namespace, account] => (trust_domain, namespace, account),
        _ => panic!("no peer: {text}"),
    };
    SpiffeId::workload(&trust_domain.parse().unwrap(), namespace, account).ok()
}

/// A mesh as its nodes know it.
pub(super) struct Judge {
    mesh: Mesh,
    pub(super) compiled: Compiled,
    policies: Policies,
}

impl Judge {
    pub(super) fn new(mesh: Mesh) -> Self {
        let compiled = compile(&mesh, &Reported::default(), &Assignments::default()).unwrap();
        let policies = Policies::new(compiled.policies.iter().cloned());
        Self {
            mesh,
            compiled,
            policies,
        }
    }

    pub(super) fn declared(&self, name: &str) -> &Workload {
        let mut workloads = self.mesh.workloads.iter();
        workloads.find(|w| *w.name == *name).unwrap()
    }

    pub(super) fn workload(&self, name: &str) -> &compiled::Workload {
        let mut workloads = self.compiled.workloads.iter();
        workloads.find(|w| *w.name == *name).unwrap()
    }

    pub(super) fn guard(&self, name: &str) -> Guard {
        self.policies.guard(self.workload(name))
    }

    pub(super) fn request(&self, asked: &Asked) -> Request {
        let to = self.declared(&asked.workload).addresses[0];
        let to = SocketAddr::new(to, asked.port);
        Request::new(asked.peer.as_ref(), Some(asked.source), to)
    }

    /// `in`, `unallowed`, or the key of the policy that denies.
    pub(super) fn verdict(&self, asked: &Asked) -> String {
        told(&self.guard(&asked.workload).judge(&self.request(asked)))
    }

    pub(super) fn rehearsal(&self, asked: &Asked) -> Vec<String> {
        let guard = self.guard(&asked.workload);
        let would = guard.rehearse(&self.request(asked));
        would.iter().map(rehearsed).collect()
    }
}

pub(super) fn told(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Allowed(_) => "in".to_owned(),
        Verdict::Denied(Denial::NotAllowed { .. }) => "unallowed".to_owned(),
        Verdict::Denied(Denial::Rule(cause)) => cause.policy.key.to_string(),
        Verdict::Denied(Denial::Missing(key)) => panic!("{key} is listed and not there"),
    }
}

fn rehearsed(would: &Rehearsal) -> String {
    match would {
        Rehearsal::Deny(cause) => format!("deny {}", cause.policy.key),
        Rehearsal::Allow(cause) => format!("allow {}", cause.policy.key),
        Rehearsal::NoAllow(first) => format!("unallowed {}", first.key),
    }
}
