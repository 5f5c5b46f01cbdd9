//! What of a request a rule looks at.

use std::sync::Arc;

use super::super::{Fault, Reason, port, required};
use super::parts::{PRESENT, each, given, maybe, part, regex, string, text};
use crate::model::route::{Match, PathMatch, TextMatch};
use crate::wire::proto::waypoint as proto;
use proto::path_match::Is as Path;
use proto::text_match::Is as Text;

pub(super) fn encode(wanted: &Match) -> proto::Match {
    let named = |all: &[(Arc<str>, TextMatch)]| {
        let named = |(name, value): &(Arc<str>, TextMatch)| proto::NamedMatch {
            name: name.to_string(),
            value: Some(encode_text(value)),
        };
        all.iter().map(named).collect()
    };
    proto::Match {
        path: Some(proto::PathMatch {
            is: Some(match &wanted.path {
                PathMatch::Exact(path) => Path::Exact(path.to_string()),
                PathMatch::Prefix(path) => Path::Prefix(path.to_string()),
                PathMatch::TextPrefix(path) => Path::TextPrefix(path.to_string()),
                PathMatch::Regex(path) => Path::Regex(path.source().to_owned()),
            }),
        }),
        ignore_case: wanted.ignore_case,
        method: wanted.method.as_ref().map(encode_text),
        headers: named(&wanted.headers),
        without_headers: named(&wanted.without_headers),
        query: named(&wanted.query),
        scheme: wanted.scheme.as_ref().map(encode_text),
        authority: wanted.authority.as_ref().map(encode_text),
        port: wanted.port.map(u32::from),
        source_namespace: string(wanted.source_namespace.as_ref()),
    }
}

pub(super) fn decode(wanted: proto::Match) -> Result<Match, Fault> {
    Ok(Match {
        path: part("path", wanted.path, path)?,
        ignore_case: wanted.ignore_case,
        method: maybe("method", wanted.method, decode_text)?,
        headers: each("headers", wanted.headers, named)?,
        without_headers: each("without_headers", wanted.without_headers, named)?,
        query: each("query", wanted.query, named)?,
        scheme: maybe("scheme", wanted.scheme, decode_text)?,
        authority: maybe("authority", wanted.authority, decode_text)?,
        port: wanted.port.map(|p| port("port", p)).transpose()?,
        source_namespace: text(wanted.source_namespace),
    })
}

fn path(wanted: proto::PathMatch) -> Result<PathMatch, Fault> {
    Ok(match given("is", wanted.is)? {
        Path::Exact(path) => PathMatch::Exact(Arc::from(path)),
        Path::Prefix(path) => PathMatch::Prefix(Arc::from(path)),
        Path::TextPrefix(path) => PathMatch::TextPrefix(Arc::from(path)),
        Path::Regex(path) => PathMatch::Regex(regex("regex", &path)?),
    })
}

fn named(wanted: proto::NamedMatch) -> Result<(Arc<str>, TextMatch), Fault> {
    let name = required("name", wanted.name)?;
    Ok((name, part("value", wanted.value, decode_text)?))
}

fn encode_text(wanted: &TextMatch) -> proto::TextMatch {
    proto::TextMatch {
        is: Some(match wanted {
            TextMatch::Exact(text) => Text::Exact(text.to_string()),
            TextMatch::Prefix(text) => Text::Prefix(text.to_string()),
            TextMatch::Regex(text) => Text::Regex(text.source().to_owned()),
            TextMatch::Present => Text::Present(PRESENT),
        }),
    }
}

fn decode_text(wanted: proto::TextMatch) -> Result<TextMatch, Fault> {
    let is = wanted.is.ok_or_else(|| Fault::new("is", Reason::Missing))?;
    Ok(match is {
        Text::Exact(text) => TextMatch::Exact(Arc::from(text)),
        Text::Prefix(text) => TextMatch::Prefix(Arc::from(text)),
        Text::Regex(text) => TextMatch::Regex(regex("regex", &text)?),
        Text::Present(proto::Present {}) => TextMatch::Present,
    })
}
