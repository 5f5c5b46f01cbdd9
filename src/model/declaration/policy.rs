//! Policies as the operator declared them (`spec/labels-and-policy.md` §2–§4).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Attribute, Origin};
use crate::model::limit;
use crate::model::policy::{Pattern, ServiceAccount, Values};

/// Whom a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Every workload of its namespace; of the mesh, in the root namespace.
    Namespace,
    /// Workloads that carry all these labels: of its namespace; of the mesh, in the root
    /// namespace. Never empty.
    Selector(BTreeMap<String, String>),
    /// What waypoints serve. Never empty, at most 16.
    Targets(Vec<TargetRef>),
}

/// The kinds of object a policy can be attached to at a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetKind {
    /// A service, by whatever waypoint it is bound to.
    Service,
    /// A service entry, likewise.
    ServiceEntry,
    /// A waypoint.
    Gateway,
    /// All waypoints of a class.
    GatewayClass,
}

impl TargetKind {
    /// As it is written in `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::ServiceEntry => "ServiceEntry",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
        }
    }

    /// The table of the mesh files that declares one.
    pub fn table(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::ServiceEntry => "service-entry",
            Self::Gateway => "gateway",
            Self::GatewayClass => "gateway class",
        }
    }
}

/// One of a policy's `target-refs`; always in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRef {
    /// What it is.
    pub kind: TargetKind,
    /// Its name.
    pub name: Arc<str>,
}

/// What a matching rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets in.
    Allow,
    /// Keeps out.
    Deny,
    /// Marks, and decides nothing; waypoints only.
    Audit,
    /// Asks this provider; waypoints only.
    Custom(Arc<str>),
}

/// `[[rate-limit]]` (`spec/waypoint-l7.md` §9).
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Whom it is for; always what waypoints serve.
    pub attachment: Attachment,
    /// Its rules, at least one.
    pub rules: Vec<limit::Rule>,
}

/// `[[authorization-policy]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Whom it is for.
    pub attachment: Attachment,
    /// What a matching rule does.
    pub action: Action,
    /// Log what it would do, and do nothing (annotation `istio.io/dry-run`).
    pub dry_run: bool,
    /// One of these must match; with none it never matches.
    pub rules: Vec<Rule>,
}

/// One rule. It matches when a source does (or none is given), and an operation does (or none is
/// given), and every condition does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The line it begins on, from 1.
    pub line: u32,
    /// `from`; none of them asks for nothing.
    pub from: Vec<Source>,
    /// `to`; none of them asks for nothing.
    pub to: Vec<Operation>,
    /// `when`.
    pub when: Vec<Condition>,
}

/// Where a request comes from. Every field must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// SPIFFE IDs without `spiffe://`.
    pub principals: Values<Pattern>,
    /// Namespaces of the peer's identity.
    pub namespaces: Values<Pattern>,
    /// Service accounts of the peer's identity.
    pub service_accounts: Values<ServiceAccount>,
    /// Trust domains of the peer's identity.
    pub trust_domains: Values<Pattern>,
    /// The peer's address.
    pub ip_blocks: Values<IpNet>,
    /// The first client's address (HTTP).
    pub remote_ip_blocks: Values<IpNet>,
    /// `<iss>/<sub>` of a validated JWT, as written (HTTP).
    pub request_principals: Values<Pattern>,
}

impl Source {
    /// Names of the fields that need HTTP.
    pub fn http_fields(&self) -> impl Iterator<Item = &'static str> {
        let remote = (!self.remote_ip_blocks.is_empty()).then_some("remote-ip-blocks");
        let principals = (!self.request_principals.is_empty()).then_some("request-principals");
        [remote, principals].into_iter().flatten()
    }
}

/// What a request is for. Every field must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Destination ports.
    pub ports: Values<u16>,
    /// `:authority` (HTTP).
    pub hosts: Values<Pattern>,
    /// HTTP methods.
    pub methods: Values<Pattern>,
    /// Paths (HTTP).
    pub paths: Values<PathPattern>,
}

impl Operation {
    /// Names of the fields that need HTTP.
    pub fn http_fields(&self) -> impl Iterator<Item = &'static str> {
        let hosts = (!self.hosts.is_empty()).then_some("hosts");
        let methods = (!self.methods.is_empty()).then_some("methods");
        let paths = (!self.paths.is_empty()).then_some("paths");
        [hosts, methods, paths].into_iter().flatten()
    }
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// As text.
    Text(Pattern),
    /// As a template with `{*}` or `{**}`, checked, as written.
    Template(Arc<str>),
}

/// One of a rule's `when`. At least one value is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `source.ip`.
    SourceIp(Values<IpNet>),
    /// `source.namespace`.
    SourceNamespace(Values<Pattern>),
    /// `source.principal`.
    SourcePrincipal(Values<Pattern>),
    /// `source.serviceAccount`.
    SourceServiceAccount(Values<ServiceAccount>),
    /// `source.trustDomain`.
    SourceTrustDomain(Values<Pattern>),
    /// `destination.ip`.
    DestinationIp(Values<IpNet>),
    /// `destination.port`.
    DestinationPort(Values<u16>),
    /// `remote.ip` (HTTP).
    RemoteIp(Values<IpNet>),
    /// What else a waypoint knows.
    Waypoint {
        /// What is asked for.
        key: Attribute,
        /// What is compared.
        values: Values<Pattern>,
    },
}

impl Condition {
    /// The key, if a node proxy cannot know it.
    pub fn http_field(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::RemoteIp(_) => Some(Cow::Borrowed("remote.ip")),
            Self::Waypoint { key, .. } => Some(Cow::Owned(key.to_string())),
            _ => None,
        }
    }

    /// Whether it asks for something that only HTTP requests have.
    pub fn is_of_requests(&self) -> bool {
        match self {
            Self::RemoteIp(_) => true,
            Self::Waypoint { key, .. } => key.is_of_requests(),
            _ => false,
        }
    }
}

/// What a workload does with connections that are not mutually authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MtlsMode {
    /// As a wider policy says.
    #[default]
    Unset,
    /// Takes them; the same as permissive in this mesh.
    Disable,
    /// Takes them.
    Permissive,
    /// Refuses them.
    Strict,
}

impl MtlsMode {
    /// This mode, or the wider one where this leaves it open.
    #[must_use]
    pub fn or(self, wider: Self) -> Self {
        if self == Self::Unset { wider } else { self }
    }
}

/// `[[peer-authentication]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Where it was written.
    pub origin: Origin,
    /// Its name, unique in its namespace.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Labels of the workloads it is for; none given, all of the namespace, or of the mesh in the
    /// root namespace.
    pub selector: BTreeMap<String, String>,
    /// `mtls.mode`.
    pub mode: MtlsMode,
    /// `port-level-mtls`, by the workload's port; only with a selector.
    pub ports: BTreeMap<u16, MtlsMode>,
}
