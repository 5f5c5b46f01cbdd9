//! What a request has to meet beside its path (`spec/waypoint-l7.md` §2.2, §3.1).

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{HOST, HeaderName};

use super::headers::joined;
use super::{Asked, Match, Regex, TextMatch, query};

/// The conditions of a match, all of which must hold, made ready to be asked often.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    method: Option<TextMatch>,
    headers: Vec<(Field, TextMatch)>,
    without_headers: Vec<(Field, TextMatch)>,
    query: Vec<(Arc<str>, TextMatch)>,
    scheme: Option<TextMatch>,
    authority: Option<TextMatch>,
    port: Option<u16>,
    source_namespace: Option<Arc<str>>,
}

/// A header field that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Field {
    /// The authority, whichever way the request carries it.
    Host,
    /// Fields of this name.
    Named(HeaderName),
    /// A name that no field has.
    Absent,
}

impl Conditions {
    /// Those of a match. Of a name that is twice among headers or parameters the first counts.
    pub(super) fn of(matched: &Match) -> Self {
        let mut headers: Vec<(Field, TextMatch)> = Vec::new();
        for (name, want) in &matched.headers {
            let field = Field::of(name);
            if field == Field::Absent || headers.iter().all(|(known, _)| *known != field) {
                headers.push((field, want.clone()));
            }
        }
        let mut query: Vec<(Arc<str>, TextMatch)> = Vec::new();
        for (name, want) in &matched.query {
            if query.iter().all(|(known, _)| known != name) {
                query.push((Arc::clone(name), want.clone()));
            }
        }
        let without = matched.without_headers.iter();
        Self {
            method: matched.method.clone(),
            headers,
            without_headers: without.map(|(n, w)| (Field::of(n), w.clone())).collect(),
            query,
            scheme: matched.scheme.clone(),
            authority: matched.authority.as_ref().map(caseless),
            port: matched.port,
            source_namespace: matched.source_namespace.clone(),
        }
    }

    /// How much they ask for, most first: a method, headers, parameters (§2.2).
    pub(super) fn weight(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    /// Whether a request meets them.
    pub(super) fn hold(&self, asked: &Asked<'_>) -> bool {
        let met =
            |want: &Option<TextMatch>, text: &str| want.as_ref().is_none_or(|w| w.is_match(text));
        met(&self.method, asked.method.as_str())
            && met(&self.scheme, asked.scheme)
            && self.port.is_none_or(|port| port == asked.port)
            && self
                .authority
                .as_ref()
                .is_none_or(|want| is_authority(want, asked.authority))
            && self
                .source_namespace
                .as_deref()
                .is_none_or(|want| want == asked.source_namespace)
            && self
                .headers
                .iter()
                .all(|(field, want)| field.meets(asked, want))
            && !self
                .without_headers
                .iter()
                .any(|(field, want)| field.meets(asked, want))
            && self.query.iter().all(|(name, want)| {
                let value = asked.query.and_then(|query| query::first(query, name));
                value.is_some_and(|value| want.is_match(&value))
            })
    }
}

impl Field {
    fn of(name: &str) -> Self {
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) if name == HOST => Self::Host,
            Ok(name) => Self::Named(name),
            Err(_) => Self::Absent,
        }
    }

    fn meets(&self, asked: &Asked<'_>, want: &TextMatch) -> bool {
        let value = match self {
            Self::Host => Some(Cow::Borrowed(asked.authority)),
            Self::Named(name) => joined(asked.headers, name),
            Self::Absent => None,
        };
        value.is_some_and(|value| want.is_match(&value))
    }
}

/// A pattern made such that case is of no account.
fn caseless(want: &TextMatch) -> TextMatch {
    let TextMatch::Regex(pattern) = want else {
        return want.clone();
    };
    // Where case takes it beyond the largest size, it stays as it is written.
    let caseless = Regex::new(&format!("(?i:{})", pattern.source()));
    TextMatch::Regex(caseless.unwrap_or_else(|_| pattern.clone()))
}

fn is_authority(want: &TextMatch, authority: &str) -> bool {
    match want {
        TextMatch::Exact(want) => want.eq_ignore_ascii_case(authority),
        TextMatch::Prefix(want) => {
            let start = authority.as_bytes().get(..want.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(want.as_bytes()))
        }
        TextMatch::Regex(_) | TextMatch::Present => want.is_match(authority),
    }
}
