//! Messages of which two readers could find the end in two places, and requests in what one of them
//! takes for a body.

use super::{HOST, Row, Want};

/// What is smuggled: asked on its own it is denied.
const HIDDEN: &str = "GET /admin?r=ROWN HTTP/1.1\r\nHost: v1.example\r\nConnection: close\r\n\r\n";
/// What may be asked.
const PLAIN: &str = "GET /public?r=ROWN HTTP/1.1\r\nHost: v1.example\r\nConnection: close\r\n\r\n";

/// A POST of what anybody may ask, with these lines in its head, and what follows it.
fn post(lines: &str, rest: &str) -> Row {
    posted("HTTP/1.1", lines, rest)
}

fn posted(version: &str, lines: &str, rest: &str) -> Row {
    let head = format!("POST /public?r=ROWN {version}\r\nHost: {HOST}\r\n{lines}\r\n\r\n");
    let mut name = format!("{version} {lines:?} + {rest:?}");
    name.truncate(160);
    Row::new(name, head + rest)
}

/// A body in one chunk that is a request.
fn hidden_chunk() -> String {
    format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = two_ways();
    rows.extend(codings());
    rows.extend(lengths());
    rows.extend(chunks());
    rows.extend(bodies());
    rows.extend(upgrades());
    rows
}

/// A length and a coding.
fn two_ways() -> Vec<Row> {
    let ended = format!("0\r\n\r\n{HIDDEN}");
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", &*ended),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", &ended),
        (
            "Content-Length: 0\r\nTransfer-Encoding: chunked",
            &hidden_chunk(),
        ),
        (
            "Content-Length: 4\r\nTransfer-Encoding: chunked",
            &hidden_chunk(),
        ),
        ("Content-Length: 5\r\nTransfer-Encoding: identity", &ended),
        ("Content-Length: 5\r\nTransfer-Encoding: xchunked", &ended),
        ("Content-Length: 5\r\nTransfer-Encoding:", &ended),
    ]
    .map(|(lines, rest)| post(lines, rest).want(Want::Refused))
    .into()
}

/// One coding by many names.
fn codings() -> Vec<Row> {
    let refused = [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: a\r\n Transfer-Encoding: chunked",
        "X: a\nTransfer-Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding: chunked\x0c",
        "Transfer-Encoding: \u{a0}chunked",
    ];
    let refused = refused.map(|lines| post(lines, &hidden_chunk()).want(Want::Refused));
    let mut rows: Vec<Row> = refused.into();
    // As good as any, each by itself: the hidden request is what follows, and is asked for.
    for lines in [
        "transfer-encoding:chunked",
        "Transfer-Encoding: \tchunked \t",
        "TRANSFER-ENCODING: CHUNKED",
    ] {
        let followed = format!("0\r\n\r\n{HIDDEN}");
        rows.push(post(lines, &followed).want(Want::Served));
    }
    for lines in [
        "transfer_encoding: chunked",
        "Transfer-Encodin: chunked",
        "xTransfer-Encoding: chunked",
    ] {
        // Without a body there is a chunk where a request should be.
        rows.push(post(lines, &hidden_chunk()));
    }
    for version in ["HTTP/1.0", "HTTP/0.9", "HTTP/1.01"] {
        let row = posted(version, "Transfer-Encoding: chunked", &hidden_chunk());
        rows.push(row.want(Want::Refused));
    }
    rows
}

/// Lengths that are none, or two.
fn lengths() -> Vec<Row> {
    let refused = [
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5, 0",
        "Content-Length: 0, 0",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length:",
        "Content-Length: \"5\"",
        "Content-Length: 18446744073709551617",
        "Content-Length: 18446744073709551616000000000000000005",
        "Content-Length : 5",
        "Content-Length: 5\0",
        "Content-Length: \u{665}",
        "Content\0-Length: 5",
    ];
    refused
        .map(|lines| post(lines, HIDDEN).want(Want::Refused))
        .into()
}

