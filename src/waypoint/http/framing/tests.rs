//! Heads and bodies, as tables; whole and in pieces they read alike.

use proptest::prelude::{prop_assert_eq, proptest};

use super::*;
use crate::waypoint::http::message::asks_for_websocket;

fn read(bytes: &[u8]) -> Result<Option<Whole>, Fault> {
    Head::default().read(bytes)
}

/// The same, a byte at a time.
fn read_slowly(bytes: &[u8]) -> Result<Option<Whole>, Fault> {
    let mut head = Head::default();
    for end in 0..=bytes.len() {
        if let Some(whole) = head.read(&bytes[..end])? {
            return Ok(Some(whole));
        }
    }
    Ok(None)
}

const MALFORMED: Option<Fault> = Some(Fault::Malformed(""));

fn kind(fault: Fault) -> Fault {
    match fault {
        Fault::Malformed(_) => Fault::Malformed(""),
        other => other,
    }
}

#[test]
fn a_head_is_taken_in_one_way_or_not_at_all() {
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let line = |line: &str| format!("{line}\r\nhost: a\r\n\r\n");
    let many = |count| get(&"x: 1\r\n".repeat(count));
    let none = None;
    for (name, head, want) in [
        ("plain", get(""), none),
        ("HTTP/1.0", line("GET / HTTP/1.0"), none),
        ("absolute form", line("GET http://a/b HTTP/1.1"), none),
        ("asterisk form", line("OPTIONS * HTTP/1.1"), none),
        ("authority form", line("CONNECT a:80 HTTP/1.1"), none),
        ("an empty line before", format!("\r\n{}", get("")), none),
        ("an empty value", get("x:\r\n"), none),
        ("bytes beyond ASCII", get("x: \u{fc}\r\n"), none),
        ("a tab in a value", get("x: a\tb\r\n"), none),
        (
            "a length twice",
            get("content-length: 1\r\ncontent-length: 1\r\n"),
            none,
        ),
        (
            "chunked, oddly written",
            get("Transfer-Encoding:\tCHUNKED \r\n"),
            none,
        ),
        (
            "many empty lines",
            format!("{}{}", "\r\n".repeat(5), get("")),
            MALFORMED,
        ),
        ("another version", line("GET / HTTP/1.2"), MALFORMED),
        ("HTTP/2", line("GET / HTTP/2.0"), MALFORMED),
        ("HTTP/0.9", line("GET /"), MALFORMED),
        ("two spaces", line("GET  / HTTP/1.1"), MALFORMED),
        ("a space at the end", line("GET / HTTP/1.1 "), MALFORMED),
        ("a fragment", line("GET /a#b HTTP/1.1"), MALFORMED),
        (
            "a control character in the target",
            line("GET /a\tb HTTP/1.1"),
            MALFORMED,
        ),
        ("a method that is none", line("G(T / HTTP/1.1"), MALFORMED),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), MALFORMED),
        (
            "no host, HTTP/1.0",
            "GET / HTTP/1.0\r\n\r\n".into(),
            MALFORMED,
        ),
        ("two hosts", get("Host: a\r\n"), MALFORMED),
        (
            "bare line feeds",
            "GET / HTTP/1.1\nhost: a\n\n".into(),
            MALFORMED,
        ),
        ("one bare line feed", get("x: 1\ny: 2\r\n"), MALFORMED),
        ("a bare carriage return", get("x: 1\ry: 2\r\n"), MALFORMED),
        ("a NUL", get("x: a\0b\r\n"), MALFORMED),
        ("a folded line", get("x: 1\r\n 2\r\n"), MALFORMED),
        (
            "a folded first line",
            "GET / HTTP/1.1\r\n x: 1\r\nhost: a\r\n\r\n".into(),
            MALFORMED,
        ),
        ("a space before the colon", get("x : 1\r\n"), MALFORMED),
        (
            "a tab before the colon",
            get("content-length\t: 1\r\n"),
            MALFORMED,
        ),
        ("no colon", get("x\r\n"), MALFORMED),
        ("no name", get(": 1\r\n"), MALFORMED),
        (
            "two lengths",
            get("content-length: 1\r\ncontent-length: 2\r\n"),
            MALFORMED,
        ),
        (
            "two lengths in one",
            get("content-length: 1, 1\r\n"),
            MALFORMED,
        ),
        ("a signed length", get("content-length: +1\r\n"), MALFORMED),
        ("no length", get("content-length:\r\n"), MALFORMED),
        (
            "a length too long",
            get("content-length: 18446744073709551616\r\n"),
            MALFORMED,
        ),
        (
            "a length, then a coding",
            get("content-length: 1\r\ntransfer-encoding: chunked\r\n"),
            MALFORMED,
        ),
        (
            "a coding, then a length",
            get("transfer-encoding: chunked\r\ncontent-length: 1\r\n"),
            MALFORMED,
        ),
        (
            "a coding in HTTP/1.0",
            "GET / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".into(),
            MALFORMED,
        ),
        (
            "chunked twice",
            get("transfer-encoding: chunked, chunked\r\n"),
            MALFORMED,
        ),
        (
            "chunked, then identity",
            get("transfer-encoding: chunked, identity\r\n"),
            MALFORMED,
        ),
        (
            "nearly chunked",
            get("transfer-encoding: xchunked\r\n"),
            MALFORMED,
        ),
        (
            "chunked with a control character",
            get("transfer-encoding: \x0bchunked\r\n"),
            MALFORMED,
        ),
        (
            "another coding",
            get("transfer-encoding: gzip\r\n"),
            MALFORMED,
        ),
        (
            "another coding below",
            get("transfer-encoding: gzip, chunked\r\n"),
            Some(Fault::Coding),
        ),
        ("as many fields as may be", many(FIELDS - 1), none),
        ("too many fields", many(FIELDS), Some(Fault::LargeHead)),
        (
            "a long line",
            line(&format!("GET /{} HTTP/1.1", "a".repeat(LINE))),
            Some(Fault::LongLine),
        ),
        (
            "a line without an end",
            format!("GET /{}", "a".repeat(LINE)),
            Some(Fault::LongLine),
        ),
        (
            "a large head",
            get(&format!("x: {}\r\n", "a".repeat(HEAD))),
            Some(Fault::LargeHead),
        ),
        (
            "a field without an end",
            format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(HEAD)),
            Some(Fault::LargeHead),
        ),
        ("TLS", "\x16\x03\x01\x02".into(), MALFORMED),
    ] {
        let bytes = head.as_bytes();
        for (how, got) in [("whole", read(bytes)), ("in pieces", read_slowly(bytes))] {
            match (got, want) {
                (Ok(Some(whole)), None) => assert_eq!(whole.length, bytes.len(), "{name}, {how}"),
                (Err(fault), Some(want)) => assert_eq!(kind(fault), want, "{name}, {how}"),
                (got, _) => panic!("{name}, {how}: {got:?}"),
            }
        }
    }
}

