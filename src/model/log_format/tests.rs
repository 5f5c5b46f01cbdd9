use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::model::telemetry::{Request, Response, Upstream};

/// A request with this user agent, answered by an endpoint.
fn answered(agent: &[u8], judge: impl FnOnce(&Facts<'_>)) {
    let mut asked = HeaderMap::new();
    asked.insert("x-forwarded-for", "10.0.0.9".parse().unwrap());
    asked.insert("x-request-id", "id-1".parse().unwrap());
    let agent = HeaderValue::from_bytes(agent).unwrap();
    asked.insert("user-agent", agent);
    let mut told = HeaderMap::new();
    told.insert("x-envoy-upstream-service-time", "7".parse().unwrap());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "5".parse().unwrap());
    judge(&Facts {
        started: UNIX_EPOCH + Duration::from_millis(951_782_400_123),
        took: Duration::from_micros(9_876),
        peer: Some("spiffe://cluster.local/ns/shop/sa/web"),
        request: Some(Request {
            method: "GET",
            target: "/cart?x=1",
            authority: "echo",
            scheme: "http",
            protocol: "HTTP/1.1",
            headers: &asked,
            head: 0,
        }),
        response: Some(Response {
            code: 200,
            grpc_status: None,
            headers: &told,
            trailers: Some(&trailers),
            head: 0,
        }),
        details: Some("via_upstream"),
        route: Some("shop.echo.0"),
        upstream: Some(Upstream {
            address: Some("10.1.0.11:8080".parse().unwrap()),
            local: None,
            cluster: Some("outbound|80||echo.shop.mesh.internal"),
            failure: None,
        }),
        received: 3,
        sent: 4,
        ..Facts::of_connection(
            "10.1.0.1:4711".parse().unwrap(),
            "10.96.0.20:80".parse().unwrap(),
        )
    });
}

fn written(layout: &Layout, agent: &str) -> String {
    let mut line = String::new();
    answered(agent.as_bytes(), |facts| layout.write(facts, &mut line));
    line
}

fn layout(format: LogFormat) -> Layout {
    Layout {
        format,
        omit_empty: false,
    }
}

#[test]
fn istios_formats_are_istios_to_the_letter() {
    let text = written(&layout(LogFormat::text()), "curl/8");
    assert_eq!(
        text,
        "[2000-02-29T00:00:00.123Z] \"GET /cart?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 3 4 9 7 \
         \"10.0.0.9\" \"curl/8\" \"id-1\" \"echo\" \"10.1.0.11:8080\" \
         outbound|80||echo.shop.mesh.internal - 10.96.0.20:80 10.1.0.1:4711 - shop.echo.0\n"
    );
    let json = written(&layout(LogFormat::json()), "curl/8");
    assert_eq!(
        json,
        "{\"start_time\":\"2000-02-29T00:00:00.123Z\",\"route_name\":\"shop.echo.0\",\
         \"method\":\"GET\",\"path\":\"/cart?x=1\",\"protocol\":\"HTTP/1.1\",\
         \"response_code\":200,\"response_flags\":null,\"response_code_details\":\"via_upstream\",\
         \"connection_termination_details\":null,\"bytes_received\":3,\"bytes_sent\":4,\
         \"duration\":9,\"upstream_service_time\":\"7\",\"x_forwarded_for\":\"10.0.0.9\",\
         \"user_agent\":\"curl/8\",\"request_id\":\"id-1\",\"authority\":\"echo\",\
         \"upstream_host\":\"10.1.0.11:8080\",\
         \"upstream_cluster\":\"outbound|80||echo.shop.mesh.internal\",\
         \"upstream_local_address\":null,\"downstream_local_address\":\"10.96.0.20:80\",\
         \"downstream_remote_address\":\"10.1.0.1:4711\",\"requested_server_name\":null,\
         \"upstream_transport_failure_reason\":null}\n"
    );
}

#[test]
fn an_operator_says_what_it_is_asked_for() {
    for (text, want) in [
        ("plain", "plain"),
        ("100%% %PROTOCOL%", "100% HTTP/1.1"),
        (
            "%START_TIME(%F %T.%6f%z)%",
            "2000-02-29 00:00:00.123000+0000",
        ),
        ("%START_TIME(%s)%", "951782400"),
        ("%REQ(user-agent):4%", "curl"),
        ("%REQ(user-agent):400%", "curl/8"),
        ("%REQ(X-None?:SCHEME)%", "http"),
        ("%REQ(x-none)%", "-"),
        ("%RESP(:STATUS)%", "200"),
        ("%RESP(x-none?x-other)%", "-"),
        ("%TRAILER(grpc-status)%", "5"),
        (
            "%DOWNSTREAM_PEER_URI_SAN%",
            "spiffe://cluster.local/ns/shop/sa/web",
        ),
        ("%CEL(request.path.startsWith('/c') ? 'a)b' : '%')%", "a)b"),
        ("%CEL(request.referer)%", "-"),
        ("%CEL(response.code + 1):2%!", "20!"),
        ("%UPSTREAM_HOST%%ROUTE_NAME%", "10.1.0.11:8080shop.echo.0"),
    ] {
        let format = TextFormat::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let line = written(&layout(LogFormat::Text(format)), "curl/8");
        assert_eq!(line, format!("{want}\n"), "{text}");
    }
}

