//! `retry` (§2.7).

use std::collections::BTreeSet;

use super::timeouts;
use crate::config::read::{Value, scalar};
use crate::model::route::{Retry, RetryOn};

/// More than anybody waits for.
const MOST_ATTEMPTS: u32 = 1000;

/// Beside the statuses that are named, all that the mesh retries by default, and what Gateway API
/// asks for: no answer, and none in time.
pub(super) fn read(value: &Value<'_>) -> Option<Retry> {
    let table = value.nested()?;
    let codes = table.optional("codes", |value| value.list(code));
    let attempts = table.optional("attempts", |value| value.count(0..=MOST_ATTEMPTS));
    let backoff = table.optional("backoff", |value| scalar::duration(value, timeouts::ANY));
    table.finish();
    let usual = Retry::usual();
    let mut on = usual.on;
    on.extend([RetryOn::Reset, RetryOn::AttemptTimeout]);
    Some(Retry {
        attempts: attempts.unwrap_or(usual.attempts),
        on,
        codes: codes.into_iter().flatten().collect::<BTreeSet<_>>(),
        backoff,
        ..Retry::usual()
    })
}

fn code(value: &Value<'_>) -> Option<u16> {
    u16::try_from(value.integer(400..=599)?).ok()
}
