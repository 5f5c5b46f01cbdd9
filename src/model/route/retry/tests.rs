use super::*;
use crate::model::route::testing::headers;

const ALL: [RetryOn; 14] = [
    RetryOn::ServerError,
    RetryOn::GatewayError,
    RetryOn::Conflict,
    RetryOn::ConnectFailure,
    RetryOn::RefusedStream,
    RetryOn::Reset,
    RetryOn::ResetBeforeRequest,
    RetryOn::RateLimited,
    RetryOn::Cancelled,
    RetryOn::DeadlineExceeded,
    RetryOn::Internal,
    RetryOn::ResourceExhausted,
    RetryOn::Unavailable,
    RetryOn::AttemptTimeout,
];

fn on(one: RetryOn) -> Retry {
    Retry {
        on: [one].into(),
        ..Retry::usual()
    }
}

/// Exactly those conditions that retry.
fn conditions(retries: impl Fn(&Retry) -> bool) -> Vec<RetryOn> {
    ALL.into_iter().filter(|one| retries(&on(*one))).collect()
}

#[test]
fn failures_are_retried_by_condition() {
    use RetryOn::{
        AttemptTimeout, ConnectFailure, GatewayError, RefusedStream, Reset, ResetBeforeRequest,
        ServerError,
    };
    let rows: [(Failure, &[RetryOn]); 5] = [
        (
            Failure::Connect,
            &[
                ServerError,
                GatewayError,
                ConnectFailure,
                Reset,
                ResetBeforeRequest,
            ],
        ),
        (
            Failure::RefusedStream,
            &[ServerError, GatewayError, RefusedStream, Reset],
        ),
        (
            Failure::Reset { sent: true },
            &[ServerError, GatewayError, Reset],
        ),
        (
            Failure::Reset { sent: false },
            &[ServerError, GatewayError, Reset, ResetBeforeRequest],
        ),
        (
            Failure::AttemptTimeout,
            &[ServerError, GatewayError, Reset, AttemptTimeout],
        ),
    ];
    for (failure, want) in rows {
        assert_eq!(
            conditions(|retry| retry.after_failure(failure)),
            want,
            "{failure:?}"
        );
    }
}

#[test]
fn answers_are_retried_by_condition() {
    use RetryOn::{
        Cancelled, Conflict, DeadlineExceeded, GatewayError, Internal, RateLimited,
        ResourceExhausted, ServerError, Unavailable,
    };
    let grpc = |code| [("grpc-status", code)];
    let limited = [("x-envoy-ratelimited", "true")];
    type Row<'a> = (u16, &'a [(&'a str, &'a str)], &'a [RetryOn]);
    let rows: [Row<'_>; 17] = [
        (200, &[], &[]),
        (404, &[], &[]),
        (409, &[], &[Conflict]),
        (499, &[], &[]),
        (500, &[], &[ServerError]),
        (501, &[], &[ServerError]),
        (502, &[], &[ServerError, GatewayError]),
        (503, &[], &[ServerError, GatewayError]),
        (504, &[], &[ServerError, GatewayError]),
        (599, &[], &[ServerError]),
        (200, &grpc("0"), &[]),
        (200, &grpc("1"), &[Cancelled]),
        (200, &grpc("4"), &[DeadlineExceeded]),
        (200, &grpc("8"), &[ResourceExhausted]),
        (200, &grpc("13"), &[Internal]),
        (200, &grpc("14"), &[Unavailable]),
        (503, &limited, &[RateLimited]),
    ];
    for (status, fields, want) in rows {
        let fields = headers(fields);
        let got = conditions(|retry| retry.after_answer(status, &fields));
        assert_eq!(got, want, "{status} {fields:?}");
    }
}

#[test]
fn codes_are_retried_beside_conditions() {
    let codes = Retry {
        attempts: 3,
        codes: [500].into(),
        ..Retry::usual()
    };
    let none = headers(&[]);
    let unavailable = headers(&[("grpc-status", "14")]);
    for (name, retry, status, fields, want) in [
        ("31 the code", &codes, 500, &none, true),
        ("31 another", &codes, 503, &none, false),
        ("31 gRPC too", &codes, 200, &unavailable, true),
        ("32 no code by default", &Retry::usual(), 503, &none, false),
        ("32 UNAVAILABLE", &Retry::usual(), 200, &unavailable, true),
    ] {
        assert_eq!(retry.after_answer(status, fields), want, "{name}");
    }
    for (failure, want) in [
        (Failure::Connect, true),
        (Failure::RefusedStream, true),
        (Failure::Reset { sent: false }, false),
        (Failure::AttemptTimeout, false),
    ] {
        assert_eq!(
            Retry::usual().after_failure(failure),
            want,
            "32 {failure:?}"
        );
    }
}

#[test]
fn waits_grow_to_ten_times_their_base() {
    let asked = |backoff| Retry {
        backoff,
        ..Retry::usual()
    };
    let ms = Duration::from_millis;
    let usual = asked(None);
    let slow = asked(Some(ms(100)));
    for (name, retry, nth, draw, want) in [
        ("the first", &usual, 1, 1.0, ms(25)),
        ("from nothing", &usual, 1, 0.0, ms(0)),
        ("half of it", &usual, 2, 0.5, Duration::from_micros(37_500)),
        ("the second", &usual, 2, 1.0, ms(75)),
        ("the third", &usual, 3, 1.0, ms(175)),
        ("the longest", &usual, 4, 1.0, ms(250)),
        ("for ever", &usual, u32::MAX, 1.0, ms(250)),
        ("what is asked for is the least", &slow, 1, 0.0, ms(100)),
        ("and grows", &slow, 3, 0.5, ms(350)),
        ("as far", &slow, 9, 1.0, ms(1000)),
    ] {
        assert_eq!(retry.wait(nth, draw), want, "{name}");
    }
}
