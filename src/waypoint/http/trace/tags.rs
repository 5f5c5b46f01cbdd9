//! The tags of a request's spans.

use std::sync::Arc;

use http::HeaderMap;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};

use super::{About, Ending};
use crate::model::authorization::Mark;
use crate::model::log_format::TextFormat;
use crate::model::telemetry::Facts;
use crate::telemetry::trace::{Value, cut};
use crate::waypoint::tracer::{Custom, Tag, Tracer};

/// What spans of both kinds say.
pub(super) fn common(tags: &mut Vec<Tag>, url: &Arc<str>, ending: Ending<'_>, about: &About<'_>) {
    tags.extend([
        ("http.method".into(), about.method.to_owned().into()),
        ("http.url".into(), Arc::clone(url).into()),
        ("http.protocol".into(), about.protocol.into()),
        ("http.status_code".into(), ending.code.to_string().into()),
        ("response_flags".into(), ending.flags.to_owned().into()),
    ]);
    if let Some(code) = ending.grpc {
        tags.push(("grpc.status_code".into(), code.to_owned().into()));
    }
    if let Some(cluster) = &about.cluster {
        tags.push(("upstream_cluster".into(), cluster.clone().into()));
    }
    if ending.error().is_some() {
        tags.push(("error".into(), "true".into()));
    }
}

/// By which scheme it was asked, as whoever is before the client says.
fn scheme(headers: &HeaderMap) -> &'static str {
    let scheme = headers.get("x-forwarded-proto");
    match scheme.map(|field| field.as_bytes()) {
        Some(b"https") => "https",
        _ => "http",
    }
}

/// What was asked for; of its path no more than so many octets.
pub(super) fn url(parts: &Parts, authority: &Authority, longest: usize) -> String {
    let scheme = scheme(&parts.headers);
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    format!("{scheme}://{authority}{}", cut(path, longest))
}

pub(super) fn custom(tracer: &Tracer, headers: &HeaderMap) -> Vec<Tag> {
    let tags = tracer.custom.iter().filter_map(|(key, made_of)| {
        let value = made_of.of(headers)?;
        let value: Value = match value.len() > tracer.longest {
            true => cut(&value, tracer.longest).to_owned().into(),
            false => value.into(),
        };
        Some((key.to_string().into(), value))
    });
    tags.collect()
}

/// The tags that are made of what an access log would say.
pub(super) fn formats(tracer: &Tracer) -> impl Iterator<Item = (&Arc<str>, &TextFormat)> {
    tracer
        .custom
        .iter()
        .filter_map(|(key, made_of)| match made_of {
            Custom::Format(format) => Some((key, format)),
            Custom::Text(_) | Custom::Header { .. } => None,
        })
}

pub(super) fn said(tracer: &Tracer, facts: &Facts<'_>) -> Vec<Tag> {
    let tags = formats(tracer).filter_map(|(key, format)| {
        let text = format.render(facts)?;
        let text = cut(&text, tracer.longest).to_owned();
        Some((key.to_string().into(), text.into()))
    });
    tags.collect()
}

/// What a policy that is only tried says (`spec/waypoint-l7.md` §4.4).
pub(super) fn marked(mark: &Mark) -> Vec<Tag> {
    let (kind, cause, says) = match mark {
        Mark::Audit(_) => return Vec::new(),
        Mark::WouldDeny(cause) => ("deny_policy", Some(cause), "denied"),
        Mark::WouldAllow(cause) => ("allow_policy", Some(cause), "allowed"),
        Mark::WouldNotAllow(_) => ("allow_policy", None, "denied"),
    };
    let key = |what: &str| format!("istio.authorization.dry_run.{kind}.{what}").into();
    let name = cause.map(|cause| (key("name"), cause.detail().into()));
    let result = Some((key("result"), says.into()));
    name.into_iter().chain(result).collect()
}
