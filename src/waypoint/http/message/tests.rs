//! What of a message passes, as tables.

use super::*;
use http::Request;

fn parts(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_request_is_for_one_authority() {
    for (name, method, target, fields, want) in [
        ("host", "GET", "/", vec![("host", "echo")], Ok("echo")),
        (
            "with a port",
            "GET",
            "/",
            vec![("host", "echo:80")],
            Ok("echo:80"),
        ),
        (
            "absolute form wins",
            "GET",
            "http://a/",
            vec![("host", "b")],
            Ok("a"),
        ),
        ("none", "GET", "/", vec![], Err(400)),
        (
            "two",
            "GET",
            "/",
            vec![("host", "a"), ("host", "b")],
            Err(400),
        ),
        (
            "two of one",
            "GET",
            "/",
            vec![("host", "a"), ("host", "a")],
            Err(400),
        ),
        ("unreadable", "GET", "/", vec![("host", "a b")], Err(400)),
        ("empty", "GET", "/", vec![("host", "")], Err(400)),
        ("a user", "GET", "/", vec![("host", "a@b")], Err(400)),
        (
            "a user in absolute form",
            "GET",
            "http://a@b/",
            vec![],
            Err(400),
        ),
        (
            "authority form",
            "GET",
            "foo",
            vec![("host", "a")],
            Err(400),
        ),
        ("everything", "OPTIONS", "*", vec![("host", "a")], Ok("a")),
        ("everything else", "GET", "*", vec![("host", "a")], Err(400)),
        ("no path", "GET", "http://a", vec![("host", "a")], Ok("a")),
        (
            "CONNECT",
            "CONNECT",
            "a:80",
            vec![("host", "a:80")],
            Err(404),
        ),
    ] {
        let mut parts = parts(method, target, &fields);
        match (receive(&mut parts), want) {
            (Ok(authority), Ok(want)) => assert_eq!(authority.as_str(), want, "{name}"),
            (Err(reply), Err(want)) => assert_eq!(reply.status.as_u16(), want, "{name}"),
            (got, want) => panic!("{name}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn what_is_between_neighbours_stays_there() {
    for (name, fields, gone, kept) in [
        (
            "itself",
            vec![("connection", "close")],
            vec!["connection"],
            vec![],
        ),
        (
            "what it names",
            vec![
                ("connection", "X-Mine, keep-alive"),
                ("x-mine", "1"),
                ("x-yours", "1"),
            ],
            vec!["connection", "x-mine"],
            vec![("x-yours", "1")],
        ),
        (
            "but not the length",
            vec![
                ("connection", "content-length, host"),
                ("content-length", "0"),
            ],
            vec!["connection"],
            vec![("content-length", "0")],
        ),
        (
            "whether named or not",
            vec![
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "close"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("te", "gzip"),
            ],
            vec![
                "keep-alive",
                "proxy-connection",
                "transfer-encoding",
                "upgrade",
                "te",
            ],
            vec![],
        ),
        (
            "trailers",
            vec![("te", "gzip, Trailers")],
            vec![],
            vec![("te", "trailers")],
        ),
        (
            "what only a waypoint says",
            vec![
                ("x-forwarded-client-cert", "x"),
                ("x-envoy-retry-on", "5xx"),
                ("x-envoy-internal", "true"),
            ],
            vec![
                "x-forwarded-client-cert",
                "x-envoy-retry-on",
                "x-envoy-internal",
            ],
            vec![],
        ),
        (
            "what the client says of itself",
            vec![
                ("x-forwarded-for", "1.2.3.4"),
                ("x-request-id", "mine"),
                ("x-forwarded-proto", "https"),
            ],
            vec![],
            vec![
                ("x-forwarded-for", "1.2.3.4"),
                ("x-request-id", "mine"),
                ("x-forwarded-proto", "https"),
            ],
        ),
        (
            "what is missing",
            vec![],
            vec!["x-forwarded-for"],
            vec![("x-forwarded-proto", "http")],
        ),
    ] {
        let mut fields = fields;
        fields.push(("host", "echo"));
        let mut parts = parts("GET", "/", &fields);
        receive(&mut parts).unwrap();
        for field in gone {
            assert!(
                !parts.headers.contains_key(field),
                "{name}: {field} is gone"
            );
        }
        for (field, value) in kept {
            assert_eq!(parts.headers.get(field).unwrap(), value, "{name}: {field}");
        }
        assert!(!request_id(&parts.headers).is_empty(), "{name}: has an id");
    }
}

#[test]
fn only_websockets_are_upgraded() {
    for (name, fields, want) in [
        (
            "a WebSocket",
            vec![
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "WebSocket"),
            ],
            true,
        ),
        (
            "h2c",
            vec![("connection", "upgrade"), ("upgrade", "h2c")],
            false,
        ),
        ("not named", vec![("upgrade", "websocket")], false),
        ("nothing", vec![], false),
    ] {
        let parts = parts("GET", "/", &fields);
        assert_eq!(asks_for_websocket(&parts), want, "{name}");
    }
}

#[test]
fn each_version_has_its_target_in_its_own_form() {
    let authority = Authority::from_static("echo:80");
    for (name, target, version, uri, host) in [
        ("HTTP/1", "/a?b", Version::Http1, "/a?b", Some("echo:80")),
        (
            "absolute form",
            "http://x/a",
            Version::Http1,
            "/a",
            Some("echo:80"),
        ),
        ("HTTP/2", "/a?b", Version::Http2, "http://echo:80/a?b", None),
    ] {
        let mut parts = parts("GET", target, &[("host", "other")]);
        address(&mut parts, &authority, version, Length::None).unwrap();
        assert_eq!(parts.uri.to_string(), uri, "{name}");
        let got = parts.headers.get("host").map(|h| h.to_str().unwrap());
        assert_eq!(got, host, "{name}");
    }
}

#[test]
fn a_body_of_unknown_length_comes_in_chunks() {
    let (one, two) = (Version::Http1, Version::Http2);
    let sized = vec![("content-length", "3")];
    for (name, version, length, fields, want) in [
        ("no body", one, Length::None, vec![], false),
        ("a length", one, Length::Open, sized, false),
        ("none", one, Length::Open, vec![], true),
        ("HTTP/2", two, Length::Open, vec![], false),
    ] {
        let mut parts = parts("GET", "/", &fields);
        let authority = Authority::from_static("echo");
        address(&mut parts, &authority, version, length).unwrap();
        let chunked = parts.headers.contains_key("transfer-encoding");
        assert_eq!(chunked, want, "{name}");
    }
}

#[test]
fn an_answer_keeps_its_server() {
    let mut headers = HeaderMap::new();
    headers.insert("server", HeaderValue::from_static("app"));
    headers.insert("connection", HeaderValue::from_static("close"));
    headers.insert(
        "x-envoy-upstream-service-time",
        HeaderValue::from_static("9"),
    );
    answer(&mut headers, 3);
    assert_eq!(headers.get("server").unwrap(), "app");
    assert_eq!(headers.get("x-envoy-upstream-service-time").unwrap(), "3");
    assert!(!headers.contains_key("connection"));
}

#[test]
fn ids_are_random_uuids() {
    assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
