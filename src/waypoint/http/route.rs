//! Which rule takes a request, and what the rule answers by itself (`spec/waypoint-l7.md` §2.2–§2.6).

use std::borrow::Cow;

use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Uri, header};

use super::reply::Reply;
use crate::causes::chain;
use crate::hbone::Connector;
use crate::identity::SpiffeId;
use crate::model::route::{
    self, Asked, Backend, Chosen, CorsVerdict, Filter, PathNormalization, Redirect, Rule,
    Selection, Target, well_formed,
};
use crate::waypoint::Arrival;
use crate::waypoint::routing::Seen;

/// Brings a request's path into the form that routing, policy and the program go by (§1.5).
///
/// # Errors
/// What to answer where no such path could be asked for.
pub(super) fn normalise(parts: &mut Parts, form: PathNormalization) -> Result<(), Reply> {
    if !well_formed(parts.uri.path()) {
        return Err(Reply::malformed("a path with an octet that is none"));
    }
    let path = form.apply(parts.uri.path());
    if !form.is_plain(path.as_deref().unwrap_or_else(|| parts.uri.path())) {
        return Err(Reply::malformed("a dot segment with parameters"));
    }
    let Some(path) = path else {
        return Ok(());
    };
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    set_target(parts, &target).ok_or_else(|| Reply::malformed("an unreadable path"))
}

/// Puts another path and query into a request; none if that is none.
pub(super) fn set_target(parts: &mut Parts, target: &str) -> Option<()> {
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    parts.uri = Uri::from_parts(uri).ok()?;
    Some(())
}

/// The rule that takes a request; none where it goes to what was asked for.
///
/// # Errors
/// What to answer where no rule takes it, or nobody knows the rules.
pub(super) fn rule<'a, C: Connector>(
    arrival: &Arrival<C>,
    seen: &'a Seen,
    parts: &Parts,
    authority: &Authority,
) -> Result<Option<Chosen<'a>>, Reply> {
    let table = seen.requests(&arrival.bound);
    let Some(table) = table.map_err(|untold| Reply::untold(chain(&untold)))? else {
        return Ok(None);
    };
    match table.select(&asked(arrival, parts, authority)) {
        Selection::Default => Ok(None),
        Selection::NoMatch => Err(Reply::not_found("no rule of the service's routes takes it")),
        Selection::Rule(chosen) => Ok(Some(chosen)),
    }
}

/// What of a request counts.
pub(in crate::waypoint) fn asked<'a, C: Connector>(
    arrival: &'a Arrival<C>,
    parts: &'a Parts,
    authority: &'a Authority,
) -> Asked<'a> {
    Asked {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        authority: authority.as_str(),
        scheme: parts.uri.scheme_str().unwrap_or("http"),
        headers: &parts.headers,
        port: arrival.bound.asked().port(),
        source_namespace: match &arrival.client.identity {
            SpiffeId::Workload { namespace, .. } => namespace,
            SpiffeId::Node { .. } | SpiffeId::Control { .. } => "",
        },
    }
}

/// What the rule lets browsers read of the answer.
///
/// # Errors
/// The answer to a browser that only asks whether it may.
pub(super) fn cors(rule: &Rule<Target>, parts: &Parts) -> Result<Option<HeaderMap>, Reply> {
    let mut filters = rule.filters.iter();
    let Some(cors) = filters.find_map(|f| match f {
        Filter::Cors(cors) => Some(cors),
        _ => None,
    }) else {
        return Ok(None);
    };
    match cors.judge(&parts.method, &parts.headers) {
        CorsVerdict::NotCors | CorsVerdict::Forward => Ok(None),
        CorsVerdict::Expose(headers) => Ok(Some(headers)),
        CorsVerdict::Preflight(headers) => Err(Reply::ruled(200, "", headers)),
        CorsVerdict::RefusedPreflight => Err(Reply::ruled(200, "", HeaderMap::new())),
    }
}

/// Lets a request through that the rule does not answer by itself.
///
/// # Errors
/// The rule's own answer.
pub(super) fn pass(
    chosen: &Chosen<'_>,
    parts: &Parts,
    authority: &Authority,
    port: u16,
) -> Result<(), Reply> {
    for filter in &chosen.rule.filters {
        match filter {
            Filter::Redirect(redirect) => {
                return Err(redirected(redirect, chosen, parts, authority, port));
            }
            Filter::Direct(direct) => {
                let text = Cow::Owned(direct.body.to_string());
                return Err(Reply::ruled(direct.status, text, HeaderMap::new()));
            }
            Filter::Unresolved(why) => return Err(Reply::no_backend(why.to_string())),
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Rewrite(_)
            | Filter::Mirror(_)
            | Filter::Cors(_) => {}
        }
    }
    Ok(())
}

fn redirected(
    redirect: &Redirect,
    chosen: &Chosen<'_>,
    parts: &Parts,
    authority: &Authority,
    port: u16,
) -> Reply {
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location = redirect.location(authority.as_str(), port, target, chosen.matched);
    let mut headers = HeaderMap::new();
    match HeaderValue::from_str(&location) {
        Ok(location) => {
            headers.insert(header::LOCATION, location);
            Reply::ruled(redirect.status, "", headers)
        }
        Err(_) => Reply::no_backend(format!("no location: {location:?}")),
    }
}

/// The backend that gets a request, drawn by weight.
///
/// # Errors
/// What to answer where there is none.
pub(super) fn backend(rule: &Rule<Target>) -> Result<&Backend<Target>, Reply> {
    let drawn = route::backend(rule, rand::random());
    drawn.ok_or_else(|| Reply::no_backend("the rule has no backend with a weight".to_owned()))
}
