//! `timeouts` (§2.7).

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Value, scalar};
use crate::config::source::At;
use crate::model::route::Timeouts;

/// What durations of a route may be: Gateway API has five digits of hours.
pub(super) const ANY: RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(99_999 * 3600);

pub(super) fn read(value: &Value<'_>) -> Option<Timeouts> {
    let table = value.nested()?;
    let limit = |value: &Value<'_>| {
        let limit = scalar::duration(value, ANY)?;
        Some(At::new(limit, value.place().clone()))
    };
    let request = table.optional("request", limit);
    let attempt = table.optional("backend-request", limit);
    table.finish();
    // 0 is no limit.
    let limited = |limit: Option<At<Duration>>| limit.filter(|limit| !limit.value.is_zero());
    let (request, attempt) = (limited(request), limited(attempt));
    if let (Some(request), Some(attempt)) = (&request, &attempt)
        && attempt.value > request.value
    {
        let message = format!(
            "{}: one attempt may take longer than all of them",
            table.what()
        );
        table.report(
            Diagnostic::new(Code::ConflictingKeys, attempt.place.clone(), message)
                .label("longer than `request`")
                .related(request.place.clone(), "all of them together")
                .help("write `backend-request` no longer than `request`"),
        );
    }
    Some(Timeouts {
        request: request.map(|limit| limit.value),
        backend_request: attempt.map(|limit| limit.value),
    })
}
