//! Whether a rule means what was asked (`spec/labels-and-policy.md` §3.1–§3.4).
//!
//! Where a request repeats a field, its lines count joined and each by itself, whichever is to its
//! disadvantage: nobody gets past a rule by saying something twice.

use std::borrow::Cow;
use std::sync::Arc;

use super::asked::{Asked, Http};
use super::{Authorization, Token, template};
use crate::model::declaration::{
    Action, Attribute, Condition, Operation, PathPattern, Rule, ServiceAccount, Source, Values,
};
use crate::model::policy::{Pattern, Peer};

/// What is asked of rules that open, or of rules that close.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) asked: &'a Asked<'a>,
    /// Whether a match lets in.
    pub(super) opens: bool,
}

impl<'a> Judge<'a> {
    /// What the rules of a policy are asked.
    pub(super) fn of(policy: &Authorization, asked: &'a Asked<'a>) -> Self {
        Self {
            asked,
            opens: policy.action == Action::Allow,
        }
    }

    /// Whether a rule matches. Of a connection that is no HTTP, what only requests have is taken to
    /// match in rules that close, and rules that open by it do not (§3.4).
    pub(super) fn matches(self, rule: &Rule) -> bool {
        if self.asked.http.is_none() && self.opens && is_of_requests(rule) {
            return false;
        }
        let from = rule.from.is_empty() || rule.from.iter().any(|s| self.source(s));
        let to = from && (rule.to.is_empty() || rule.to.iter().any(|o| self.operation(o)));
        to && rule.when.iter().all(|condition| self.condition(condition))
    }

    fn source(self, source: &Source) -> bool {
        let Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
        } = source;
        self.principal(principals)
            && self.namespace(namespaces)
            && self.account(service_accounts)
            && self.trust_domain(trust_domains)
            && ip_blocks.hold(|net| net.contains(&self.asked.source))
            && self.of_http(|http| {
                remote_ip_blocks.hold(|net| net.contains(&self.asked.remote))
                    && request_principals.hold(|p| http.token.is_some_and(|t| t.is(p)))
            })
    }

    fn operation(self, operation: &Operation) -> bool {
        let Operation {
            ports,
            hosts,
            methods,
            paths,
        } = operation;
        ports.hold(|port| *port == self.asked.destination.port())
            && self.of_http(|http| {
                hosts.hold(|pattern| is_host(pattern, http.authority))
                    && methods.hold(|pattern| pattern.matches(http.method))
                    && paths.hold(|pattern| is_path(pattern, http.path))
            })
    }

    fn condition(self, condition: &Condition) -> bool {
        let asked = self.asked;
        match condition {
            Condition::SourceIp(nets) => nets.hold(|net| net.contains(&asked.source)),
            Condition::SourceNamespace(values) => self.namespace(values),
            Condition::SourcePrincipal(values) => self.principal(values),
            Condition::SourceServiceAccount(values) => self.account(values),
            Condition::SourceTrustDomain(values) => self.trust_domain(values),
            Condition::DestinationIp(nets) => {
                nets.hold(|net| net.contains(&asked.destination.ip()))
            }
            Condition::DestinationPort(ports) => {
                ports.hold(|port| *port == asked.destination.port())
            }
            Condition::RemoteIp(nets) => {
                self.of_http(|_http| nets.hold(|net| net.contains(&asked.remote)))
            }
            Condition::Waypoint { key, values } => self.attribute(key, values),
        }
    }

    fn attribute(self, key: &Attribute, values: &Values<Pattern>) -> bool {
        let of_token = |hits: &dyn Fn(&Token, &Pattern) -> bool| {
            self.of_http(|http| values.hold(|p| http.token.is_some_and(|token| hits(token, p))))
        };
        match key {
            Attribute::ServerName => {
                values.hold(|p| self.asked.server_name.is_some_and(|name| p.matches(name)))
            }
            Attribute::Header(name) => self.of_http(|http| self.header(http, name, values)),
            Attribute::Principal => of_token(&Token::is),
            Attribute::Audiences => of_token(&|t, p| t.claims(&[Arc::from("aud")], p)),
            Attribute::Presenter => of_token(&|t, p| t.claims(&[Arc::from("azp")], p)),
            Attribute::Claim(path) => of_token(&|t, p| t.claims(path, p)),
        }
    }

    fn header(self, http: Http<'_>, name: &str, values: &Values<Pattern>) -> bool {
        let Some(joined) = http.header(name) else {
            return values.any.is_empty();
        };
        let whole = |p: &Pattern| is_field(p, &joined);
        let line = |p: &Pattern| {
            let mut lines = http.headers.get_all(name).iter();
            lines.any(|line| is_field(p, line.as_bytes()))
        };
        let either = |p: &Pattern| whole(p) || line(p);
        let any = values.any.is_empty()
            || match self.opens {
                true => values.any.iter().any(whole),
                false => values.any.iter().any(either),
            };
        let not = match self.opens {
            true => values.not.iter().any(either),
            false => values.not.iter().any(whole),
        };
        any && !not
    }

    fn principal(self, values: &Values<Pattern>) -> bool {
        self.of_peer(values, |peer, pattern| pattern.matches(peer.principal()))
    }

    fn namespace(self, values: &Values<Pattern>) -> bool {
        self.of_peer(values, |peer, pattern| {
            pattern.matches(&peer.account().namespace)
        })
    }

    fn account(self, values: &Values<ServiceAccount>) -> bool {
        self.of_peer(values, |peer, account| peer.account() == account)
    }

    fn trust_domain(self, values: &Values<Pattern>) -> bool {
        self.of_peer(values, |peer, pattern| pattern.matches(peer.trust_domain()))
    }

    fn of_peer<T>(self, values: &Values<T>, hits: impl Fn(&Peer, &T) -> bool) -> bool {
        values.hold(|value| self.asked.peer.is_some_and(|peer| hits(peer, value)))
    }

    /// What requests alone have; a connection that is none is taken to have it.
    fn of_http(self, holds: impl FnOnce(Http<'_>) -> bool) -> bool {
        self.asked.http.is_none_or(holds)
    }
}

