//! Arbitrary request authentications.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::policy::key;
use super::{lasting, list, origin, text, word};
use crate::model::authentication::{Authentication, Fetching};
use crate::model::declaration::{ClaimHeader, JwtRule, KeySource, Location, Remote, RemoteAt};

pub(super) fn authentication() -> impl Strategy<Value = Authentication> {
    (key(), origin(), list(rule())).prop_map(|(key, origin, rules)| Authentication {
        key,
        origin,
        rules,
    })
}

pub(super) fn fetching() -> impl Strategy<Value = Fetching> {
    let ranges = select(vec!["127.0.0.0/8", "::1/128", "169.254.1.0/24"]);
    let range = ranges.prop_map(|text| text.parse::<IpNet>().unwrap());
    (lasting(), list(range)).prop_map(|(stale_limit, local_ranges)| Fetching {
        stale_limit,
        local_ranges,
    })
}

fn rule() -> impl Strategy<Value = JwtRule> {
    let whose = (any::<u32>(), option::of(text()), list(text()), keys());
    let told = (
        any::<bool>(),
        option::of(field()),
        list(claim()),
        list(text()),
    );
    (whose, list(location()), told).prop_map(|(whose, locations, told)| JwtRule {
        line: whose.0,
        issuer: whose.1,
        audiences: whose.2,
        keys: whose.3,
        locations,
        forward_original_token: told.0,
        payload_header: told.1,
        claim_headers: told.2,
        space_delimited: told.3,
    })
}

fn keys() -> impl Strategy<Value = KeySource> {
    let inline = select(vec![r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#]);
    let at = prop_oneof![
        word().prop_map(RemoteAt::Uri),
        word().prop_map(RemoteAt::Discovery),
    ];
    prop_oneof![
        inline.prop_map(|keys| KeySource::Inline(Arc::from(keys))),
        (at, lasting())
            .prop_map(|(at, timeout): (_, Duration)| { KeySource::Remote(Remote { at, timeout }) }),
    ]
}

fn field() -> impl Strategy<Value = HeaderName> {
    "[a-z][a-z0-9-]{0,6}".prop_map(|name| HeaderName::try_from(name).unwrap())
}

fn claim() -> impl Strategy<Value = ClaimHeader> {
    (field(), word()).prop_map(|(header, claim)| ClaimHeader { header, claim })
}

fn location() -> impl Strategy<Value = Location> {
    prop_oneof![
        (field(), text()).prop_map(|(name, prefix)| Location::Header { name, prefix }),
        word().prop_map(Location::Parameter),
        word().prop_map(Location::Cookie),
    ]
}
