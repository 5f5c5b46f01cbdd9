//! What a route does to a request or an answer.

use std::sync::Arc;

use super::super::{Fault, Reason, enumeration, port};
use super::parts::{
    PRESENT, duration, each, encode_fraction, fraction, given, lasting, maybe, number, part, regex,
    string, strings, text, texts,
};
use super::route::{encode_target, target};
use crate::model::route::{
    Cors, DirectResponse, Filter, HeaderChange, Mirror, OriginPattern, PathChange, Redirect,
    Rewrite, Target, UnmatchedPreflights,
};
use crate::wire::proto::waypoint as proto;
use proto::cors::UnmatchedPreflights as Unmatched;
use proto::filter::Does;
use proto::origin_pattern::{Is, Wildcard};
use proto::path_change::To;

pub(super) fn encode(filter: &Filter<Target>) -> proto::Filter {
    proto::Filter {
        does: Some(match filter {
            Filter::RequestHeaders(change) => Does::RequestHeaders(encode_headers(change)),
            Filter::ResponseHeaders(change) => Does::ResponseHeaders(encode_headers(change)),
            Filter::Redirect(redirect) => Does::Redirect(proto::Redirect {
                scheme: string(redirect.scheme.as_ref()),
                host: string(redirect.host.as_ref()),
                port: redirect.port.map(u32::from),
                path: redirect.path.as_ref().map(encode_path),
                status: redirect.status.into(),
            }),
            Filter::Rewrite(rewrite) => Does::Rewrite(proto::Rewrite {
                host: string(rewrite.host.as_ref()),
                path: rewrite.path.as_ref().map(encode_path),
            }),
            Filter::Mirror(mirror) => Does::Mirror(proto::Mirror {
                to: Some(encode_target(&mirror.to)),
                share: Some(encode_fraction(mirror.share)),
            }),
            Filter::Cors(cors) => Does::Cors(encode_cors(cors)),
            Filter::Direct(direct) => Does::Direct(proto::DirectResponse {
                status: direct.status.into(),
                body: direct.body.to_string(),
            }),
            Filter::Unresolved(why) => Does::Unresolved(why.to_string()),
        }),
    }
}

pub(super) fn decode(filter: proto::Filter) -> Result<Filter<Target>, Fault> {
    Ok(match given("does", filter.does)? {
        Does::RequestHeaders(change) => Filter::RequestHeaders(headers(change)),
        Does::ResponseHeaders(change) => Filter::ResponseHeaders(headers(change)),
        Does::Redirect(redirect) => Filter::Redirect(Redirect {
            scheme: text(redirect.scheme),
            host: text(redirect.host),
            port: redirect
                .port
                .map(|p| port("redirect.port", p))
                .transpose()?,
            path: maybe("redirect.path", redirect.path, path)?,
            status: number("redirect.status", redirect.status)?,
        }),
        Does::Rewrite(rewrite) => Filter::Rewrite(Rewrite {
            host: text(rewrite.host),
            path: maybe("rewrite.path", rewrite.path, path)?,
        }),
        Does::Mirror(mirror) => Filter::Mirror(Mirror {
            to: part("mirror.to", mirror.to, target)?,
            share: part("mirror.share", mirror.share, fraction)?,
        }),
        Does::Cors(cors) => {
            let cors = decode_cors(cors);
            Filter::Cors(cors.map_err(|fault| fault.within("cors"))?)
        }
        Does::Direct(direct) => Filter::Direct(DirectResponse {
            status: number("direct.status", direct.status)?,
            body: Arc::from(direct.body),
        }),
        Does::Unresolved(why) => Filter::Unresolved(Arc::from(why)),
    })
}

fn encode_headers(change: &HeaderChange) -> proto::HeaderChange {
    let fields = |fields: &[(Arc<str>, Arc<str>)]| {
        let field = |(name, value): &(Arc<str>, Arc<str>)| proto::Header {
            name: name.to_string(),
            value: value.to_string(),
        };
        fields.iter().map(field).collect()
    };
    proto::HeaderChange {
        remove: strings(&change.remove),
        set: fields(&change.set),
        add: fields(&change.add),
    }
}

