//! The same over HTTP/2 (RFC 9113), in frames that no library would send.

use super::{Row, Want};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

type Fields<'a> = &'a [(&'a str, &'a str)];

/// A connection that has begun.
fn begun() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut made = length[1..].to_vec();
    made.extend([kind, flags]);
    made.extend(stream.to_be_bytes());
    made.extend(payload);
    made
}

/// Fields as they are, none of them in any table (RFC 7541 §6.2.2).
fn fields(all: Fields<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in all {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            // What is beyond ASCII stands for one byte.
            block.extend(text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()));
        }
    }
    block
}

/// A number with a prefix of seven bits (RFC 7541 §5.1).
fn length(mut number: usize, into: &mut Vec<u8>) {
    if number < 127 {
        into.push(u8::try_from(number).unwrap());
        return;
    }
    into.push(127);
    number -= 127;
    while number >= 128 {
        into.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    into.push(u8::try_from(number).unwrap());
}

fn asking(all: Fields<'_>) -> Row {
    let says = [
        begun(),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(all)),
    ]
    .concat();
    let mut name = format!("h2 {all:?}");
    name.truncate(200);
    Row::new(name, says)
}

/// A request with a body.
fn posting(all: Fields<'_>, body: &str) -> Row {
    let head = frame(HEADERS, END_HEADERS, 1, &fields(all));
    let data = frame(DATA, END_STREAM, 1, body.as_bytes());
    Row::new(
        format!("h2 {all:?} + {body:?}"),
        [begun(), head, data].concat(),
    )
}

const GET: (&str, &str) = (":method", "GET");
const POST: (&str, &str) = (":method", "POST");
const HTTP: (&str, &str) = (":scheme", "http");
const US: (&str, &str) = (":authority", "v1.example");
const PUBLIC: (&str, &str) = (":path", "/public?r=ROWN");
const ADMIN: (&str, &str) = (":path", "/admin?r=ROWN");

pub(super) fn rows() -> Vec<Row> {
    let mut rows = pseudo();
    rows.extend(malformed());
    rows.extend(injections());
    rows.extend(bodies());
    rows
}

/// What is well formed and means what is protected.
fn pseudo() -> Vec<Row> {
    let mut rows = vec![asking(&[GET, HTTP, US, PUBLIC]).want(Want::Served)];
    for path in [
        "/admin?r=ROWN",
        "//admin?r=ROWN",
        "/x/../admin?r=ROWN",
        "/%61dmin?r=ROWN",
        "/x%2f..%5cadmin?r=ROWN",
        "/\\admin?r=ROWN",
        "/public/%2e%2e/admin?r=ROWN",
        "/public/..;/admin?r=ROWN",
    ] {
        rows.push(asking(&[GET, HTTP, US, (":path", path)]));
    }
    for authority in [
        "admin.example",
        "ADMIN.EXAMPLE",
        "admin.example:80",
        "admin.example.",
        "admin.example.:80",
    ] {
        rows.push(asking(&[GET, HTTP, (":authority", authority), PUBLIC]));
        rows.push(asking(&[GET, HTTP, PUBLIC, ("host", authority)]));
        rows.push(asking(&[GET, HTTP, US, PUBLIC, ("host", authority)]));
        rows.push(asking(&[
            GET,
            HTTP,
            (":authority", authority),
            PUBLIC,
            ("host", "v1.example"),
        ]));
    }
    for method in ["DELETE", "delete", "Delete", "PATCH", "get"] {
        rows.push(asking(&[(":method", method), HTTP, US, PUBLIC]));
        rows.push(asking(&[(":method", method), HTTP, US, ADMIN]));
    }
    // What libraries read leniently is read so before policy: `/`, a name that is nobody's, `/public`.
    rows.push(asking(&[GET, HTTP, US, (":path", "?r=ROWN")]));
    rows.push(asking(&[
        GET,
        HTTP,
        (":authority", "admin.example,v1.example"),
        PUBLIC,
    ]));
    rows.push(asking(&[GET, HTTP, US, (":path", "/public?r=ROWN#/admin")]));
    for scheme in ["https", "ftp", "HTTP", "http://v1.example/admin?", ""] {
        rows.push(asking(&[GET, (":scheme", scheme), US, PUBLIC]));
        rows.push(asking(&[GET, (":scheme", scheme), US, ADMIN]));
    }
    for roles in [["guest", "user"], ["user", "guest"]] {
        let roles = roles.map(|role| ("x-role", role));
        rows.push(asking(&[GET, HTTP, US, PUBLIC, roles[0], roles[1]]));
    }
    for value in [" guest", "\tguest", "guest ", "guest\t", " "] {
        rows.push(asking(&[GET, HTTP, US, PUBLIC, ("x-role", value)]).want(Want::Refused));
    }
    rows.push(asking(&[
        GET,
        HTTP,
        US,
        PUBLIC,
        ("x-http-method-override", "DELETE"),
    ]));
    for field in [
        ("x-envoy-original-path", "/admin"),
        ("x-envoy-internal", "true"),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://cluster.local/ns/shop/sa/admin",
        ),
    ] {
        rows.push(asking(&[GET, HTTP, US, PUBLIC, field]).want(Want::Served));
    }
    let websocket = |path| {
        [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            HTTP,
            US,
            path,
            ("sec-websocket-version", "13"),
        ]
    };
    rows.push(asking(&websocket(ADMIN)).want(Want::Refused));
    rows.push(asking(&websocket((":path", "/x/../admin?r=ROWN"))).want(Want::Refused));
    rows
}