#[test]
fn what_is_no_format_is_refused_by_name() {
    for (text, want) in [
        ("a % b", "at character 3"),
        ("é%PROTOCOL", "at character 2"),
        ("%REQ(a", "at character 1"),
        ("%BYTES%", "`%BYTES%` is no operator"),
        ("%PROTOCOL(a)%", "`%PROTOCOL(a)%` is no operator"),
        ("%protocol%", "`%protocol%` is no operator"),
        ("%REQ%", "`%REQ%` is not written so"),
        ("%REQ(a b)%", "`%REQ(a b)%` is not written so"),
        ("%REQ(a):99999999999999999999%", "is not written so"),
        ("%START_TIME(%Q)%", "`%Q` is no part of a time"),
        ("%START_TIME(%3)%", "`%3` is no part of a time"),
        ("%CEL(respons.code)%", "nothing is called `respons`"),
    ] {
        let fault = TextFormat::parse(text).expect_err(text).to_string();
        assert!(fault.contains(want), "{text}: {fault}");
    }
}

#[test]
fn what_is_absent_can_be_left_out() {
    let omitting = |format| Layout {
        format,
        omit_empty: true,
    };
    let text = TextFormat::parse("%REQ(x-none)%|%PROTOCOL%").unwrap();
    let line = written(&omitting(LogFormat::Text(text.clone())), "a");
    assert_eq!(line, "|HTTP/1.1\n");
    let json = LogFormat::Json(vec![
        (Arc::from("a"), TextFormat::parse("%REQ(x-none)%").unwrap()),
        (Arc::from("b"), text),
        (Arc::from("c"), TextFormat::parse("%BYTES_SENT%").unwrap()),
    ]);
    let line = written(&omitting(json), "a");
    assert_eq!(line, "{\"b\":\"-|HTTP/1.1\",\"c\":4}\n");
}

#[test]
fn a_client_writes_no_line_of_its_own() {
    let text = layout(LogFormat::Text(
        TextFormat::parse("\"%REQ(user-agent)%\"").unwrap(),
    ));
    for (name, agent, want) in [
        ("quotes", "a\" 200 \"b", r#""a\" 200 \"b""#),
        ("backslashes", r"a\", r#""a\\""#),
        ("a tab", "a\tb", r#""a\tb""#),
        ("C1 controls", "a\u{85}\u{9b}31m", r#""a\u{85}\u{9b}31m""#),
        ("Unicode's line ends", "a\u{2028}b", r#""a\u{2028}b""#),
        ("a turn of direction", "a\u{202e}b", r#""a\u{202e}b""#),
        ("letters", "né 無", "\"né 無\""),
    ] {
        assert_eq!(written(&text, agent), format!("{want}\n"), "{name}");
    }
}

proptest! {
    #[test]
    fn a_record_is_one_line_whatever_a_client_sends(agent in prop::collection::vec(octet(), 0..40)) {
        for layout in [layout(LogFormat::text()), layout(LogFormat::json())] {
            let mut line = String::new();
            answered(&agent, |facts| layout.write(facts, &mut line));
            prop_assert_eq!(line.find(is_line_end), Some(line.len() - 1));
            if let LogFormat::Json(_) = layout.format {
                let read: serde_json::Value = serde_json::from_str(&line).unwrap();
                let text = String::from_utf8_lossy(&agent).into_owned();
                prop_assert_eq!(read.get("user_agent").and_then(|v| v.as_str()), Some(&*text));
            }
        }
    }

    #[test]
    fn no_text_is_the_end_of_the_reader(text in "\\PC{0,40}|(%|\\(|\\)|REQ|CEL|START_TIME|:|[0-9]|[a-z]){0,12}") {
        if let Ok(format) = TextFormat::parse(&text) {
            prop_assert_eq!(format.source(), text);
        }
    }
}

/// What a header can hold; others never get here.
fn octet() -> impl Strategy<Value = u8> {
    any::<u8>().prop_filter("no header holds it", |octet| {
        HeaderValue::from_bytes(&[*octet]).is_ok()
    })
}

fn is_line_end(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}