fn headers(change: proto::HeaderChange) -> HeaderChange {
    let fields = |fields: Vec<proto::Header>| {
        let fields = fields.into_iter();
        let field = |field: proto::Header| (Arc::from(field.name), Arc::from(field.value));
        fields.map(field).collect()
    };
    HeaderChange {
        remove: texts(change.remove),
        set: fields(change.set),
        add: fields(change.add),
    }
}

fn encode_path(change: &PathChange) -> proto::PathChange {
    proto::PathChange {
        to: Some(match change {
            PathChange::Full(path) => To::Full(path.to_string()),
            PathChange::Prefix(path) => To::Prefix(path.to_string()),
            PathChange::Text(path) => To::Text(path.to_string()),
            PathChange::Regex(pattern, substitution) => To::Regex(proto::path_change::Regex {
                pattern: pattern.source().to_owned(),
                substitution: substitution.to_string(),
            }),
        }),
    }
}

fn path(change: proto::PathChange) -> Result<PathChange, Fault> {
    Ok(match given("to", change.to)? {
        To::Full(path) => PathChange::Full(Arc::from(path)),
        To::Prefix(path) => PathChange::Prefix(Arc::from(path)),
        To::Text(path) => PathChange::Text(Arc::from(path)),
        To::Regex(change) => {
            let pattern = regex("regex", &change.pattern)?;
            PathChange::Regex(pattern, Arc::from(change.substitution))
        }
    })
}

fn encode_cors(cors: &Cors) -> proto::Cors {
    let origin = |origin: &OriginPattern| proto::OriginPattern {
        is: Some(match origin {
            OriginPattern::Any => Is::Any(PRESENT),
            OriginPattern::Exact(origin) => Is::Exact(origin.to_string()),
            OriginPattern::Wildcard(before, after) => Is::Wildcard(Wildcard {
                before: before.to_string(),
                after: after.to_string(),
            }),
            OriginPattern::Prefix(origin) => Is::Prefix(origin.to_string()),
            OriginPattern::Regex(origin) => Is::Regex(origin.source().to_owned()),
        }),
    };
    proto::Cors {
        allow_origins: cors.allow_origins.iter().map(origin).collect(),
        allow_methods: strings(&cors.allow_methods),
        allow_headers: strings(&cors.allow_headers),
        expose_headers: strings(&cors.expose_headers),
        allow_credentials: cors.allow_credentials,
        max_age: cors.max_age.map(lasting),
        unmatched_preflights: match cors.unmatched_preflights {
            UnmatchedPreflights::Refuse => Unmatched::Refuse,
            UnmatchedPreflights::Forward => Unmatched::Forward,
            UnmatchedPreflights::Ignore => Unmatched::Ignore,
        }
        .into(),
    }
}

fn decode_cors(cors: proto::Cors) -> Result<Cors, Fault> {
    let unmatched = enumeration("unmatched_preflights", cors.unmatched_preflights)?;
    Ok(Cors {
        allow_origins: each("allow_origins", cors.allow_origins, origin)?,
        allow_methods: texts(cors.allow_methods),
        allow_headers: texts(cors.allow_headers),
        expose_headers: texts(cors.expose_headers),
        allow_credentials: cors.allow_credentials,
        max_age: duration("max_age", cors.max_age)?,
        unmatched_preflights: match unmatched {
            Unmatched::Unspecified => {
                return Err(Fault::new("unmatched_preflights", Reason::Missing));
            }
            Unmatched::Refuse => UnmatchedPreflights::Refuse,
            Unmatched::Forward => UnmatchedPreflights::Forward,
            Unmatched::Ignore => UnmatchedPreflights::Ignore,
        },
    })
}

fn origin(origin: proto::OriginPattern) -> Result<OriginPattern, Fault> {
    Ok(match given("is", origin.is)? {
        Is::Any(proto::Present {}) => OriginPattern::Any,
        Is::Exact(origin) => OriginPattern::Exact(Arc::from(origin)),
        Is::Wildcard(around) => {
            OriginPattern::Wildcard(Arc::from(around.before), Arc::from(around.after))
        }
        Is::Prefix(origin) => OriginPattern::Prefix(Arc::from(origin)),
        Is::Regex(origin) => OriginPattern::Regex(regex("regex", &origin)?),
    })
}
