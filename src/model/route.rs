//! Routes: what of a service's traffic goes where, and what is changed on the way
//! (`spec/waypoint-l7.md` §2, §3.1).
//!
//! A [`Rule`] is the same thing whether an `http-route`, a `grpc-route` or a `virtual-service` says
//! it; what differs is how rules are put in order, which the [`Kind`] tells. Rules name their
//! backends by `B`: by [`BackendRef`] as the operator wrote them, and by [`Target`] once the whole
//! mesh has been asked who that is.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::declaration::Origin;
use super::service::{AppProtocol, ServiceKey};

mod candidate;
mod conditions;
mod cors;
mod fault;
mod filter;
mod headers;
mod joined;
mod list;
mod matcher;
mod origin;
mod path;
mod pattern;
mod percent;
mod query;
mod redirect;
mod retry;
mod rewrite;
mod session;
mod sorted;
mod table;
#[cfg(test)]
mod testing;
mod tls;
mod weights;

pub use cors::{CorsVerdict, is_preflight};
pub use filter::{
    Cors, DirectResponse, Filter, Fraction, HeaderChange, Mirror, OriginPattern, PathChange,
    Redirect, Rewrite, UnmatchedPreflights,
};
pub use joined::Unsayable;
pub use matcher::Matcher;
pub use path::{PathNormalization, well_formed};
pub use pattern::{Regex, RegexError, TextMatch};
pub use query::{
    all as query_parameters, edited, first as query_parameter, without as query_without,
};
pub use retry::Failure;
pub use session::{Session, SessionKey};
pub use table::{Asked, Chosen, Selection, Table, Unresolved};
pub use tls::{TlsChosen, TlsSelection, TlsTable};
pub use weights::backend;

/// The kinds of route, the more particular ones first: of those that name the same port of a
/// service, only the first kind holds (§2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `grpc-route`.
    Grpc,
    /// `http-route`.
    Http,
    /// `tls-route`.
    Tls,
    /// `tcp-route`.
    Tcp,
    /// `virtual-service`: its rules are tried in the order they are written.
    VirtualService,
}

impl Kind {
    /// The table it is written as.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc-route",
            Self::Http => "http-route",
            Self::Tls => "tls-route",
            Self::Tcp => "tcp-route",
            Self::VirtualService => "virtual-service",
        }
    }

    /// Which of several kinds holds on a port.
    pub fn family(self) -> Family {
        match self {
            Self::Grpc => Family::Calls,
            Self::Http => Family::Requests,
            Self::Tls | Self::Tcp => Family::Connections,
            Self::VirtualService => Family::VirtualServices,
        }
    }

    /// Whether routes of this kind can be for what is spoken on a port (§1.4).
    pub fn fits(self, protocol: AppProtocol) -> bool {
        match protocol {
            AppProtocol::Unknown => true,
            AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => {
                matches!(self, Self::Grpc | Self::Http | Self::VirtualService)
            }
            AppProtocol::Tls => matches!(self, Self::Tls | Self::Tcp),
            AppProtocol::Tcp => self == Self::Tcp,
        }
    }
}

/// Kinds of route that share a port; the lower family excludes the higher (§2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `grpc-route`.
    Calls,
    /// `http-route`.
    Requests,
    /// `tls-route` and `tcp-route`: what the former does not name goes on to the latter (§2.8).
    Connections,
    /// `virtual-service`, which is tried after each of them.
    VirtualServices,
}

/// What names a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
    }
}

/// A route whose backends are known.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// What names it.
    pub key: RouteKey,
    /// Where it was written.
    pub origin: Origin,
    /// The server names a `tls-route` is for, lower case, exact or `*.suffix`; where it names none,
    /// at each parent that one's own. Empty for every other kind.
    pub server_names: Vec<Arc<str>>,
    /// Its rules, in the order they were written.
    pub rules: Vec<Rule<Target>>,
}

