//! A request authentication.

use std::sync::Arc;

use http::HeaderName;

use super::super::{Fault, Reason, required};
use super::FORMAT;
use super::parts::{each, for_so_long, format, given, lasting, strings, texts};
use crate::model::attached::PolicyKey;
use crate::model::authentication::{Authentication, Keys};
use crate::model::declaration::{
    ClaimHeader, JwtRule, KeySource, Location, Origin, Remote, RemoteAt,
};
use crate::wire::proto::waypoint as proto;
use proto::jwt_rule::Keys as From;
use proto::token_location::{Field, In};

pub(super) fn encode(policy: &Authentication) -> proto::Authentication {
    proto::Authentication {
        format: FORMAT,
        rules: policy.rules.iter().map(encode_rule).collect(),
    }
}

pub(super) fn decode(
    key: PolicyKey,
    origin: Origin,
    given: proto::Authentication,
) -> Result<Authentication, Fault> {
    format(given.format)?;
    Ok(Authentication {
        key,
        origin,
        rules: each("rules", given.rules, rule)?,
    })
}

fn encode_rule(rule: &JwtRule) -> proto::JwtRule {
    let (keys, timeout) = match &rule.keys {
        KeySource::Inline(keys) => (From::Jwks(keys.to_string()), None),
        KeySource::Remote(Remote { at, timeout }) => {
            let from = match at {
                RemoteAt::Uri(uri) => From::JwksUri(uri.to_string()),
                RemoteAt::Discovery(issuer) => From::Discovery(issuer.to_string()),
            };
            (from, Some(lasting(*timeout)))
        }
    };
    let claims = rule.claim_headers.iter();
    proto::JwtRule {
        issuer: rule.issuer.as_ref().map(ToString::to_string),
        audiences: strings(&rule.audiences),
        keys: Some(keys),
        timeout,
        locations: rule.locations.iter().map(encode_location).collect(),
        forward_original_token: rule.forward_original_token,
        output_payload_to_header: rule.payload_header.as_ref().map(ToString::to_string),
        output_claim_to_headers: claims
            .map(|told| proto::ClaimHeader {
                header: told.header.to_string(),
                claim: told.claim.to_string(),
            })
            .collect(),
        space_delimited_claims: strings(&rule.space_delimited),
        line: rule.line,
    }
}

fn rule(rule: proto::JwtRule) -> Result<JwtRule, Fault> {
    let remote = |at| {
        Ok(KeySource::Remote(Remote {
            at,
            timeout: for_so_long("timeout", rule.timeout)?,
        }))
    };
    Ok(JwtRule {
        line: rule.line,
        issuer: rule.issuer.map(Arc::from),
        audiences: texts(rule.audiences),
        keys: match given("keys", rule.keys)? {
            From::Jwks(keys) => inline(keys)?,
            From::JwksUri(uri) => remote(RemoteAt::Uri(required("jwks_uri", uri)?))?,
            From::Discovery(issuer) => remote(RemoteAt::Discovery(required("discovery", issuer)?))?,
        },
        locations: each("locations", rule.locations, location)?,
        forward_original_token: rule.forward_original_token,
        payload_header: match rule.output_payload_to_header {
            Some(name) => Some(field("output_payload_to_header", name)?),
            None => None,
        },
        claim_headers: each(
            "output_claim_to_headers",
            rule.output_claim_to_headers,
            |c| {
                Ok(ClaimHeader {
                    header: field("header", c.header)?,
                    claim: required("claim", c.claim)?,
                })
            },
        )?,
        space_delimited: texts(rule.space_delimited_claims),
    })
}

/// Keys that do not read believe nobody, and are refused before anybody is.
fn inline(keys: String) -> Result<KeySource, Fault> {
    match Keys::read(keys.as_bytes()) {
        Ok(_) => Ok(KeySource::Inline(Arc::from(keys))),
        Err(fault) => Err(Fault::new("jwks", Reason::Unsupported(fault.to_string()))),
    }
}

fn field(at: &str, name: String) -> Result<HeaderName, Fault> {
    let read = HeaderName::try_from(&name);
    read.map_err(|_none| Fault::new(at, Reason::Value(name)))
}

fn encode_location(location: &Location) -> proto::TokenLocation {
    let place = match location {
        Location::Header { name, prefix } => In::Header(Field {
            name: name.to_string(),
            prefix: prefix.to_string(),
        }),
        Location::Parameter(name) => In::Param(name.to_string()),
        Location::Cookie(name) => In::Cookie(name.to_string()),
    };
    proto::TokenLocation { r#in: Some(place) }
}

fn location(location: proto::TokenLocation) -> Result<Location, Fault> {
    Ok(match given("in", location.r#in)? {
        In::Header(header) => Location::Header {
            name: field("header", header.name)?,
            prefix: Arc::from(header.prefix),
        },
        In::Param(name) => Location::Parameter(required("param", name)?),
        In::Cookie(name) => Location::Cookie(required("cookie", name)?),
    })
}
