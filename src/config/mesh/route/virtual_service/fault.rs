//! `fault`: what is done wrong on purpose (§3.3).

use std::ops::RangeInclusive;
use std::time::Duration;

use super::share;
use crate::config::diagnose::{Code, Diagnostic};
use crate::config::mesh::no_effect;
use crate::config::read::{Table, Value, scalar};
use crate::model::route::{Abort, Fault, Fraction};

/// Nobody waits longer than a day to see what a delay does.
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(24 * 3600);

/// The words of gRPC for its statuses, which they number.
const GRPC: [(&str, u16); 17] = [
    ("OK", 0),
    ("CANCELLED", 1),
    ("UNKNOWN", 2),
    ("INVALID_ARGUMENT", 3),
    ("DEADLINE_EXCEEDED", 4),
    ("NOT_FOUND", 5),
    ("ALREADY_EXISTS", 6),
    ("PERMISSION_DENIED", 7),
    ("RESOURCE_EXHAUSTED", 8),
    ("FAILED_PRECONDITION", 9),
    ("ABORTED", 10),
    ("OUT_OF_RANGE", 11),
    ("UNIMPLEMENTED", 12),
    ("INTERNAL", 13),
    ("UNAVAILABLE", 14),
    ("DATA_LOSS", 15),
    ("UNAUTHENTICATED", 16),
];

pub(super) fn read(value: &Value<'_>) -> Option<Fault> {
    let table = value.nested()?;
    let delay = table.optional("delay", delay);
    let abort = table.optional("abort", abort);
    table.finish();
    if table.entries().next().is_none() {
        value.reject(
            Code::NoEffect,
            "does nothing wrong",
            "has no effect",
            "add `delay` or `abort`, or take it out",
        );
    }
    Some(Fault { delay, abort })
}

fn delay(value: &Value<'_>) -> Option<(Duration, Fraction)> {
    let table = value.nested()?;
    let delay = table.required("fixed-delay", "fixed-delay = \"5s\"", |value| {
        scalar::duration(value, DELAYS)
    });
    table.unsupported("exponential-delay", "write a `fixed-delay`");
    let share = percentage(&table);
    table.finish();
    Some((delay?, share?))
}

fn abort(value: &Value<'_>) -> Option<(Abort, Fraction)> {
    let table = value.nested()?;
    let http = table.value("http-status");
    let grpc = table.value("grpc-status");
    table.unsupported("http2-error", "write an `http-status` or a `grpc-status`");
    let share = percentage(&table);
    let abort = match (http, grpc) {
        (Some(status), None) => {
            let status = status.integer(200..=599);
            status.and_then(|s| u16::try_from(s).ok()).map(Abort::Http)
        }
        (None, Some(status)) => scalar::choice(&status, &GRPC).map(Abort::Grpc),
        (Some(_), Some(second)) => {
            second.reject(
                Code::ConflictingKeys,
                "stands beside `http-status`",
                "one of the two",
                "keep the one that is meant",
            );
            None
        }
        (None, None) => {
            let message = format!("{} does not say what is answered", table.what());
            let finding = Diagnostic::new(Code::MissingKey, table.place().clone(), message)
                .label("answers what?")
                .help("add it, as in `http-status = 503` or `grpc-status = \"UNAVAILABLE\"`");
            table.missing(vec!["http-status", "grpc-status"], finding);
            None
        }
    };
    table.finish();
    Some((abort?, share?))
}

/// `percentage`, without which a fault is none.
fn percentage(table: &Table<'_>) -> Option<Fraction> {
    table.unsupported("percent", "write `percentage = { value = 50 }`");
    if let Some(value) = table.value("percentage") {
        return share::read(&value);
    }
    if table.value("percent").is_none() {
        let message = format!("{} has no `percentage`, which is none", table.what());
        let help = "add it, as in `percentage = { value = 100 }`";
        no_effect(table, table.place().clone(), message, help);
    }
    Some(Fraction {
        numerator: 0,
        denominator: 1,
    })
}
