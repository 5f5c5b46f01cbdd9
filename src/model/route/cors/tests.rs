use std::time::Duration;

use super::*;
use crate::model::route::OriginPattern;
use crate::model::route::testing::{Request, headers};

fn list(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

/// Row 28.
fn two_sites() -> Cors {
    Cors {
        allow_origins: vec![
            OriginPattern::Exact(Arc::from("https://www.foo.com")),
            OriginPattern::Wildcard(Arc::from("https://"), Arc::from(".bar.com")),
        ],
        allow_methods: list(&["GET", "OPTIONS"]),
        allow_headers: list(&["x-header-1"]),
        expose_headers: list(&["x-a", "x-b"]),
        allow_credentials: true,
        max_age: Some(Duration::from_secs(3600)),
        unmatched_preflights: UnmatchedPreflights::Refuse,
    }
}

/// Row 29.
fn anyone(allow_credentials: bool) -> Cors {
    Cors {
        allow_origins: vec![OriginPattern::Any],
        allow_methods: list(&["*"]),
        allow_headers: list(&["*"]),
        expose_headers: list(&["*"]),
        allow_credentials,
        max_age: None,
        unmatched_preflights: UnmatchedPreflights::Refuse,
    }
}

fn judge(cors: &Cors, line: &str, fields: &[(&str, &str)]) -> CorsVerdict {
    let request = Request::new(line, fields);
    cors.judge(&request.method, &request.headers)
}

/// A preflight's answer.
fn preflight(cors: &Cors, origin: &str, method: &str, asked_headers: Option<&str>) -> CorsVerdict {
    let mut fields = vec![
        ("origin", origin),
        ("access-control-request-method", method),
    ];
    fields.extend(asked_headers.map(|names| ("access-control-request-headers", names)));
    judge(cors, "OPTIONS /", &fields)
}

#[test]
fn preflights_of_those_allowed_are_answered() {
    for origin in [
        "https://www.foo.com",
        "https://xpto.www.bar.com",
        "https://WWW.foo.com:443",
    ] {
        let want = headers(&[
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", "x-a, x-b"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1"),
            ("access-control-max-age", "3600"),
            ("vary", "origin"),
        ]);
        let got = preflight(&two_sites(), origin, "GET", Some("x-header-1"));
        assert_eq!(got, CorsVerdict::Preflight(want), "28 {origin}");
    }
}

#[test]
fn a_star_goes_out_without_credentials_only() {
    let origin = ("access-control-allow-origin", "https://a.b");
    let vary = ("vary", "origin");
    let methods = |value| ("access-control-allow-methods", value);
    let names = |value| ("access-control-allow-headers", value);
    let exposed = ("access-control-expose-headers", "*");
    let trusted = ("access-control-allow-credentials", "true");
    for (name, credentials, requested, want) in [
        (
            "29 true",
            true,
            None,
            vec![origin, methods("PUT"), trusted, vary],
        ),
        (
            "29 true, headers",
            true,
            Some("x-1,x-2"),
            vec![origin, methods("PUT"), names("x-1,x-2"), trusted, vary],
        ),
        (
            "29 false",
            false,
            Some("x-1"),
            vec![origin, methods("*"), names("*"), exposed, vary],
        ),
    ] {
        let got = preflight(&anyone(credentials), "https://a.b", "PUT", requested);
        assert_eq!(got, CorsVerdict::Preflight(headers(&want)), "{name}");
    }
}

#[test]
fn preflights_of_others_are_refused_or_sent_on() {
    let with = |unmatched_preflights| Cors {
        unmatched_preflights,
        ..two_sites()
    };
    for (unmatched, want) in [
        (UnmatchedPreflights::Refuse, CorsVerdict::RefusedPreflight),
        (UnmatchedPreflights::Ignore, CorsVerdict::RefusedPreflight),
        (UnmatchedPreflights::Forward, CorsVerdict::Forward),
    ] {
        let got = preflight(&with(unmatched), "https://foobar.com", "GET", None);
        assert_eq!(got, want, "28 {unmatched:?}");
    }
    let null = preflight(&anyone(true), "null", "GET", None);
    assert_eq!(
        null,
        CorsVerdict::RefusedPreflight,
        "`*` is any well-formed origin"
    );
}

#[test]
fn all_else_goes_on() {
    let exposed = CorsVerdict::Expose(headers(&[
        ("access-control-allow-origin", "https://www.foo.com"),
        ("access-control-expose-headers", "x-a, x-b"),
        ("access-control-allow-credentials", "true"),
    ]));
    let foo = ("origin", "https://www.foo.com");
    let asks = ("access-control-request-method", "GET");
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a CorsVerdict);
    let rows: [Row<'_>; 6] = [
        ("28 GET from foo", "GET /", &[foo], &exposed),
        (
            "28 GET from foobar",
            "GET /",
            &[("origin", "https://foobar.com")],
            &CorsVerdict::Forward,
        ),
        ("no origin", "GET /", &[], &CorsVerdict::NotCors),
        (
            "no origin, OPTIONS",
            "OPTIONS /",
            &[asks],
            &CorsVerdict::NotCors,
        ),
        ("OPTIONS that asks nothing", "OPTIONS /", &[foo], &exposed),
        ("GET that asks", "GET /", &[foo, asks], &exposed),
    ];
    for (name, line, fields, want) in rows {
        assert_eq!(judge(&two_sites(), line, fields), *want, "{name}");
    }
}

#[test]
fn what_is_not_configured_is_not_said() {
    let silent = Cors {
        allow_methods: vec![],
        allow_headers: vec![],
        expose_headers: vec![],
        allow_credentials: false,
        max_age: None,
        ..two_sites()
    };
    let want = headers(&[
        ("access-control-allow-origin", "https://www.foo.com"),
        ("vary", "origin"),
    ]);
    let got = preflight(&silent, "https://www.foo.com", "GET", Some("x-1"));
    assert_eq!(got, CorsVerdict::Preflight(want));
}
