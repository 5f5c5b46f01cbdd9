use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::model::telemetry::{Request, Response, Upstream};

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &'static str)| {
        (name.parse().unwrap(), value.parse().unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        let name: http::HeaderName = name;
        headers.append(name, value);
    }
    headers
}

/// A request that was answered with a 404.
fn answered(asked: &HeaderMap, told: &HeaderMap, judge: impl FnOnce(&Facts<'_>)) {
    let facts = Facts {
        started: UNIX_EPOCH + Duration::from_secs(951_782_400),
        took: Duration::from_millis(1500),
        peer: Some("spiffe://cluster.local/ns/shop/sa/web"),
        request: Some(Request {
            method: "GET",
            target: "/cart/7?full=1",
            authority: "cart.shop",
            scheme: "http",
            protocol: "HTTP/1.1",
            headers: asked,
            head: 100,
        }),
        response: Some(Response {
            code: 404,
            grpc_status: None,
            headers: told,
            trailers: None,
            head: 50,
        }),
        flags: "UF,URX",
        upstream: Some(Upstream {
            address: Some("10.1.0.11:8080".parse().unwrap()),
            local: None,
            cluster: None,
            failure: None,
        }),
        received: 10,
        sent: 20,
        ..Facts::of_connection(
            "10.1.0.1:4711".parse().unwrap(),
            "10.96.0.20:80".parse().unwrap(),
        )
    };
    judge(&facts);
}

#[test]
fn an_expression_comes_to_what_the_language_says() {
    let asked = headers(&[
        ("user-agent", "curl/8"),
        ("x-tags", "a"),
        ("x-tags", "b"),
        ("x-request-id", "id-1"),
    ]);
    let told = headers(&[("content-type", "text/plain")]);
    answered(&asked, &told, |facts| {
        for (text, want) in [
            // Attributes.
            ("request.path", Ok("/cart/7?full=1")),
            ("request.url_path", Ok("/cart/7")),
            ("request.query", Ok("full=1")),
            ("request.host", Ok("cart.shop")),
            ("request['method']", Ok("GET")),
            ("request.useragent", Ok("curl/8")),
            ("request.id", Ok("id-1")),
            ("request.time", Ok("2000-02-29T00:00:00.000Z")),
            ("request.duration", Ok("1.5s")),
            ("request.total_size", Ok("110")),
            ("request.headers['X-Tags']", Ok("a,b")),
            ("request.headers[':method']", Ok("GET")),
            ("request.referer", Err(Failure::Absent)),
            ("response.code", Ok("404")),
            ("response.headers['content-type']", Ok("text/plain")),
            ("response.trailers['a']", Err(Failure::Absent)),
            ("response.grpc_status", Err(Failure::Absent)),
            ("response.flags == 32800 + 0", Ok("true")),
            ("response.total_size", Ok("70")),
            ("source.address", Ok("10.1.0.1:4711")),
            ("destination.port", Ok("80")),
            ("upstream.port", Ok("8080")),
            ("connection.mtls", Ok("true")),
            ("connection.requested_server_name", Err(Failure::Absent)),
            ("metadata['a']", Err(Failure::Absent)),
            // Operators, and what binds stronger.
            ("1 + 2 * 3", Ok("7")),
            ("(1 + 2) * 3", Ok("9")),
            ("7 / 2", Ok("3")),
            ("7 % -4", Ok("3")),
            ("10 - 3 - 2", Ok("5")),
            ("-2.5 * 2", Ok("-5")),
            ("1 / 0", Err(Failure::Number)),
            ("9223372036854775807 + 1", Err(Failure::Number)),
            ("'a' + \"b\"", Ok("ab")),
            ("'a' + 1", Err(Failure::Kind("string"))),
            ("1 == 1.0", Ok("true")),
            ("1 == 'a'", Ok("false")),
            ("1 < 'a'", Err(Failure::Kind("int"))),
            ("'a' <= 'b' && 2 >= 2", Ok("true")),
            ("!true || false", Ok("false")),
            ("true ? 1 : 2", Ok("1")),
            ("false ? 1 : true ? 2 : 3", Ok("2")),
            ("1 ? 2 : 3", Err(Failure::Kind("int"))),
            ("2 in [1, 2]", Ok("true")),
            ("'x-tags' in request.headers", Ok("true")),
            ("[1, 2, 3][1]", Ok("2")),
            ("[1][1]", Err(Failure::Absent)),
            ("null == null", Ok("true")),
            // What decides is enough.
            ("false && request.referer == ''", Ok("false")),
            ("request.referer == '' && false", Ok("false")),
            ("request.referer == '' || true", Ok("true")),
            ("request.referer == '' || false", Err(Failure::Absent)),
            ("request.referer == '' && true", Err(Failure::Absent)),
            // Functions.
            ("has(request.headers.cookie)", Ok("false")),
            ("has(request.headers['user-agent'])", Ok("true")),
            ("has(request.referer)", Ok("false")),
            ("has(metadata.a)", Ok("false")),
            ("request.path.startsWith('/cart')", Ok("true")),
            ("request.path.endsWith('x')", Ok("false")),
            ("request.path.contains('7?')", Ok("true")),
            ("request.path.matches('^/[a-z]+/[0-9]')", Ok("true")),
            ("matches(request.path, 'ar')", Ok("true")),
            (r#"r'\d' == "\\d""#, Ok("true")),
            ("size('né') + 'abc'.size()", Ok("5")),
            ("size(request.headers)", Ok("3")),
            ("int('12') + int(2.9)", Ok("14")),
            ("double(1) / 2", Ok("0.5")),
            ("string(404) + 's'", Ok("404s")),
            ("request.duration > duration('1s')", Ok("true")),
            (
                "request.time < timestamp('2026-01-01T00:00:00Z')",
                Ok("true"),
            ),
            ("duration('x')", Err(Failure::Number)),
        ] {
            let expression = Expression::parse(text);
            let expression = expression.unwrap_or_else(|e| panic!("{text}: {e}"));
            let got = expression.evaluate(facts).map(|value| value.to_string());
            assert_eq!(got, want.map(str::to_owned), "{text}");
        }
    });
}

#[test]
fn what_is_no_expression_is_refused_where_it_is_wrong() {
    let deep = format!("{}1{}", "(".repeat(40), ")".repeat(40));
    let long = format!("'{}'", "x".repeat(LENGTH));
    let wide = format!("1{}", " + 1".repeat(40));
    let nots = format!("{}true", "!".repeat(40));
    let dots = format!("request.headers{}", ".a".repeat(40));
    for (text, at, want) in [
        ("", 0, "expected a value, found the end"),
        ("response.code >=", 16, "expected a value, found the end"),
        ("response.code = 4", 14, "`=` means nothing here"),
        ("response.cod", 0, "did you mean `response.code`?"),
        ("response.elephants", 0, "there are response.code"),
        ("respons.code", 0, "nothing is called `respons`"),
        ("response", 8, "expected an attribute of `response`"),
        ("request.path.trim()", 12, "there is no `.trim()`"),
        ("lower(request.path)", 0, "there is no `lower()`"),
        ("has(1)", 4, "`has` asks for one thing"),
        ("'a' 'b'", 4, "expected the end, found a text"),
        ("'a", 0, "this text has no end"),
        (r"'\q'", 1, "stands for nothing"),
        ("1x", 1, "a number ends here"),
        ("99999999999999999999", 0, "too large a number"),
        ("'é' ? 1", 7, "expected `:`"),
        ("request.path.matches('(')", 21, "no regular expression"),
        ("request.path.matches(request.host)", 21, "a quoted text"),
        ("(1", 2, "expected `)`, found the end"),
        ("[1 2]", 3, "expected `]`, found `2`"),
        (&deep, 32, "nested deeper than 32"),
        (&nots, 32, "nested deeper than 32"),
        (&wide, 128, "more than 32 operators"),
        (&dots, 77, "nested deeper than 32"),
        (&long, LENGTH, "longer than 4096"),
    ] {
        let fault = Expression::parse(text).expect_err(text);
        assert!(fault.message.contains(want), "{text}: {fault}");
        assert_eq!(fault.at, at, "{text}: {fault}");
    }
}

#[test]
fn only_what_is_true_holds() {
    let none = HeaderMap::new();
    answered(&none, &none, |facts| {
        for (text, want) in [
            ("response.code >= 400", true),
            ("response.code < 400", false),
            ("response.code", false),
            ("request.referer != ''", false),
        ] {
            assert_eq!(
                Expression::parse(text).unwrap().holds(facts),
                want,
                "{text}"
            );
        }
    });
}

/// Texts that are expressions more often than not.
fn texts() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "1",
        "0",
        "-9223372036854775807",
        "2.5",
        "'é\\n'",
        "r'\\'",
        "true",
        "null",
        "request.path",
        "request.headers",
        "request.referer",
        "response.code",
        "request.duration",
        "request.time",
        "metadata",
        "duration('1h')",
        "timestamp('2026-01-01T00:00:00Z')",
    ]);
    let leaf = leaf.prop_map(str::to_owned);
    leaf.prop_recursive(5, 64, 3, |inner| {
        let sign = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", " in ", "?", ".",
        ]);
        let call = prop::sample::select(vec![
            "has",
            "size",
            "int",
            "double",
            "string",
            "duration",
            "timestamp",
            "!",
            "-",
            "matches",
        ]);
        prop_oneof![
            (inner.clone(), sign, inner.clone()).prop_map(|(a, sign, b)| format!("{a}{sign}{b}")),
            (call, inner.clone()).prop_map(|(call, of)| format!("{call}({of})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}).contains({b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a}) ? [{b}] : ({c})")),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_is_the_end_of_the_reader(text in "\\PC{0,64}|[ -~]{0,64}") {
        if let Err(fault) = Expression::parse(&text) {
            prop_assert!(fault.at <= text.chars().count());
        }
    }

    #[test]
    fn no_expression_is_the_end_of_the_evaluation(text in texts()) {
        let none = HeaderMap::new();
        if let Ok(expression) = Expression::parse(&text) {
            answered(&none, &none, |facts| {
                let _any = expression.evaluate(facts).map(|value| value.to_string());
            });
        }
    }
}
