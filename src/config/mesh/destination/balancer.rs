//! `load-balancer`.

use std::sync::Arc;
use std::time::Duration;

use super::locality;
use crate::config::diagnose::Code;
use crate::config::read::{Table, Value, scalar};
use crate::model::traffic::{Balance, HashKey, HashTable, LoadBalancer, Warmup};

/// Envoy's limits on the tables that keys are spread with.
const LARGEST_RING: u32 = 8 << 20;
const LARGEST_TABLE: u32 = 5_000_011;
const MAGLEV: u32 = 65_537;

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

const SIMPLE: [(&str, Simple); 6] = [
    ("LEAST_REQUEST", Simple::LeastRequest),
    ("ROUND_ROBIN", Simple::RoundRobin),
    ("RANDOM", Simple::Random),
    ("PASSTHROUGH", Simple::Passthrough),
    ("UNSPECIFIED", Simple::LeastRequest),
    // Its name before Istio 1.14.
    ("LEAST_CONN", Simple::LeastRequest),
];

#[derive(Clone, Copy)]
enum Simple {
    LeastRequest,
    RoundRobin,
    Random,
    Passthrough,
}

pub(super) fn read(value: &Value<'_>) -> Option<LoadBalancer> {
    let table = value.nested()?;
    let simple = table.optional("simple", |value| scalar::choice(value, &SIMPLE));
    let hash = table.value("consistent-hash");
    if let (Some(_), Some(hash)) = (&simple, &hash) {
        hash.reject(
            Code::ConflictingKeys,
            "stands beside `simple`",
            "one of the two",
            "keep one: `simple` picks among endpoints, `consistent-hash` always the same",
        );
    }
    let hash = hash.and_then(|hash| consistent_hash(&hash));
    let warmup = table.value("warmup");
    if let (Some(warmup), true) = (&warmup, hash.is_some() || is_fixed(simple)) {
        warmup.reject(
            Code::ConflictingKeys,
            "needs `ROUND_ROBIN` or `LEAST_REQUEST`",
            "not with this",
            "take it out, or balance by one of those",
        );
    }
    let warmup = warmup.and_then(|warmup| read_warmup(&warmup));
    let locality = table.optional("locality-lb-setting", locality::read);
    table.unsupported(
        "warmup-duration-secs",
        "write `warmup = { duration = \"30s\" }`",
    );
    table.finish();
    let policy = match simple {
        Some(Simple::LeastRequest) | None => Balance::LeastRequest,
        Some(Simple::RoundRobin) => Balance::RoundRobin,
        Some(Simple::Random) => Balance::Random,
        Some(Simple::Passthrough) => Balance::Passthrough,
    };
    Some(LoadBalancer {
        policy: hash.unwrap_or(policy),
        warmup,
        locality,
    })
}

fn is_fixed(simple: Option<Simple>) -> bool {
    matches!(simple, Some(Simple::Random | Simple::Passthrough))
}

fn read_warmup(value: &Value<'_>) -> Option<Warmup> {
    let table = value.nested()?;
    let second = Duration::from_secs(1);
    let duration = table.required("duration", "duration = \"30s\"", |value| {
        scalar::duration(value, second..=DAY)
    });
    let percent = table.optional("minimum-percent", |value| value.decimal(0.0..=100.0));
    let aggression = table.optional("aggression", |value| value.decimal(1.0..=1000.0));
    table.finish();
    Some(Warmup {
        duration: duration?,
        minimum_percent: percent.unwrap_or(10.0),
        aggression: aggression.unwrap_or(1.0),
    })
}

const KEYS: &str = "write one of `http-header-name`, `http-cookie`, `use-source-ip = true` and `http-query-parameter-name`";