/// What is no request.
fn malformed() -> Vec<Row> {
    let path = |path| (":path", path);
    let refused: &[Fields<'_>] = &[
        &[GET, HTTP, US],
        &[GET, HTTP, US, path("")],
        &[GET, HTTP, US, path("admin?r=ROWN")],
        &[GET, HTTP, US, path("*")],
        &[GET, HTTP, US, path("http://v1.example/admin?r=ROWN")],
        &[GET, HTTP, US, path("/admin%00?r=ROWN")],
        &[GET, HTTP, US, path("/%zz/../admin?r=ROWN")],
        &[GET, HTTP, US, PUBLIC, ADMIN],
        &[GET, HTTP, US, ADMIN, PUBLIC],
        &[GET, POST, HTTP, US, ADMIN],
        &[GET, HTTP, HTTP, US, ADMIN],
        &[GET, HTTP, US, (":authority", "admin.example"), PUBLIC],
        &[GET, HTTP, US, ("x-a", "b"), ADMIN],
        &[GET, HTTP, ("x-a", "b"), US, ADMIN],
        &[GET, HTTP, US, PUBLIC, (":status", "200")],
        &[GET, HTTP, US, PUBLIC, (":other", "a")],
        &[GET, HTTP, US, (":PATH", "/admin?r=ROWN")],
        &[GET, HTTP, US, PUBLIC, ("X-Role", "guest")],
        &[GET, HTTP, US, PUBLIC, ("x-rolE", "guest")],
        &[HTTP, US, ADMIN],
        &[GET, US, ADMIN],
        &[GET, HTTP, US, ADMIN, ("connection", "close")],
        &[
            GET,
            HTTP,
            US,
            PUBLIC,
            ("connection", "x-role"),
            ("x-role", "guest"),
        ],
        &[GET, HTTP, US, PUBLIC, ("transfer-encoding", "chunked")],
        &[GET, HTTP, US, PUBLIC, ("upgrade", "websocket")],
        &[GET, HTTP, US, PUBLIC, ("keep-alive", "1")],
        &[GET, HTTP, US, PUBLIC, ("proxy-connection", "close")],
        &[GET, HTTP, US, PUBLIC, ("te", "gzip")],
        &[
            GET,
            HTTP,
            US,
            PUBLIC,
            ("host", "v1.example"),
            ("host", "admin.example"),
        ],
        &[GET, HTTP, (":authority", "user@admin.example"), PUBLIC],
        &[GET, HTTP, (":authority", "admin.example/x"), PUBLIC],
        &[(":method", "CONNECT"), (":authority", "admin.example:80")],
        &[(":method", "CONNECT"), HTTP, US, ADMIN],
        &[(":method", "CONNECT"), US],
        &[(":method", "CONNECT")],
    ];
    refused
        .iter()
        .map(|all| asking(all).want(Want::Refused))
        .collect()
}

