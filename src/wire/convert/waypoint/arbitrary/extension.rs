//! Arbitrary providers that policies have asked.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::{lasting, list, origin, target, text, word};
use crate::model::declaration::{CheckOver, CheckedBody, ExtAuthz, HttpCheck};
use crate::model::policy::Pattern;
use crate::model::waypoint::Extension;

pub(super) fn extension() -> impl Strategy<Value = Extension> {
    (word(), origin(), target(), check()).prop_map(|(name, origin, to, check)| Extension {
        name,
        origin,
        to,
        check,
    })
}

fn check() -> impl Strategy<Value = ExtAuthz> {
    let body = (any::<u32>(), any::<bool>(), any::<bool>()).prop_map(|(max_bytes, part, bytes)| {
        CheckedBody {
            max_bytes,
            allow_partial: part,
            as_bytes: bytes,
        }
    });
    let flags = (any::<bool>(), any::<bool>());
    let rest = (400..=599_u16, flags, option::of(body));
    let over = prop_oneof![
        Just(CheckOver::Grpc),
        http_check().prop_map(CheckOver::Http)
    ];
    (lasting(), rest, over).prop_map(|(timeout, (status, flags, body), over)| ExtAuthz {
        timeout,
        fail_open: flags.0,
        status_on_error: StatusCode::from_u16(status).unwrap(),
        clear_route_cache: flags.1,
        body,
        over,
    })
}

fn http_check() -> impl Strategy<Value = HttpCheck> {
    let header = (select(vec!["x-a", "x-b"]), "[ -~]{0,4}").prop_map(|(name, value)| {
        let value = HeaderValue::from_str(&value).unwrap();
        (HeaderName::from_static(name), value)
    });
    let allowed = (names(), names());
    (text(), names(), list(header), allowed, option::of(names())).prop_map(
        |(path_prefix, request_headers, additional_headers, allowed, denied)| HttpCheck {
            path_prefix: Arc::clone(&path_prefix),
            request_headers,
            additional_headers,
            upstream_on_allow: allowed.0,
            downstream_on_allow: allowed.1,
            downstream_on_deny: denied,
        },
    )
}

fn names() -> impl Strategy<Value = Vec<Pattern>> {
    let name = select(vec!["x-a", "x-*", "*-id"]);
    list(name.prop_map(|text| Pattern::parse(text).unwrap()))
}
