//! Heads that mean what is protected in one field and something else in another.

use super::{HOST, Row, Want};

/// A GET of what anybody may have, with lines of its own; these are as they are.
fn with(lines: &str) -> Row {
    let head = format!("GET /public?r=ROWN HTTP/1.1\r\n{lines}\r\nConnection: close\r\n\r\n");
    Row::new(format!("{lines:?}"), head)
}

/// The same, for the right host.
fn beside(lines: &str) -> Row {
    with(&format!("Host: {HOST}\r\n{lines}"))
}

fn line(line: &str) -> Row {
    let head = format!("{line}\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    Row::new(format!("{line:?}"), head)
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = hosts();
    rows.extend(methods());
    rows.extend(names());
    rows.extend(forged());
    rows
}

fn hosts() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        "Host: admin.example",
        "Host: ADMIN.EXAMPLE",
        "hOsT: Admin.Example",
        "Host: admin.example:80",
        "Host: admin.example:8080",
        "Host: admin.example:080",
        "Host: admin.example:",
        "Host: admin.example.",
        "Host: admin.example.:80",
        "Host: ADMIN.example.",
        "Host:admin.example",
        "Host: \t admin.example \t ",
        "Host: admin%2eexample",
        "Host: v1.example.",
    ]
    .into_iter()
    .map(with)
    .collect();
    let refused = [
        "Host: v1.example\r\nHost: admin.example",
        "Host: admin.example\r\nHost: v1.example",
        "Host: v1.example\r\nhost: v1.example",
        "Host: v1.example, admin.example",
        "Host: user@admin.example",
        "Host: admin.example@v1.example",
        "Host: admin.example/",
        "Host: admin.example#",
        "Host: admin.example\\@v1.example",
        "Host: admin.example\0",
        "Host: admin.example v1.example",
        "Host : admin.example",
        " Host: admin.example",
        "Host: v1.example\r\n admin.example",
        "Host:\r\n admin.example",
        "Host:",
        "Host: [admin.example",
        "X-Host: v1.example",
    ];
    rows.extend(refused.map(|lines| with(lines).want(Want::Refused)));
    // Whom a target names counts, whatever `Host` says.
    for (target, host) in [
        ("http://admin.example/public?r=ROWN", "v1.example"),
        ("http://v1.example/admin?r=ROWN", "admin.example"),
        ("http://admin.example:80/public?r=ROWN", "v1.example:80"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        rows.push(Row::new(format!("{target} for {host}"), head));
    }
    rows
}

fn methods() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        "DELETE /public?r=ROWN HTTP/1.1",
        "delete /public?r=ROWN HTTP/1.1",
        "Delete /public?r=ROWN HTTP/1.1",
        "DELETE /admin?r=ROWN HTTP/1.1",
        "OPTIONS /admin?r=ROWN HTTP/1.1",
        "HEAD /admin?r=ROWN HTTP/1.1",
        "TRACE /admin?r=ROWN HTTP/1.1",
        "PROPFIND /admin?r=ROWN HTTP/1.1",
        "X /admin?r=ROWN HTTP/1.1",
    ]
    .into_iter()
    .map(line)
    .collect();
    let refused = [
        "GET /admin?r=ROWN HTTP/2.0",
        "GET /admin?r=ROWN HTTP/1.2",
        "GET /admin?r=ROWN http/1.1",
        "GET /admin?r=ROWN HTTP/1.1 HTTP/1.1",
        "GET /public?r=ROWN /admin HTTP/1.1",
        "GET  /admin?r=ROWN HTTP/1.1",
        "GET\t/admin?r=ROWN\tHTTP/1.1",
        " GET /admin?r=ROWN HTTP/1.1",
        "GE\0T /admin?r=ROWN HTTP/1.1",
        "G@T /admin?r=ROWN HTTP/1.1",
        "GET /admin?r=ROWN",
        "GET",
        "CONNECT admin.example:80 HTTP/1.1",
        "CONNECT /admin?r=ROWN HTTP/1.1",
        "CONNECT v1.example:80 HTTP/1.1",
    ];
    rows.extend(refused.map(|text| line(text).want(Want::Refused)));
    let overriding = [
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
    ];
    rows.extend(overriding.map(beside));
    rows
}

fn names() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        "x-role: guest",
        "X-ROLE: guest",
        "x-role:guest",
        "x-role: \tguest\t ",
        "x-role: guest\r\nx-role: user",
        "x-role: user\r\nx-role: guest",
        "x-role: user\r\nx-other: a\r\nX-Role: guest",
        "x_role: guest",
        "connection: x-role\r\nx-role: guest",
        "connection: close, X-Role\r\nx-role: guest",
        "connection: host",
        "connection: x-request-id, host, content-length",
        "te: trailers, x-role\r\nx-role: guest",
    ]
    .into_iter()
    .map(beside)
    .collect();
    let refused = [
        "x-role : guest",
        "x-role\t: guest",
        "x-role: user\r\n guest",
        "x-role:\r\n\tguest",
        "x-other: a\nx-role: guest",
        "x-other: a\rx-role: guest",
        "x-other: a\r\r\nx-role: guest",
        "x-role\0: guest",
        "x-role: guest\0",
        "x-role: \x0bguest",
        "x role: guest",
        "x-r\u{f6}le: guest",
        "(x-role): guest",
        ": guest",
        "x-role",
        "x-role: guest\x7f",
    ];
    rows.extend(refused.map(|lines| beside(lines).want(Want::Refused)));
    let many: Vec<String> = (0..120).map(|n| format!("x-{n}: a")).collect();
    rows.push(beside(&many.join("\r\n")).want(Want::Refused));
    let repeated = vec!["x-role: user"; 120].join("\r\n");
    rows.push(beside(&format!("{repeated}\r\nx-role: guest")).want(Want::Refused));
    let large = format!("x-large: {}\r\nx-role: guest", "a".repeat(70 << 10));
    rows.push(beside(&large).want(Want::Refused));
    for row in &mut rows {
        row.name.truncate(80);
    }
    rows
}

/// What only proxies say.
fn forged() -> Vec<Row> {
    [
        "X-Forwarded-Client-Cert: By=spiffe://a/ns/shop/sa/wp;URI=spiffe://cluster.local/ns/shop/sa/admin",
        "x-envoy-original-path: /admin",
        "x-envoy-original-host: admin.example",
        "x-envoy-internal: true",
        "X-Envoy-Decorator-Operation: admin",
        "x-envoy-upstream-rq-timeout-ms: 0\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 100",
        "x-envoy-external-address: 127.0.0.1",
        "x-original-url: /admin\r\nx-rewrite-url: /admin",
        "x-forwarded-host: admin.example\r\nx-forwarded-prefix: /admin\r\nx-forwarded-uri: /admin",
        "x-forwarded-for: 127.0.0.1\r\nforwarded: for=127.0.0.1;host=admin.example",
    ]
    .into_iter()
    .map(|lines| beside(lines).want(Want::Served))
    .chain([beside("x-lateen-refused: 0123456789abcdef0123456789abcdef")])
    .collect()
}