/// What would be another message once it is written as HTTP/1.1.
fn injections() -> Vec<Row> {
    let line =
        "\r\nHost: admin.example\r\n\r\nGET /admin?r=ROWN HTTP/1.1\r\nHost: v1.example\r\n\r\n";
    let path = format!("/public?r=ROWN HTTP/1.1{line}");
    let method = format!("GET /admin?r=ROWN HTTP/1.1{line}");
    let authority = format!("v1.example{line}");
    let value = format!("a{line}");
    let name = "x-a: b\r\nx-role";
    let refused: &[Fields<'_>] = &[
        &[GET, HTTP, US, (":path", &path)],
        &[GET, HTTP, US, (":path", "/public?r=ROWN HTTP/1.1")],
        &[GET, HTTP, US, (":path", "/admin?r=ROWN\t")],
        &[GET, HTTP, US, (":path", "/public?r=ROWN\0")],
        &[(":method", &method), HTTP, US, PUBLIC],
        &[(":method", "GET /admin?r=ROWN"), HTTP, US, PUBLIC],
        &[(":method", "G\0T"), HTTP, US, ADMIN],
        &[(":method", ""), HTTP, US, ADMIN],
        &[GET, HTTP, (":authority", &authority), PUBLIC],
        &[
            GET,
            HTTP,
            (":authority", "v1.example admin.example"),
            PUBLIC,
        ],
        &[GET, HTTP, US, PUBLIC, ("x-a", &value)],
        &[GET, HTTP, US, PUBLIC, ("x-a", "b\nx-role: guest")],
        &[GET, HTTP, US, PUBLIC, ("x-a", "b\rx-role: guest")],
        &[GET, HTTP, US, PUBLIC, ("x-role", "guest\0")],
        &[GET, HTTP, US, PUBLIC, (name, "guest")],
        &[GET, HTTP, US, PUBLIC, ("x-role: guest", "a")],
        &[GET, HTTP, US, PUBLIC, ("x-role ", "guest")],
        &[GET, HTTP, US, PUBLIC, (" x-role", "guest")],
        &[GET, HTTP, US, PUBLIC, ("", "guest")],
        &[GET, HTTP, US, PUBLIC, ("x-r\u{f6}le", "guest")],
    ];
    refused
        .iter()
        .map(|all| asking(all).want(Want::Refused))
        .collect()
}

/// Bodies whose length is told twice (RFC 9113 §8.1.1), and requests in them.
fn bodies() -> Vec<Row> {
    let hidden = "GET /admin?r=ROWN HTTP/1.1\r\nHost: v1.example\r\nConnection: close\r\n\r\n";
    let of = |length: &str, body: &str| {
        posting(&[POST, HTTP, US, PUBLIC, ("content-length", length)], body)
    };
    let exact = hidden.len().to_string();
    let mut rows = vec![
        of(&exact, hidden).want(Want::Served),
        posting(&[POST, HTTP, US, PUBLIC], hidden).want(Want::Served),
        posting(&[GET, HTTP, US, PUBLIC], hidden),
        posting(&[POST, HTTP, US, ADMIN], hidden).want(Want::Refused),
        of("0", hidden),
        of("5", hidden),
        of("1000", hidden),
        posting(&[GET, HTTP, US, PUBLIC, ("content-length", "0")], hidden),
        posting(
            &[POST, HTTP, US, PUBLIC, ("transfer-encoding", "chunked")],
            "0\r\n\r\n",
        )
        .want(Want::Refused),
    ];
    for length in ["-1", "+5", "5, 5", "0x5", "", "18446744073709551617"] {
        rows.push(of(length, hidden));
    }
    let two = [
        POST,
        HTTP,
        US,
        PUBLIC,
        ("content-length", "0"),
        ("content-length", &exact),
    ];
    rows.push(posting(&two, hidden));
    // Trailers are no second head.
    for trailers in [
        &[("x-role", "guest")][..],
        &[ADMIN],
        &[("host", "admin.example")],
        &[("content-length", "0")],
    ] {
        let head = frame(HEADERS, END_HEADERS, 1, &fields(&[POST, HTTP, US, PUBLIC]));
        let data = frame(DATA, 0, 1, b"hello");
        let end = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(trailers));
        rows.push(Row::new(
            format!("h2 trailers {trailers:?}"),
            [begun(), head, data, end].concat(),
        ));
    }
    // Neither do two requests make one.
    let first = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &fields(&[GET, HTTP, US, PUBLIC]),
    );
    let second = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        3,
        &fields(&[GET, HTTP, US, ADMIN]),
    );
    rows.push(
        Row::new(
            "h2 one after the other",
            [begun(), first.clone(), second].concat(),
        )
        .want(Want::Served),
    );
    let unended = frame(HEADERS, END_STREAM, 1, &fields(&[GET, HTTP, US, PUBLIC]));
    let plain = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        3,
        &fields(&[GET, HTTP, US, ADMIN]),
    );
    rows.push(
        Row::new("h2 a head in another", [begun(), unended, plain].concat()).want(Want::Refused),
    );
    let even = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        2,
        &fields(&[GET, HTTP, US, ADMIN]),
    );
    rows.push(Row::new("h2 an even stream", [begun(), even].concat()).want(Want::Refused));
    let none = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        0,
        &fields(&[GET, HTTP, US, ADMIN]),
    );
    rows.push(Row::new("h2 no stream", [begun(), none].concat()).want(Want::Refused));
    rows.push(Row::new(
        "h2 without settings",
        [PREFACE.to_vec(), first].concat(),
    ));
    rows
}