#[test]
fn a_head_ends_where_its_body_begins() {
    let next = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /";
    let whole = read(next).unwrap().unwrap();
    assert_eq!(&next[whole.length..], b"abcGET /");
    let mut body = whole.body;
    assert!(!body.has_ended());
    assert_eq!(body.follow(b"ab"), Ok(2));
    assert_eq!(body.follow(b"cGET /"), Ok(1));
    assert!(body.has_ended());
    assert_eq!(
        read(b"GET / HTTP/1.1\r\nhost: a\r\n").map(|w| w.is_none()),
        Ok(true)
    );
}

#[test]
fn only_a_websocket_may_be_followed_by_something_else() {
    for (connection, protocol, version, want) in [
        (&b"Upgrade"[..], &b"websocket"[..], "1.1", true),
        (b"upgrade", b"h2c, WebSocket", "1.1", true),
        (b"a, upgrade", b"websocket", "1.1", true),
        (b"upgrade", b"websocket, \xff", "1.1", true),
        (b"upgrade", b"h2c", "1.1", false),
        (b"upgrade", b"websocket", "1.0", false),
        (b"close", b"websocket", "1.1", false),
        (b"upgraded", b"websocket", "1.1", false),
    ] {
        let line = format!("GET / HTTP/{version}\r\nhost: a\r\nconnection: ");
        let head = [
            line.as_bytes(),
            connection,
            b"\r\nupgrade: ",
            protocol,
            b"\r\n\r\n",
        ];
        let head = head.concat();
        let name = String::from_utf8_lossy(&head).into_owned();
        assert_eq!(read(&head).unwrap().unwrap().upgrades, want, "{name}");
        // Whoever answers it reads the same in it.
        let seen = http::Request::get("/")
            .version(match version {
                "1.0" => http::Version::HTTP_10,
                _ => http::Version::HTTP_11,
            })
            .header("connection", connection)
            .header("upgrade", protocol);
        let (seen, ()) = seen.body(()).unwrap().into_parts();
        assert_eq!(asks_for_websocket(&seen), want, "{name}");
    }
}

