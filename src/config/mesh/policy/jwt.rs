//! `jwt-rules`: tokens of one issuer (`spec/labels-and-policy.md` §5.1, `spec/waypoint-l7.md` §5.1).

use std::sync::Arc;

use http::HeaderName;

use super::key_source;
use super::values::some;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value, scalar};
use crate::config::source::At;
use crate::model::declaration::{ClaimHeader, JwtRule, Location};

/// The most places of one rule that a token may be in.
const MOST_PLACES: usize = 16;

/// Fields that say how a message is read or where it goes: no token and no claim belongs there.
const NOT_FOR_CLAIMS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

/// A rule, and where it is written.
pub(super) fn read(value: &Value<'_>) -> Option<At<JwtRule>> {
    let table = value.nested()?;
    let issuer = table.optional("issuer", |value| {
        Some(At::new(
            Arc::from(scalar::plain(value)?),
            value.place().clone(),
        ))
    });
    let audiences = table.optional("audiences", |value| some(value, plain));
    let keys = key_source::read(&table, issuer.as_ref());
    let locations = locations(&table);
    let forward = table.optional("forward-original-token", Value::boolean);
    let payload = table.optional("output-payload-to-header", told_field);
    let claims = table.optional("output-claim-to-headers", claim_headers);
    let spaced = table.optional("space-delimited-claims", |value| value.list(plain));
    table.finish();
    let claims = claims.unwrap_or_default();
    judge_fields(&table, payload.as_ref(), &claims);
    let rule = JwtRule {
        line: table.place().start().line,
        issuer: issuer.map(|issuer| issuer.value),
        audiences: audiences.unwrap_or_default(),
        keys: keys?,
        locations,
        forward_original_token: forward.unwrap_or_default(),
        payload_header: payload.map(|field| field.value),
        claim_headers: claims.into_iter().map(|claim| claim.value).collect(),
        space_delimited: spaced.unwrap_or_default(),
    };
    Some(At::new(rule, table.place().clone()))
}

fn plain(value: &Value<'_>) -> Option<Arc<str>> {
    scalar::plain(value).map(Arc::from)
}

/// Where tokens are; the usual places where none is named.
fn locations(table: &Table<'_>) -> Vec<Location> {
    let headers = table.optional("from-headers", |value| places(value, header));
    let params = table.optional("from-params", |value| {
        places(value, |value| plain(value).map(Location::Parameter))
    });
    let cookies = table.optional("from-cookies", |value| places(value, cookie));
    let all = [headers, params, cookies];
    let named: Vec<_> = all.into_iter().flatten().flatten().collect();
    match named.is_empty() {
        true => Location::usual(),
        false => named,
    }
}

fn places(
    value: &Value<'_>,
    read: impl FnMut(&Value<'_>) -> Option<Location>,
) -> Option<Vec<Location>> {
    let places = value.list(read)?;
    if places.len() > MOST_PLACES {
        value.reject(
            Code::TooLarge,
            &format!("names {} places, at most {MOST_PLACES}", places.len()),
            "too many",
            "name those that clients use",
        );
    }
    Some(places)
}

/// `{ name = "x-jwt", prefix = "Value " }`.
fn header(value: &Value<'_>) -> Option<Location> {
    let table = value.nested()?;
    let name = table.required("name", "name = \"x-jwt-assertion\"", field_name);
    let prefix = table.optional("prefix", |value| {
        let text = value.text()?;
        let legal = text.bytes().all(|b| matches!(b, 0x20..=0x7e));
        if !legal {
            value.bad(
                "has a character that fields do not have",
                "never found",
                "write printable ASCII, as in `\"Bearer \"`",
            );
        }
        legal.then(|| Arc::from(text))
    });
    table.finish();
    Some(Location::Header {
        name: name?.value,
        prefix: prefix.unwrap_or_else(|| Arc::from("")),
    })
}

fn cookie(value: &Value<'_>) -> Option<Location> {
    let name = scalar::plain(value)?;
    if name.contains([' ', ';', '=', ',', '"']) {
        value.bad(
            &format!("is not the name of a cookie: {name:?}"),
            "not a name",
            "write the cookie's name alone",
        );
        return None;
    }
    Some(Location::Cookie(Arc::from(name)))
}

fn field_name(value: &Value<'_>) -> Option<At<HeaderName>> {
    let text = value.text()?;
    let Ok(name) = HeaderName::try_from(text) else {
        value.reject(
            Code::BadName,
            &format!("is not the name of a header: {text:?}"),
            "not a name",
            "use letters, digits and hyphens, as in `\"x-user\"`",
        );
        return None;
    };
    Some(At::new(name, value.place().clone()))
}

/// A field that programs are told something by.
fn told_field(value: &Value<'_>) -> Option<At<HeaderName>> {
    let name = field_name(value)?;
    if NOT_FOR_CLAIMS.contains(&name.value.as_str()) {
        value.bad(
            &format!("is `{}`, which is about the message itself", name.value),
            "cannot tell a claim",
            "use a name of its own, as in `\"x-user\"`",
        );
        return None;
    }
    Some(name)
}

/// `[{ header = "x-user", claim = "user.name" }]`.
fn claim_headers(value: &Value<'_>) -> Option<Vec<At<ClaimHeader>>> {
    value.list(|item| {
        let table = item.nested()?;
        let header = table.required("header", "header = \"x-user\"", told_field);
        let claim = table.required("claim", "claim = \"sub\"", claim);
        table.finish();
        let (header, claim) = (header?, claim?);
        let told = ClaimHeader {
            header: header.value,
            claim,
        };
        Some(At::new(told, header.place))
    })
}

fn claim(value: &Value<'_>) -> Option<Arc<str>> {
    let text = scalar::plain(value)?;
    if text.split('.').any(str::is_empty) {
        value.bad(
            &format!("leads to no claim: {text:?}"),
            "an empty name between dots",
            "write the names that lead there with dots between, as in `\"realm.role\"`",
        );
        return None;
    }
    Some(Arc::from(text))
}

/// One field tells one thing.
fn judge_fields(table: &Table<'_>, payload: Option<&At<HeaderName>>, claims: &[At<ClaimHeader>]) {
    let claims = claims.iter().map(|c| (&c.value.header, &c.place));
    let mut known: Vec<_> = payload.map(|p| (&p.value, &p.place)).into_iter().collect();
    for (name, place) in claims {
        match known.iter().find(|(other, _)| *other == name) {
            None => known.push((name, place)),
            Some((_, first)) => {
                let message = format!("{}: header `{name}` is to tell two things", table.what());
                table.report(
                    Diagnostic::new(Code::ConflictingKeys, place.clone(), message)
                        .label("told here")
                        .related((*first).clone(), "and here")
                        .help("give each a header of its own"),
                );
            }
        }
    }
}
