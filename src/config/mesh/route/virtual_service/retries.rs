//! `retries`: when a request is asked again (§3.2).

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::mesh::route::timeouts;
use crate::config::read::{Value, scalar};
use crate::config::suggest;
use crate::model::route::{Retry, RetryOn};

/// More than anybody waits for.
const MOST_ATTEMPTS: u32 = 1000;

/// What one attempt may take.
const ATTEMPT: RangeInclusive<Duration> = Duration::from_millis(1)..=*timeouts::ANY.end();

/// The words of `retry-on`. Those that stand for nothing say what is so anyway, or what no endpoint
/// does: Istio takes them.
const TOKENS: [(&str, Option<RetryOn>); 16] = [
    ("5xx", Some(RetryOn::ServerError)),
    ("gateway-error", Some(RetryOn::GatewayError)),
    ("retriable-4xx", Some(RetryOn::Conflict)),
    ("connect-failure", Some(RetryOn::ConnectFailure)),
    ("refused-stream", Some(RetryOn::RefusedStream)),
    ("reset", Some(RetryOn::Reset)),
    ("reset-before-request", Some(RetryOn::ResetBeforeRequest)),
    ("envoy-ratelimited", Some(RetryOn::RateLimited)),
    ("cancelled", Some(RetryOn::Cancelled)),
    ("deadline-exceeded", Some(RetryOn::DeadlineExceeded)),
    ("internal", Some(RetryOn::Internal)),
    ("resource-exhausted", Some(RetryOn::ResourceExhausted)),
    ("unavailable", Some(RetryOn::Unavailable)),
    ("retriable-status-codes", None),
    ("retriable-headers", None),
    ("http3-post-connect-failure", None),
];

/// What one word of `retry-on` means.
enum On {
    Condition(RetryOn),
    Code(u16),
    Nothing,
}

pub(in crate::config::mesh) fn read(value: &Value<'_>) -> Option<Retry> {
    let table = value.nested()?;
    let attempts = table.required("attempts", "attempts = 3", |value| {
        value.count(0..=MOST_ATTEMPTS)
    });
    let (on, codes) = match table.value("retry-on") {
        Some(value) => conditions(&value),
        None => (Retry::usual().on, BTreeSet::new()),
    };
    let per_try = table.optional("per-try-timeout", |value| scalar::duration(value, ATTEMPT));
    let backoff = table.optional("backoff", |value| scalar::duration(value, timeouts::ANY));
    let avoids = table.optional("retry-ignore-previous-hosts", Value::boolean);
    let remote = table.optional("retry-remote-localities", Value::boolean);
    table.finish();
    let usual = Retry::usual();
    Some(Retry {
        attempts: attempts?,
        on,
        codes,
        backoff,
        per_try_timeout: per_try,
        ignore_previous_hosts: avoids.unwrap_or(usual.ignore_previous_hosts),
        remote_localities: remote.unwrap_or(usual.remote_localities),
    })
}

/// Conditions and statuses, separated by commas. None at all are the usual ones.
fn conditions(value: &Value<'_>) -> (BTreeSet<RetryOn>, BTreeSet<u16>) {
    let (mut on, mut codes) = (BTreeSet::new(), BTreeSet::new());
    let text = value.text().unwrap_or_default();
    if text.trim().is_empty() {
        return (Retry::usual().on, codes);
    }
    for word in text.split(',').map(str::trim) {
        match condition(word) {
            Some(On::Condition(condition)) => {
                on.insert(condition);
            }
            Some(On::Code(code)) => {
                codes.insert(code);
            }
            Some(On::Nothing) => {}
            None => reject(value, word),
        }
    }
    (on, codes)
}

fn condition(word: &str) -> Option<On> {
    if let Ok(code) = word.parse::<u16>() {
        return (200..=599).contains(&code).then_some(On::Code(code));
    }
    let (_, condition) = TOKENS.into_iter().find(|(token, _)| *token == word)?;
    Some(condition.map_or(On::Nothing, On::Condition))
}

fn reject(value: &Value<'_>, word: &str) {
    let words = || TOKENS.iter().map(|(token, _)| *token);
    let help = match suggest::closest(word, words()) {
        Some(known) => format!("write `{known}`"),
        None => format!(
            "write statuses such as `503`, and {}",
            suggest::listed(words())
        ),
    };
    value.bad(
        &format!("has {word:?} in it, after which nothing is retried"),
        "no such condition",
        help,
    );
}