/// Whether it asks for something that only HTTP requests have.
fn is_of_requests(rule: &Rule) -> bool {
    let mut sources = rule.from.iter().flat_map(Source::http_fields);
    let mut operations = rule.to.iter().flat_map(Operation::http_fields);
    let mut conditions = rule.when.iter();
    sources.next().is_some()
        || operations.next().is_some()
        || conditions.any(Condition::is_of_requests)
}

/// Hosts are the same in upper and in lower case, and with the dot of the root or without it
/// (RFC 1034 §3.1): servers look for both under one name.
fn is_host(pattern: &Pattern, authority: &str) -> bool {
    let authority = lower(authority);
    is_spelt(pattern, &authority)
        || unrooted(&authority).is_some_and(|authority| is_spelt(pattern, &authority))
}

/// An authority whose host ends with a dot, without that.
fn unrooted(authority: &str) -> Option<String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, format!(":{port}")),
        None => (authority, String::new()),
    };
    let host = host.strip_suffix('.')?;
    Some(format!("{host}{port}"))
}

/// Whether an authority in lower case is what a pattern means.
fn is_spelt(pattern: &Pattern, authority: &str) -> bool {
    let folded = |text: &Arc<str>| match lower(text) {
        Cow::Borrowed(_) => Arc::clone(text),
        Cow::Owned(text) => Arc::from(text),
    };
    match pattern {
        Pattern::Exact(host) => *folded(host) == *authority,
        Pattern::Prefix(begin) => authority.starts_with(&*folded(begin)),
        Pattern::Suffix(end) => authority.ends_with(&*folded(end)),
        Pattern::Present => !authority.is_empty(),
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

fn is_path(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Text(pattern) => pattern.matches(path),
        PathPattern::Template(template) => template::matches(template, path),
    }
}

/// Whether the value of a field, which is there, is what a pattern means: `*` also where it is empty.
fn is_field(pattern: &Pattern, value: &[u8]) -> bool {
    match pattern {
        Pattern::Exact(exact) => exact.as_bytes() == value,
        Pattern::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
        Pattern::Suffix(suffix) => value.ends_with(suffix.as_bytes()),
        Pattern::Present => true,
    }
}