fn consistent_hash(value: &Value<'_>) -> Option<Balance> {
    let table = value.nested()?;
    let header = table.value("http-header-name");
    let cookie = table.value("http-cookie");
    let source = table.value("use-source-ip");
    let query = table.value("http-query-parameter-name");
    let given: Vec<_> = [&header, &cookie, &source, &query]
        .into_iter()
        .flatten()
        .collect();
    if let [_, second, ..] = given.as_slice() {
        second.reject(
            Code::ConflictingKeys,
            "is a second key",
            "one too many",
            KEYS,
        );
    }
    if given.is_empty() {
        value.reject(
            Code::MissingKey,
            "does not say what is hashed",
            "no key",
            KEYS,
        );
    }
    let query = query.and_then(|value| scalar::plain(&value));
    let key = header
        .and_then(|value| header_name(&value).map(HashKey::Header))
        .or_else(|| read_cookie(&cookie?))
        .or_else(|| by_source(&source?))
        .or_else(|| query.map(|name| HashKey::Query(Arc::from(name))));
    let spread = spread(&table);
    table.finish();
    Some(Balance::Hash {
        key: key?,
        table: spread,
    })
}

fn by_source(value: &Value<'_>) -> Option<HashKey> {
    let by = value.boolean()?;
    if !by {
        value.bad("is false, and nothing else is hashed", "no key", KEYS);
    }
    by.then_some(HashKey::SourceIp)
}

/// A field name in lower case.
fn header_name(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let Ok(name) = text.parse::<http::HeaderName>() else {
        value.bad(
            &format!("is not the name of a header field: {text:?}"),
            "not a field name",
            "write a name as in `\"x-user\"`",
        );
        return None;
    };
    Some(Arc::from(name.as_str()))
}

fn read_cookie(value: &Value<'_>) -> Option<HashKey> {
    let table = value.nested()?;
    let name = table.required("name", "name = \"user\"", cookie_name);
    let path = table.optional("path", cookie_path);
    let ttl = table.optional("ttl", |value| {
        scalar::duration(value, Duration::ZERO..=YEAR)
    });
    table.unsupported(
        "attributes",
        "take them out: a cookie is issued with its path and age",
    );
    table.finish();
    Some(HashKey::Cookie {
        name: name?,
        path,
        ttl,
    })
}

/// RFC 6265 §4.1.1: a token.
fn cookie_name(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(legal) {
        value.bad(
            &format!("cannot be the name of a cookie: {text:?}"),
            "not a cookie's name",
            "use letters, digits, `-`, `_` and `.`",
        );
        return None;
    }
    Some(Arc::from(text))
}

/// RFC 6265 §4.1.1: anything but controls and `;`.
fn cookie_path(value: &Value<'_>) -> Option<Arc<str>> {
    let text = value.text()?;
    let legal = |b: u8| b.is_ascii_graphic() && b != b';';
    if !text.starts_with('/') || !text.bytes().all(legal) {
        value.bad(
            &format!("cannot be the path of a cookie: {text:?}"),
            "not a path",
            "begin it with `/`, as in `\"/shop\"`",
        );
        return None;
    }
    Some(Arc::from(text))
}

fn spread(table: &Table<'_>) -> HashTable {
    let (ring, maglev) = (table.value("ring-hash"), table.value("maglev"));
    if let (Some(_), Some(maglev)) = (&ring, &maglev) {
        maglev.reject(
            Code::ConflictingKeys,
            "stands beside `ring-hash`",
            "one of the two",
            "keep one of the two tables",
        );
    }
    table.unsupported(
        "minimum-ring-size",
        "write `ring-hash = { minimum-ring-size = 1024 }`",
    );
    if let Some(maglev) = maglev {
        return HashTable::Maglev(size(&maglev, "table-size", table_size).unwrap_or(MAGLEV));
    }
    let size = ring.and_then(|ring| {
        size(&ring, "minimum-ring-size", |value| {
            value.count(1..=LARGEST_RING)
        })
    });
    size.map_or_else(HashTable::default, HashTable::Ring)
}

fn size(
    value: &Value<'_>,
    key: &'static str,
    read: impl FnOnce(&Value<'_>) -> Option<u32>,
) -> Option<u32> {
    let table = value.nested()?;
    let size = table.optional(key, read);
    table.finish();
    size
}

fn table_size(value: &Value<'_>) -> Option<u32> {
    let size = value.count(1..=LARGEST_TABLE)?;
    let divides = |by: &u32| size.is_multiple_of(*by);
    let prime = size > 1
        && !(2..)
            .take_while(|by| by * by <= size)
            .any(|by| divides(&by));
    if !prime {
        value.bad(
            &format!("is not a prime: {size}"),
            "not a prime",
            "write a prime well above the number of endpoints, as in `65537`",
        );
        return None;
    }
    Some(size)
}