/// What becomes of the traffic that one of its matches takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<B> {
    /// `name`; empty where it has none.
    pub name: Arc<str>,
    /// The line it was written on.
    pub line: u32,
    /// Any one of them takes a request. No `matches` is one that takes
    /// everything. Empty for `tcp-route` and `tls-route`, and where nothing can meet what is written.
    pub matches: Vec<Match>,
    /// What is done on the way, in the order of the file.
    pub filters: Vec<Filter<B>>,
    /// Where it goes; each gets the share of its weight.
    pub backends: Vec<Backend<B>>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// When it is asked again; absent, as the mesh does by default (§3.2).
    pub retry: Option<Retry>,
    /// Whether a client stays with an endpoint.
    pub persistence: Option<Persistence>,
    /// What is done wrong on purpose; `virtual-service` alone.
    pub fault: Fault,
}

/// A request that a rule is for: all of it must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Of the path, normalised and without query.
    pub path: PathMatch,
    /// Whether case is of no account in the path; `virtual-service` alone.
    pub ignore_case: bool,
    /// Of the method.
    pub method: Option<TextMatch>,
    /// Of header fields, by lower-case name; those of one name joined with `,`.
    pub headers: Vec<(Arc<str>, TextMatch)>,
    /// Header fields that must not be so.
    pub without_headers: Vec<(Arc<str>, TextMatch)>,
    /// Of query parameters: the first of the name, percent-decoded.
    pub query: Vec<(Arc<str>, TextMatch)>,
    /// Of the scheme; `virtual-service` alone, like all that follows.
    pub scheme: Option<TextMatch>,
    /// Of `Host`, without regard to case.
    pub authority: Option<TextMatch>,
    /// The service port asked for.
    pub port: Option<u16>,
    /// The client's namespace.
    pub source_namespace: Option<Arc<str>>,
}

impl Default for Match {
    /// Takes everything.
    fn default() -> Self {
        Self {
            path: PathMatch::Prefix(Arc::from("/")),
            ignore_case: false,
            method: None,
            headers: Vec::new(),
            without_headers: Vec::new(),
            query: Vec::new(),
            scheme: None,
            authority: None,
            port: None,
            source_namespace: None,
        }
    }
}

/// How a path is matched (§2.2).
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// It is this.
    Exact(Arc<str>),
    /// It begins with these segments. Written with a `/` at its end, it means the same.
    Prefix(Arc<str>),
    /// It begins with this text, whatever follows: `virtual-service`'s `prefix`.
    TextPrefix(Arc<str>),
    /// All of it matches.
    Regex(Regex),
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend<B> {
    /// Who.
    pub to: B,
    /// Its share beside the others', 0 for none, at most 1,000,000.
    pub weight: u32,
    /// What is done on the way there.
    pub filters: Vec<Filter<B>>,
}

/// A backend as the operator names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BackendRef {
    /// Of which kind.
    pub kind: BackendKind,
    /// Its name, or host name; for a `Hostname` and a `virtual-service`'s `host` as it was written.
    pub name: Arc<str>,
    /// The namespace it is looked for in.
    pub namespace: Arc<str>,
    /// The port; a `virtual-service` may leave it open where the service has but one, or means the
    /// one asked for.
    pub port: Option<u16>,
    /// `subset` of a `virtual-service`'s destination.
    pub subset: Option<Arc<str>>,
    /// Where it was written.
    pub origin: Origin,
}

/// What a backend is said to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendKind {
    /// `Service`, or `ServiceImport`, which is the same in a mesh of one cluster.
    Service,
    /// `Hostname` of `networking.istio.io`, and a `virtual-service`'s `host`: any host name the mesh
    /// has.
    Hostname,
    /// Anything else, as it was written: nobody is there.
    Unknown(Arc<str>),
}

/// A backend as the waypoint knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A port of a service.
    Service {
        /// Which.
        key: ServiceKey,
        /// Its service port; 0 is the one that was asked for, which it may not have.
        port: u16,
        /// Only those endpoints.
        subset: Option<Arc<str>>,
    },
    /// Nobody, and why: its share is answered 500 (§2.6).
    Invalid(Arc<str>),
}

