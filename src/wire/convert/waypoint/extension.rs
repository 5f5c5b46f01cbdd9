//! Providers that policies have asked.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use super::super::{Fault, Reason};
use super::FORMAT;
use super::parts::{PRESENT, each, for_so_long, format, given, lasting, maybe, number, part};
use super::route::{encode_target, target};
use crate::model::declaration::{CheckOver, CheckedBody, ExtAuthz, HttpCheck, Origin};
use crate::model::policy::Pattern;
use crate::model::waypoint::Extension;
use crate::wire::proto::waypoint as proto;
use proto::ext_authz::{Body, Http, Names, Over};
use proto::extension::Kind;

pub(super) fn encode(extension: &Extension) -> proto::Extension {
    let check = &extension.check;
    let authorizer = proto::ExtAuthz {
        to: Some(encode_target(&extension.to)),
        timeout: Some(lasting(check.timeout)),
        fail_open: check.fail_open,
        status_on_error: check.status_on_error.as_u16().into(),
        clear_route_cache: check.clear_route_cache,
        body: check.body.map(|body| Body {
            max_bytes: body.max_bytes,
            allow_partial: body.allow_partial,
            as_bytes: body.as_bytes,
        }),
        over: Some(match &check.over {
            CheckOver::Http(http) => Over::Http(encode_http(http)),
            CheckOver::Grpc => Over::Grpc(PRESENT),
        }),
    };
    proto::Extension {
        format: FORMAT,
        kind: Some(Kind::ExtAuthz(authorizer)),
    }
}

pub(super) fn decode(
    name: Arc<str>,
    origin: Origin,
    extension: proto::Extension,
) -> Result<Extension, Fault> {
    format(extension.format)?;
    let Kind::ExtAuthz(asked) = given("kind", extension.kind)?;
    let check = ExtAuthz {
        timeout: for_so_long("timeout", asked.timeout)?,
        fail_open: asked.fail_open,
        status_on_error: status("status_on_error", asked.status_on_error)?,
        clear_route_cache: asked.clear_route_cache,
        body: asked.body.map(|body| CheckedBody {
            max_bytes: body.max_bytes,
            allow_partial: body.allow_partial,
            as_bytes: body.as_bytes,
        }),
        over: match given("over", asked.over)? {
            Over::Http(http) => CheckOver::Http(decode_http(http)?),
            Over::Grpc(proto::Present {}) => CheckOver::Grpc,
        },
    };
    Ok(Extension {
        name,
        origin,
        to: part("to", asked.to, target)?,
        check,
    })
}

fn encode_http(http: &HttpCheck) -> Http {
    let header = |(name, value): &(HeaderName, HeaderValue)| proto::Header {
        name: name.to_string(),
        value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let denied = http.downstream_on_deny.as_deref();
    Http {
        path_prefix: http.path_prefix.to_string(),
        request_headers: texts(&http.request_headers),
        additional_headers: http.additional_headers.iter().map(header).collect(),
        upstream_on_allow: texts(&http.upstream_on_allow),
        downstream_on_allow: texts(&http.downstream_on_allow),
        downstream_on_deny: denied.map(|names| Names {
            names: texts(names),
        }),
    }
}

fn decode_http(http: Http) -> Result<HttpCheck, Fault> {
    let header = |given: proto::Header| {
        let name = HeaderName::from_bytes(given.name.as_bytes());
        let value = HeaderValue::from_bytes(given.value.as_bytes());
        let illegal = || Fault::new("name", Reason::Value(given.name.clone()));
        name.ok().zip(value.ok()).ok_or_else(illegal)
    };
    let denied = maybe("downstream_on_deny", http.downstream_on_deny, |given| {
        each("names", given.names, pattern)
    });
    Ok(HttpCheck {
        path_prefix: Arc::from(http.path_prefix),
        request_headers: each("request_headers", http.request_headers, pattern)?,
        additional_headers: each("additional_headers", http.additional_headers, header)?,
        upstream_on_allow: each("upstream_on_allow", http.upstream_on_allow, pattern)?,
        downstream_on_allow: each("downstream_on_allow", http.downstream_on_allow, pattern)?,
        downstream_on_deny: denied?,
    })
}

fn texts(patterns: &[Pattern]) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

fn pattern(text: String) -> Result<Pattern, Fault> {
    Pattern::parse(&text).map_err(|_illegal| Fault::new("name", Reason::Value(text)))
}

/// A status that is no leave, whatever anybody says.
fn status(field: &str, value: u32) -> Result<StatusCode, Fault> {
    let status = StatusCode::from_u16(number(field, value)?).ok();
    let refuses = |status: &StatusCode| status.is_client_error() || status.is_server_error();
    let illegal = || Fault::new(field, Reason::Unsupported(value.to_string()));
    status.filter(refuses).ok_or_else(illegal)
}