/// Chunks that are none.
fn chunks() -> Vec<Row> {
    let broken = [
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a=\nb\r\nhello\r\n0\r\n\r\n",
        "5;a=\rb\r\nhello\r\n0\r\n\r\n",
        "5;\0\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a: b\n\r\n",
        "5\r\nhello\r\n0\r\n x-role: guest\r\n\r\n",
    ];
    let broken =
        broken.map(|chunks| post("Transfer-Encoding: chunked", &format!("{chunks}{HIDDEN}")));
    let mut rows: Vec<Row> = broken.map(|row| row.want(Want::Broken)).into();
    for trailers in [
        "x-role: guest",
        "Host: admin.example",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
    ] {
        let rest = format!("5\r\nhello\r\n0\r\n{trailers}\r\n\r\n{HIDDEN}");
        rows.push(post("Transfer-Encoding: chunked\r\nTrailer: x-role", &rest));
    }
    let extended = format!("5;a=b;c=\"d\"\r\nhello\r\n000\r\n\r\n{HIDDEN}");
    rows.push(post("Transfer-Encoding: chunked", &extended));
    let endless = format!("5;{}\r\nhello\r\n0\r\n\r\n{HIDDEN}", "a".repeat(70 << 10));
    rows.push(post("Transfer-Encoding: chunked", &endless).want(Want::Broken));
    rows
}

/// Requests in bodies, and requests that follow others.
fn bodies() -> Vec<Row> {
    let length = format!("Content-Length: {}", HIDDEN.len());
    let denied = |more: &str| {
        format!("POST /admin?r=ROWN HTTP/1.1\r\nHost: {HOST}\r\n{length}{more}\r\n\r\n{HIDDEN}")
    };
    let get = format!("GET /public?r=ROWN HTTP/1.1\r\nHost: {HOST}\r\n");
    vec![
        post(&format!("{length}\r\nConnection: close"), HIDDEN).want(Want::Served),
        post("Content-Length: 0", HIDDEN).want(Want::Served),
        post("", HIDDEN).want(Want::Served),
        Row::new(
            "a body of a GET",
            format!("{get}{length}\r\n\r\n{HIDDEN}{PLAIN}"),
        ),
        Row::new("a denied body", denied("")).want(Want::Refused),
        Row::new("a denied body, followed", denied("") + PLAIN).want(Want::Served),
        Row::new(
            "a denied body that is to be asked for",
            denied("\r\nExpect: 100-continue"),
        )
        .want(Want::Refused),
        Row::new("an odd expectation", denied("\r\nExpect: 200-ok")).want(Want::Refused),
        Row::new("one after the other", format!("{get}\r\n{HIDDEN}")).want(Want::Served),
        Row::new("behind empty lines", format!("\r\n\r\n{HIDDEN}")).want(Want::Refused),
        Row::new("old and alone", "GET /admin?r=ROWN\r\n\r\n").want(Want::Refused),
        Row::new("old and kept alive", {
            let old = format!(
                "GET /public?r=ROWN HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n"
            );
            old + HIDDEN
        })
        .want(Want::Served),
        Row::new("a head that is not ended", format!("{get}X: {HIDDEN}")).want(Want::Refused),
        Row::new("line feeds alone", HIDDEN.replace("\r\n", "\n")).want(Want::Refused),
        Row::new("carriage returns alone", HIDDEN.replace("\r\n", "\r")).want(Want::Refused),
        Row::new("TLS", "\x16\x03\x01\0\x05hello"),
    ]
}

/// What is said before anybody has agreed to another protocol.
fn upgrades() -> Vec<Row> {
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let upgrading = |target: &str, lines: &str, rest: &str| {
        let head = format!("GET {target}?r=ROWN HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n\r\n");
        let mut name = format!("{target} {lines:?} + {rest:?}");
        name.truncate(160);
        Row::new(name, head + rest)
    };
    vec![
        upgrading("/admin", websocket, "").want(Want::Refused),
        upgrading("/x/../admin", websocket, "").want(Want::Refused),
        upgrading("/admin", websocket, HIDDEN).want(Want::Refused),
        upgrading("/admin", websocket, PLAIN),
        // What follows is frames, or what the server makes of them; never a request.
        upgrading("/public", websocket, HIDDEN).want(Want::Served),
        upgrading("/public", "Connection: Upgrade\r\nUpgrade: other", HIDDEN).want(Want::Served),
        upgrading("/public", "Upgrade: websocket", HIDDEN).want(Want::Served),
        upgrading(
            "/public",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        )
        .want(Want::Served),
        upgrading("/admin", "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk", HIDDEN)
            .want(Want::Refused),
        upgrading("/admin", "Connection: Upgrade\r\nUpgrade: TLS/1.3", HIDDEN).want(Want::Refused),
        upgrading(
            "/public",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5",
            HIDDEN,
        ),
    ]
}