/// How long a request may take; absent is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// All of it, every attempt included.
    pub request: Option<Duration>,
    /// One attempt.
    pub backend_request: Option<Duration>,
}

/// When a request is asked again (§2.7, §3.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// How often, beyond the first time.
    pub attempts: u32,
    /// After what.
    pub on: BTreeSet<RetryOn>,
    /// After which statuses, beside those.
    pub codes: BTreeSet<u16>,
    /// Shortest wait before it, where one is asked for; 25 ms grow from the first otherwise.
    pub backoff: Option<Duration>,
    /// Longest one attempt may take.
    pub per_try_timeout: Option<Duration>,
    /// Whether endpoints that failed are avoided.
    pub ignore_previous_hosts: bool,
    /// Whether endpoints further away are asked the next time.
    pub remote_localities: bool,
}

/// What a request is asked again after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryOn {
    /// `5xx`: any such status, or no answer.
    ServerError,
    /// `gateway-error`: 502, 503, 504.
    GatewayError,
    /// `retriable-4xx`: 409.
    Conflict,
    /// `connect-failure`.
    ConnectFailure,
    /// `refused-stream`.
    RefusedStream,
    /// `reset`: no answer.
    Reset,
    /// `reset-before-request`: no answer, and not all was asked.
    ResetBeforeRequest,
    /// `envoy-ratelimited`.
    RateLimited,
    /// `cancelled`: gRPC 1.
    Cancelled,
    /// `deadline-exceeded`: gRPC 4.
    DeadlineExceeded,
    /// `internal`: gRPC 13.
    Internal,
    /// `resource-exhausted`: gRPC 8.
    ResourceExhausted,
    /// `unavailable`: gRPC 14.
    Unavailable,
    /// A per-try timeout, where that alone is meant: Gateway API's `retry`.
    AttemptTimeout,
}

impl Retry {
    /// What holds for a rule that says nothing, and for what no rule is about (§3.2).
    pub fn usual() -> Self {
        Self {
            attempts: 2,
            on: [
                RetryOn::ConnectFailure,
                RetryOn::RefusedStream,
                RetryOn::Unavailable,
                RetryOn::Cancelled,
            ]
            .into(),
            codes: BTreeSet::new(),
            backoff: None,
            per_try_timeout: None,
            ignore_previous_hosts: true,
            remote_localities: false,
        }
    }
}

/// How a client stays with an endpoint (§2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// By what.
    pub by: PersistBy,
    /// How long at most.
    pub absolute_timeout: Option<Duration>,
}

/// What carries a session's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PersistBy {
    /// A cookie.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// Its path.
        path: Arc<str>,
        /// Whether it outlives the browser, for `absolute_timeout`.
        permanent: bool,
    },
    /// A header field, by lower-case name.
    Header {
        /// Its name.
        name: Arc<str>,
    },
}

/// What is done wrong on purpose (§3.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    /// A wait, and of which share of the requests.
    pub delay: Option<(Duration, Fraction)>,
    /// An answer instead of the backend's, and to which share.
    pub abort: Option<(Abort, Fraction)>,
}

/// The answer of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u16),
}

impl<B> Rule<B> {
    /// The same rule with its backends named another way.
    pub fn map<C>(&self, f: &mut impl FnMut(&B) -> C) -> Rule<C> {
        let backend = |b: &Backend<B>, f: &mut dyn FnMut(&B) -> C| Backend {
            to: f(&b.to),
            weight: b.weight,
            filters: b.filters.iter().map(|filter| filter.map(f)).collect(),
        };
        Rule {
            name: Arc::clone(&self.name),
            line: self.line,
            matches: self.matches.clone(),
            filters: self.filters.iter().map(|filter| filter.map(f)).collect(),
            backends: self.backends.iter().map(|b| backend(b, f)).collect(),
            timeouts: self.timeouts,
            retry: self.retry.clone(),
            persistence: self.persistence.clone(),
            fault: self.fault.clone(),
        }
    }
}
