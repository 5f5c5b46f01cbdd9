//! What a provider has decided, and what of it is carried out. Nothing that it says reaches beyond what
//! an answer may change: neither how long a message is, nor whom it is for, nor the connection it is on.

use std::borrow::Cow;

use bytes::Bytes;
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Found, Undecided};
use crate::model::policy::Pattern;
use crate::model::route::edited;
use crate::waypoint::http::{HEAD, is_between_neighbours};

/// What a provider says of a request.
#[derive(Debug)]
pub(super) enum Decision {
    /// It may go on, changed so.
    Allow(Changes),
    /// It is answered so.
    Deny(Denied),
}

/// What the client is told instead.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is changed of a request that goes on, and of its answer.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Fields that go.
    pub(super) remove: Vec<HeaderName>,
    /// Fields that come.
    pub(super) fields: Vec<Field>,
    /// Those of the answer.
    pub(super) answer: Vec<Field>,
    /// Parameters of the query that go.
    pub(super) unquery: Vec<String>,
    /// Parameters of the query that come.
    pub(super) query: Vec<(String, String)>,
}

/// A field, and what becomes of one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
    pub(super) edit: Edit,
}

/// What becomes of a field by the name of one that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// It goes.
    Set,
    /// It stays beside it.
    Append,
    /// It stays, and the other does not come.
    IfAbsent,
    /// It goes; without it the other does not come.
    IfPresent,
}

/// What providers changed of a request that its routes do not see.
#[derive(Debug, Default)]
pub(in crate::waypoint) struct Unseen {
    /// Fields as they were.
    fields: Vec<(HeaderName, Vec<HeaderValue>)>,
    /// The target as it was.
    uri: Option<Uri>,
}

/// Whether an answer may set it.
pub(super) fn is_settable(name: &HeaderName) -> bool {
    !is_between_neighbours(name) && *name != header::HOST && *name != header::CONTENT_LENGTH
}

/// Whether one of the patterns means it.
pub(super) fn named(patterns: &[Pattern], name: &HeaderName) -> bool {
    patterns.iter().any(|p| p.matches(name.as_str()))
}

/// Takes out what only a provider may say.
pub(super) fn strip(headers: &mut HeaderMap, patterns: &[Pattern]) {
    let names = headers.keys().filter(|name| is_settable(name));
    let named: Vec<_> = names.filter(|n| named(patterns, n)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

impl Changes {
    /// Carries them out. Where it cannot be all of them, nothing is changed.
    pub(super) fn apply(
        self,
        parts: &mut Parts,
        found: &mut Found,
        cleared: bool,
    ) -> Result<(), Undecided> {
        let mut headers = parts.headers.clone();
        for name in &self.remove {
            headers.remove(name);
        }
        for field in &self.fields {
            put(&mut headers, field);
        }
        if size(&headers) > HEAD {
            return Err(Undecided::Malformed(
                "the request would be too long with it",
            ));
        }
        let uri = self.target(&parts.uri)?;
        if !cleared {
            let changed = self.fields.iter().map(|field| &field.name);
            for name in self.remove.iter().chain(changed) {
                found.unseen.note(name, &parts.headers);
            }
            if uri.is_some() {
                found.unseen.uri.get_or_insert_with(|| parts.uri.clone());
            }
        }
        parts.headers = headers;
        if let Some(uri) = uri {
            parts.uri = uri;
        }
        for field in self.answer {
            tell(found, field);
        }
        Ok(())
    }

    /// The target with another query, where that is changed.
    fn target(&self, uri: &Uri) -> Result<Option<Uri>, Undecided> {
        if self.query.is_empty() && self.unquery.is_empty() {
            return Ok(None);
        }
        let illegal = || Undecided::Malformed("no query could be so");
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let target = edited(target, &self.unquery, &self.query);
        let mut given = uri.clone().into_parts();
        given.path_and_query = Some(target.parse().map_err(|_unreadable| illegal())?);
        let made = Uri::from_parts(given).map_err(|_unreadable| illegal())?;
        Ok(Some(made))
    }
}

fn put(headers: &mut HeaderMap, field: &Field) {
    let Field { name, value, edit } = field;
    let there = headers.contains_key(name);
    match edit {
        Edit::Append => drop(headers.append(name, value.clone())),
        Edit::IfAbsent if there => {}
        Edit::IfPresent if !there => {}
        Edit::Set | Edit::IfAbsent | Edit::IfPresent => {
            drop(headers.insert(name, value.clone()));
        }
    }
}

/// Has the client told. Cookies stand beside the program's own: each is another.
fn tell(found: &mut Found, field: Field) {
    let Field { name, value, edit } = field;
    let set = found.answer.contains_key(&name);
    match edit {
        _ if name == header::SET_COOKIE => drop(found.answer_added.append(name, value)),
        Edit::Append if !set => drop(found.answer_added.append(name, value)),
        Edit::Append => drop(found.answer.append(name, value)),
        Edit::IfAbsent if set => {}
        Edit::Set | Edit::IfAbsent | Edit::IfPresent => drop(found.answer.insert(name, value)),
    }
}

/// Octets of all fields.
pub(super) fn size(headers: &HeaderMap) -> usize {
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    headers.iter().map(field).sum()
}

impl Unseen {
    /// Keeps a field as it is, unless it was kept before.
    fn note(&mut self, name: &HeaderName, headers: &HeaderMap) {
        if self.fields.iter().all(|(known, _)| known != name) {
            let was = headers.get_all(name).iter().cloned().collect();
            self.fields.push((name.clone(), was));
        }
    }

    /// A request as its routes see it.
    pub(in crate::waypoint) fn restored<'a>(&self, parts: &'a Parts) -> Cow<'a, Parts> {
        if self.fields.is_empty() && self.uri.is_none() {
            return Cow::Borrowed(parts);
        }
        let mut parts = parts.clone();
        for (name, was) in &self.fields {
            parts.headers.remove(name);
            for value in was {
                parts.headers.append(name, value.clone());
            }
        }
        if let Some(uri) = &self.uri {
            parts.uri = uri.clone();
        }
        Cow::Owned(parts)
    }
}

#[cfg(test)]
mod tests;