fn chunks(bytes: &[u8]) -> Result<usize, Broken> {
    let mut body = Body::Chunked(Chunked::default());
    let count = body.follow(bytes)?;
    assert_eq!(
        body.has_ended(),
        count < bytes.len() || bytes.ends_with(b"\r\n\r\n")
    );
    Ok(count)
}

#[test]
fn chunks_are_followed_to_their_end() {
    let long = format!("1;{}", "a".repeat(17 << 10));
    let trailers = format!("0\r\nx: {}", "a".repeat(17 << 10));
    for (name, bytes, want) in [
        ("none", "0\r\n\r\nGET", Ok(5)),
        ("two", "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET", Ok(20)),
        ("an extension", "3;a=\"b\"\r\nabc\r\n0\r\n\r\n", Ok(19)),
        ("a space", "3 \r\nabc\r\n0\r\n\r\n", Ok(14)),
        ("trailers", "0\r\na: b\r\nc: d\r\n\r\nGET", Ok(17)),
        (
            "data that looks like an end",
            "5\r\n0\r\n\r\n\r\n0\r\n\r\n",
            Ok(15),
        ),
        ("no size", "\r\nabc", Err(Broken)),
        ("no digit", "g\r\n", Err(Broken)),
        ("a sign", "+1\r\n", Err(Broken)),
        ("a prefix", "0x1\r\n", Err(Broken)),
        ("too long a size", "00000000000000001\r\n", Err(Broken)),
        ("a bare line feed", "3\nabc\r\n", Err(Broken)),
        ("one in an extension", "3;a\nabc\r\n", Err(Broken)),
        ("one in the trailers", "0\r\na: b\n\r\n", Err(Broken)),
        ("no end of data", "3\r\nabcd\r\n", Err(Broken)),
        ("a long extension", &long, Err(Broken)),
        ("long trailers", &trailers, Err(Broken)),
    ] {
        assert_eq!(chunks(bytes.as_bytes()), want, "{name}");
    }
}

proptest! {
    #[test]
    fn a_body_ends_in_the_same_place_in_however_many_pieces(
        sizes in proptest::collection::vec(1usize..40, 0..6),
        cuts in proptest::collection::vec(1usize..9, 1..20),
    ) {
        let mut bytes = Vec::new();
        for size in &sizes {
            bytes.extend_from_slice(format!("{size:x}\r\n{}\r\n", "\n".repeat(*size)).as_bytes());
        }
        bytes.extend_from_slice(b"0\r\nx: y\r\n\r\n");
        let end = bytes.len();
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\n");
        let mut body = Body::Chunked(Chunked::default());
        let (mut at, mut cuts) = (0, cuts.iter().cycle());
        while !body.has_ended() {
            let piece = &bytes[at..(at + cuts.next().unwrap()).min(bytes.len())];
            at += body.follow(piece).unwrap();
        }
        prop_assert_eq!(at, end);
    }
}
