//! Which fields reach an application and its client (`spec/waypoint-l7.md` §1.6).

use super::raw::{Program, exchange};
use crate::waypoint::testing::Rig;
use crate::waypoint::testing::told::told;

/// Lines of `message` that are of field `name`, as they are written.
fn fields<'a>(message: &'a str, name: &str) -> Vec<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").skip(1);
    let of_name = |line: &&str| line.split(':').next() == Some(name);
    lines.filter(of_name).collect()
}

#[tokio::test]
async fn what_an_application_is_told() {
    let mut rig = Rig::new().await;
    let mut program = Program::new(&mut rig, super::raw::OK).await;
    rig.publish().await;
    for (name, given, field, want) in [
        ("host", "", "host", &["host: cart:80"][..]),
        (
            "an id of the client's",
            "X-Request-Id: mine",
            "x-request-id",
            &["x-request-id: mine"],
        ),
        ("no forwarding of ours", "", "x-forwarded-for", &[]),
        (
            "the client's stays as it is",
            "X-Forwarded-For: 1.2.3.4, 5.6.7.8",
            "x-forwarded-for",
            &["x-forwarded-for: 1.2.3.4, 5.6.7.8"],
        ),
        (
            "the scheme",
            "",
            "x-forwarded-proto",
            &["x-forwarded-proto: http"],
        ),
        (
            "a scheme that was there",
            "x-forwarded-proto: https",
            "x-forwarded-proto",
            &["x-forwarded-proto: https"],
        ),
        ("no host of ours", "", "x-forwarded-host", &[]),
        ("no port of ours", "", "x-forwarded-port", &[]),
        ("no count of attempts", "", "x-envoy-attempt-count", &[]),
        (
            "control of retries",
            "x-envoy-retry-on: 5xx",
            "x-envoy-retry-on",
            &[],
        ),
        (
            "control of attempts",
            "x-envoy-max-retries: 9",
            "x-envoy-max-retries",
            &[],
        ),
        (
            "control of time",
            "x-envoy-upstream-rq-timeout-ms: 1",
            "x-envoy-upstream-rq-timeout-ms",
            &[],
        ),
        (
            "what is inside",
            "x-envoy-internal: true",
            "x-envoy-internal",
            &[],
        ),
        (
            "a path of the client's",
            "x-envoy-original-path: /",
            "x-envoy-original-path",
            &[],
        ),
        (
            "who the client is",
            "x-forwarded-client-cert: URI=x",
            "x-forwarded-client-cert",
            &[],
        ),
        ("trailers", "te: trailers, gzip", "te", &["te: trailers"]),
        ("a coding", "te: gzip", "te", &[]),
        ("keep-alive", "keep-alive: timeout=9", "keep-alive", &[]),
        (
            "a proxy's",
            "proxy-connection: keep-alive",
            "proxy-connection",
            &[],
        ),
        ("an upgrade", "upgrade: h2c", "upgrade", &[]),
        ("what is named", "x-mine: 1", "x-mine", &[]),
        ("upper case", "X-Other: A", "x-other", &["x-other: A"]),
        (
            "several, in order",
            "x-a: 2\r\nx-a: 1",
            "x-a",
            &["x-a: 2", "x-a: 1"],
        ),
    ] {
        let close = "connection: close, x-mine, upgrade";
        let given = if given.is_empty() { "x-none: 1" } else { given };
        let request = format!("GET / HTTP/1.1\r\nhost: cart:80\r\n{close}\r\n{given}\r\n\r\n");
        exchange(&rig, 80, request.as_bytes()).await;
        let seen = program.next().await;
        assert_eq!(fields(&seen, field), want, "{name}: {seen}");
        assert!(fields(&seen, "connection").is_empty(), "{name}: {seen}");
        let id = fields(&seen, "x-request-id").concat();
        assert!(
            id.len() == "x-request-id: ".len() + 36 || id.ends_with("mine"),
            "{name}: {seen}"
        );
    }
}

#[tokio::test]
async fn what_a_client_is_told() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nServer: app/1\r\nX-Envoy-Retry-On: 5xx\r\n\
        x-envoy-upstream-service-time: 99999\r\nkeep-alive: timeout=9\r\nconnection: x-mine\r\nx-mine: 1\r\n\
        upgrade: h2c\r\nX-Yours: 1\r\nset-cookie: b\r\nset-cookie: a\r\ncontent-length: 2\r\n\r\nok";
    let mut rig = Rig::new().await;
    let _program = Program::new(&mut rig, ANSWER).await;
    rig.publish().await;
    let request = b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
    let answer = exchange(&rig, 80, request).await;
    for (name, field, want) in [
        ("its server", "server", &["server: app/1"][..]),
        ("control", "x-envoy-retry-on", &[]),
        ("keep-alive", "keep-alive", &[]),
        ("what is named", "x-mine", &[]),
        ("an upgrade", "upgrade", &[]),
        ("no id", "x-request-id", &[]),
        ("lower case", "x-yours", &["x-yours: 1"]),
        (
            "several, in order",
            "set-cookie",
            &["set-cookie: b", "set-cookie: a"],
        ),
        ("the length", "content-length", &["content-length: 2"]),
    ] {
        assert_eq!(fields(&answer, field), want, "{name}: {answer}");
    }
    let time = fields(&answer, "x-envoy-upstream-service-time");
    let millis = time[0].split(": ").nth(1).unwrap();
    assert!(
        time.len() == 1 && millis.parse::<u32>().unwrap() < 99_999,
        "{answer}"
    );
}

#[tokio::test]
async fn an_application_is_told_of_identities_where_that_is_asked_for() {
    let request =
        b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\nx-forwarded-client-cert: x\r\n\r\n";
    let ours = "x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/wp-1;URI=spiffe://cluster.local/ns/shop/sa/web";
    for (resources, want) in [
        (None, vec![]),
        (Some(told()), vec![]),
        (Some(told().telling()), vec![ours]),
    ] {
        let mut rig = Rig::new().await;
        rig.resources = resources;
        let mut program = Program::new(&mut rig, super::raw::OK).await;
        rig.publish().await;
        exchange(&rig, 80, request).await;
        let seen = program.next().await;
        assert_eq!(fields(&seen, "x-forwarded-client-cert"), want, "{seen}");
    }
}
