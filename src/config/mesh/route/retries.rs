//! Retries as Istio writes them (§3.1, §3.2).

use std::collections::BTreeSet;

use super::retry::MOST_ATTEMPTS;
use super::timeouts;
use crate::config::read::{Value, scalar};
use crate::config::suggest;
use crate::model::route::{Retry, RetryOn};

/// What a request is asked again after, by Istio's words.
const ON: [(&str, RetryOn); 13] = [
    ("5xx", RetryOn::ServerError),
    ("gateway-error", RetryOn::GatewayError),
    ("retriable-4xx", RetryOn::Conflict),
    ("connect-failure", RetryOn::ConnectFailure),
    ("refused-stream", RetryOn::RefusedStream),
    ("reset", RetryOn::Reset),
    ("reset-before-request", RetryOn::ResetBeforeRequest),
    ("envoy-ratelimited", RetryOn::RateLimited),
    ("cancelled", RetryOn::Cancelled),
    ("deadline-exceeded", RetryOn::DeadlineExceeded),
    ("internal", RetryOn::Internal),
    ("resource-exhausted", RetryOn::ResourceExhausted),
    ("unavailable", RetryOn::Unavailable),
];

/// Words that Istio takes and that say nothing by themselves: statuses are named as numbers.
const INERT: [&str; 3] = [
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
];

/// What is left out is as for a rule that says nothing.
pub(in crate::config::mesh) fn read(value: &Value<'_>) -> Option<Retry> {
    let table = value.nested()?;
    let usual = Retry::usual();
    let attempts = table.optional("attempts", |value| value.count(0..=MOST_ATTEMPTS));
    let on = table.optional("retry-on", on);
    let limit = |value: &Value<'_>| scalar::duration(value, timeouts::ANY);
    let per_try_timeout = table.optional("per-try-timeout", limit);
    let backoff = table.optional("backoff", limit);
    let ignore_previous = table.optional("retry-ignore-previous-hosts", Value::boolean);
    let remote = table.optional("retry-remote-localities", Value::boolean);
    table.finish();
    let (on, codes) = on.unwrap_or((usual.on, usual.codes));
    Some(Retry {
        attempts: attempts.unwrap_or(usual.attempts),
        on,
        codes,
        backoff,
        // 0 is no limit.
        per_try_timeout: per_try_timeout.filter(|limit| !limit.is_zero()),
        ignore_previous_hosts: ignore_previous.unwrap_or(usual.ignore_previous_hosts),
        remote_localities: remote.unwrap_or(usual.remote_localities),
    })
}

/// Words and statuses, with commas between them.
fn on(value: &Value<'_>) -> Option<(BTreeSet<RetryOn>, BTreeSet<u16>)> {
    let text = value.text()?;
    let (mut on, mut codes) = (BTreeSet::new(), BTreeSet::new());
    for word in text.split(',').map(str::trim) {
        if let Some((_, meant)) = ON.iter().find(|(known, _)| *known == word) {
            on.insert(*meant);
        } else if let Some(code) = word.parse().ok().filter(|c| (100..=599).contains(c)) {
            codes.insert(code);
        } else if !INERT.contains(&word) {
            let known = || ON.iter().map(|(known, _)| *known).chain(INERT);
            let help = match suggest::closest(word, known()) {
                Some(meant) => format!("write `{meant}`"),
                None => format!(
                    "write statuses, or some of {}, with commas between them",
                    suggest::listed(known())
                ),
            };
            let message = format!("names {word:?}, which nothing is asked again after");
            value.bad(&message, "no such word", help);
            return None;
        }
    }
    Some((on, codes))
}
