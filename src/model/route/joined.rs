//! Rules under the matches of another one: what a `virtual-service` delegates
//! (`spec/waypoint-l7.md` §3.1).

use std::mem::discriminant;
use std::sync::Arc;

use super::{Fault, Filter, Match, PathMatch, Rule, TextMatch, Timeouts};

/// Two matches that no single one says together: a pattern and anything else of the same part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern of {0} cannot be joined with another condition on it")]
pub struct Unsayable(pub &'static str);

/// Nothing, where nothing meets both.
type Joined<T> = Result<Option<T>, Unsayable>;

impl Match {
    /// What meets both this and another one; none where nothing does.
    ///
    /// # Errors
    /// [`Unsayable`] where no single match says so.
    pub fn and(&self, other: &Self) -> Joined<Self> {
        let Some((path, ignore_case)) = paths(self, other)? else {
            return Ok(None);
        };
        let parts = (
            perhaps(&self.method, &other.method, "`method`")?,
            perhaps(&self.scheme, &other.scheme, "`scheme`")?,
            perhaps(&self.authority, &other.authority, "`authority`")?,
            named(&self.headers, &other.headers, "a header")?,
            named(&self.query, &other.query, "a query parameter")?,
            same(self.port, other.port),
            same(
                self.source_namespace.as_ref(),
                other.source_namespace.as_ref(),
            ),
        );
        let (
            Some(method),
            Some(scheme),
            Some(authority),
            Some(headers),
            Some(query),
            Some(port),
            Some(source_namespace),
        ) = parts
        else {
            return Ok(None);
        };
        let without = self.without_headers.iter().chain(&other.without_headers);
        Ok(Some(Self {
            path,
            ignore_case,
            method,
            headers,
            without_headers: without.cloned().collect(),
            query,
            scheme,
            authority,
            port,
            source_namespace: source_namespace.cloned(),
        }))
    }

    fn is_of_any_path(&self) -> bool {
        match &self.path {
            PathMatch::Prefix(text) | PathMatch::TextPrefix(text) => **text == *"/",
            PathMatch::Exact(_) | PathMatch::Regex(_) => false,
        }
    }
}

fn paths(a: &Match, b: &Match) -> Joined<(PathMatch, bool)> {
    const PATH: Unsayable = Unsayable("`uri`");
    if b.is_of_any_path() {
        return Ok(Some((a.path.clone(), a.ignore_case)));
    }
    if a.is_of_any_path() {
        return Ok(Some((b.path.clone(), b.ignore_case)));
    }
    let ignore_case = a.ignore_case;
    if ignore_case != b.ignore_case {
        return Err(PATH);
    }
    let begins = |text: &str, with: &str| match ignore_case {
        true => text
            .to_ascii_lowercase()
            .starts_with(&with.to_ascii_lowercase()),
        false => text.starts_with(with),
    };
    let is = |a: &str, b: &str| a.len() == b.len() && begins(a, b);
    let joined = match (&a.path, &b.path) {
        (PathMatch::Exact(one), PathMatch::Exact(other)) => is(one, other).then_some(&a.path),
        (PathMatch::Exact(whole), PathMatch::TextPrefix(start)) => {
            begins(whole, start).then_some(&a.path)
        }
        (PathMatch::TextPrefix(start), PathMatch::Exact(whole)) => {
            begins(whole, start).then_some(&b.path)
        }
        (PathMatch::TextPrefix(one), PathMatch::TextPrefix(other)) => {
            match (begins(one, other), begins(other, one)) {
                (true, _) => Some(&a.path),
                (_, true) => Some(&b.path),
                (false, false) => None,
            }
        }
        (PathMatch::Regex(one), PathMatch::Regex(other)) if one == other => Some(&a.path),
        _ => return Err(PATH),
    };
    Ok(joined.map(|path| (path.clone(), ignore_case)))
}

fn perhaps(
    a: &Option<TextMatch>,
    b: &Option<TextMatch>,
    what: &'static str,
) -> Joined<Option<TextMatch>> {
    match (a, b) {
        (Some(a), Some(b)) => Ok(texts(a, b, what)?.map(Some)),
        (one, other) => Ok(Some(one.as_ref().or(other.as_ref()).cloned())),
    }
}

/// By name; a text of either, and of both where it has two.
fn named(
    a: &[(Arc<str>, TextMatch)],
    b: &[(Arc<str>, TextMatch)],
    what: &'static str,
) -> Joined<Vec<(Arc<str>, TextMatch)>> {
    let mut all = a.to_vec();
    for (name, text) in b {
        let Some((_, known)) = all.iter_mut().find(|(known, _)| known == name) else {
            all.push((Arc::clone(name), text.clone()));
            continue;
        };
        match texts(known, text, what)? {
            Some(both) => *known = both,
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

fn texts(a: &TextMatch, b: &TextMatch, what: &'static str) -> Joined<TextMatch> {
    let joined = match (a, b) {
        (TextMatch::Present, other) => Some(other),
        (one, TextMatch::Present) => Some(one),
        (TextMatch::Exact(text), other) => other.is_match(text).then_some(a),
        (one, TextMatch::Exact(text)) => one.is_match(text).then_some(b),
        (TextMatch::Prefix(one), TextMatch::Prefix(other)) => {
            match (one.starts_with(&**other), other.starts_with(&**one)) {
                (true, _) => Some(a),
                (_, true) => Some(b),
                (false, false) => None,
            }
        }
        (one, other) if one == other => Some(a),
        _ => return Err(Unsayable(what)),
    };
    Ok(joined.cloned())
}

/// What two say together that may say nothing; none where they differ.
fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
    match (&a, &b) {
        (Some(one), Some(other)) if one != other => None,
        _ => Some(a.or(b)),
    }
}

impl<B: Clone> Rule<B> {
    /// This rule in the place of one that delegates to it: for what meets a match of both, and with
    /// what it does not say itself from there. Matches that cannot be joined take nothing.
    #[must_use]
    pub fn under(&self, outer: &Self) -> Self {
        let pairs = outer.matches.iter();
        let pairs = pairs.flat_map(|a| self.matches.iter().map(move |b| (a, b)));
        let matches = pairs.filter_map(|(a, b)| a.and(b).ok().flatten());
        let own = self.clone();
        Self {
            name: match (outer.name.is_empty(), self.name.is_empty()) {
                (true, _) => own.name,
                (false, true) => Arc::clone(&outer.name),
                (false, false) => Arc::from(format!("{}-{}", outer.name, self.name)),
            },
            matches: matches.collect(),
            filters: filters(&self.filters, &outer.filters),
            timeouts: match self.timeouts == Timeouts::default() {
                true => outer.timeouts,
                false => own.timeouts,
            },
            retry: own.retry.or_else(|| outer.retry.clone()),
            fault: match self.fault == Fault::default() {
                true => outer.fault.clone(),
                false => own.fault,
            },
            ..own
        }
    }
}

/// Those of a rule, and those kinds that it has none of from the one around it.
fn filters<B: Clone>(own: &[Filter<B>], outer: &[Filter<B>]) -> Vec<Filter<B>> {
    let kind = |filter: &Filter<B>| match filter {
        // Together they are `headers`.
        Filter::ResponseHeaders(change) => {
            discriminant(&Filter::<B>::RequestHeaders(change.clone()))
        }
        other => discriminant(other),
    };
    let answers = own
        .iter()
        .any(|f| matches!(f, Filter::Redirect(_) | Filter::Direct(_)));
    let inherited = outer.iter().filter(|filter| {
        let has = own.iter().any(|f| kind(f) == kind(filter));
        let in_vain = answers && matches!(filter, Filter::Rewrite(_));
        !has && !in_vain
    });
    inherited.chain(own).cloned().collect()
}

#[cfg(test)]
mod tests;
