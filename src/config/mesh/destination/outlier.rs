//! `outlier-detection`, and `retry-budget`.

use std::time::Duration;

use crate::config::read::{Value, scalar};
use crate::model::traffic::{OutlierDetection, RetryBudget};

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn read(value: &Value<'_>) -> Option<OutlierDetection> {
    let table = value.nested()?;
    let usual = OutlierDetection::default();
    let in_a_row = |value: &Value<'_>| value.count(0..=u32::MAX);
    let percent = |value: &Value<'_>| value.count(0..=100);
    let time = |value: &Value<'_>| scalar::duration(value, MILLISECOND..=DAY);
    let detection = OutlierDetection {
        consecutive_5xx: table
            .optional("consecutive-5xx-errors", in_a_row)
            .unwrap_or(usual.consecutive_5xx),
        consecutive_gateway: table
            .optional("consecutive-gateway-errors", in_a_row)
            .unwrap_or(usual.consecutive_gateway),
        split_local_errors: table
            .optional("split-external-local-origin-errors", Value::boolean)
            .unwrap_or(usual.split_local_errors),
        consecutive_local: table
            .optional("consecutive-local-origin-failures", in_a_row)
            .unwrap_or(usual.consecutive_local),
        interval: table.optional("interval", time).unwrap_or(usual.interval),
        base_ejection: table
            .optional("base-ejection-time", time)
            .unwrap_or(usual.base_ejection),
        max_ejection_percent: table
            .optional("max-ejection-percent", percent)
            .unwrap_or(usual.max_ejection_percent),
        min_health_percent: table
            .optional("min-health-percent", percent)
            .unwrap_or(usual.min_health_percent),
    };
    table.unsupported(
        "consecutive-errors",
        "write `consecutive-5xx-errors` or `consecutive-gateway-errors`",
    );
    table.finish();
    Some(detection)
}

pub(super) fn retry_budget(value: &Value<'_>) -> Option<RetryBudget> {
    let table = value.nested()?;
    let usual = RetryBudget::default();
    let percent = table.optional("percent", |value| value.decimal(0.0..=100.0));
    let concurrency = table.optional("min-retry-concurrency", |value| value.count(0..=u32::MAX));
    table.finish();
    Some(RetryBudget {
        percent: percent.unwrap_or(usual.percent),
        min_concurrency: concurrency.unwrap_or(usual.min_concurrency),
    })
}
