//! Frames that no well-behaved client sends (`spec/reliability.md` §2 rows 1–6): the connection
//! they come on ends or stands still, and what it holds stays bounded.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::hbone::testing::*;
use crate::hbone::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK of a CONNECT to 10.0.0.2:80, all literals.
fn connect_block() -> Vec<u8> {
    let mut block = vec![0x02, 7];
    block.extend(b"CONNECT");
    block.extend([0x01, 11]);
    block.extend(b"10.0.0.2:80");
    block
}

fn connect(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &connect_block())
}

/// Reads until GOAWAY or the end; the code of the former.
async fn farewell(mut reader: ReadHalf<TlsStream<TcpStream>>) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        reader.read_exact(&mut body).await.ok()?;
        if head[3] == GOAWAY {
            return body
                .get(4..8)
                .map(|c| u32::from_be_bytes(c.try_into().unwrap()));
        }
    }
}

/// Sends what `attack` gives, `rounds` times or until the server has had enough, reading along.
/// How many bytes were sent and the code of the GOAWAY, if the server ended it.
async fn attack(
    server: &Server,
    rounds: u32,
    mut attack: impl FnMut(u32) -> Vec<u8>,
) -> Option<(usize, Option<u32>)> {
    let (reader, mut writer) = tokio::io::split(server.raw().await);
    let farewell = farewell(reader);
    tokio::pin!(farewell);
    let mut sent = 0;
    let mut send = async |bytes: Vec<u8>| {
        sent += bytes.len();
        writer.write_all(&bytes).await.is_ok() && writer.flush().await.is_ok()
    };
    let mut all = async || {
        send(
            [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                &frame(SETTINGS, 0, 0, &[])[..],
            ]
            .concat(),
        )
        .await;
        for round in 0..rounds {
            if !send(attack(round)).await {
                break;
            }
        }
    };
    let code = {
        let all = all();
        tokio::pin!(all);
        let done = tokio::select! {
            code = &mut farewell => Some(code),
            () = &mut all => None,
        };
        match done {
            Some(code) => Some(code),
            None => tokio::time::timeout(Duration::from_secs(2), farewell)
                .await
                .ok(),
        }
    };
    code.map(|code| (sent, code))
}

/// Reads up to the answer to our ping; whether it came.
async fn pong(reader: &mut ReadHalf<TlsStream<TcpStream>>) -> bool {
    loop {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).await.is_err() || head[3] == GOAWAY {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        reader.read_exact(&mut body).await.unwrap();
        if head[3] == PING {
            return true;
        }
    }
}

#[tokio::test]
async fn what_was_on_the_way_to_aborted_tunnels_is_no_offence() {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let (mut reader, mut writer) = tokio::io::split(server.raw().await);
    let mut send = async |bytes: Vec<u8>| {
        writer.write_all(&bytes).await.unwrap();
        writer.flush().await.unwrap();
    };
    let streams = || (0..180u32).map(|n| 2 * n + 1);
    send(
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &frame(SETTINGS, 0, 0, &[])[..],
        ]
        .concat(),
    )
    .await;
    send(streams().flat_map(connect).collect()).await;
    // A program with that many uploads dies.
    for _ in streams() {
        let request = soon("a request", requests.recv()).await.unwrap();
        request.accept("").unwrap().abort();
    }
    send(frame(PING, 0, 0, &[1; 8])).await;
    assert!(soon("the resets are out", pong(&mut reader)).await);
    // What their senders had on the way arrives only now.
    for _ in 0..10 {
        send(
            streams()
                .flat_map(|s| frame(DATA, 0, s, &[7; 300]))
                .collect(),
        )
        .await;
    }
    send(frame(PING, 0, 0, &[2; 8])).await;
    assert!(soon("the connection lives", pong(&mut reader)).await);
}

/// The server still serves others, as well as before.
async fn unharmed(name: &str, peer: &Peer) {
    let (pool, _plain) = pool(steady());
    let mut session = peer.session(&pool, &peer.server.web()).await;
    session.client.write_all(b"x").await.unwrap();
    let got = soon(name, session.server.read_u8()).await.unwrap();
    assert_eq!(got, b'x', "{name}");
}

#[tokio::test]
async fn floods_end_the_connection_they_come_on() {
    let hostile_headers = || {
        // One 4,000-byte field put into the dynamic table, then named 500 times: 2 MB decoded.
        let mut block = connect_block();
        block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        block.extend([b'y'; 4000]);
        block.extend([0xbe; 500]);
        block
    };
    type Attack = Box<dyn FnMut(u32) -> Vec<u8>>;
    let rows: [(&str, u32, Attack, usize); 6] = [
        (
            "CONTINUATION without end",
            10_000,
            Box::new(|round| match round {
                0 => frame(HEADERS, 0, 1, &connect_block()),
                _ => frame(
                    CONTINUATION,
                    0,
                    1,
                    &[&[0, 1, b'x', 100][..], &[b'y'; 100]].concat(),
                ),
            }),
            4 * (64 << 10),
        ),
        (
            "CONTINUATION of nothing",
            100_000,
            Box::new(|round| match round {
                0 => frame(HEADERS, 0, 1, &connect_block()),
                _ => frame(CONTINUATION, 0, 1, &[]),
            }),
            64 << 10,
        ),
        (
            "DATA of nothing",
            100_000,
            Box::new(|round| match round {
                0 => connect(1),
                _ => frame(DATA, 0, 1, &[]),
            }),
            64 << 10,
        ),
        (
            "DATA by the byte that nobody reads",
            200_000,
            Box::new(|round| match round {
                0 => connect(1),
                _ => frame(DATA, 0, 1, b"x"),
            }),
            2 << 20,
        ),
        (
            "resets provoked",
            10_000,
            Box::new(|round| {
                let stream = 2 * round + 1;
                // A window update of nothing is an error of the stream.
                [connect(stream), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
            }),
            64 << 10,
        ),
        (
            "streams reset before they are looked at",
            10_000,
            Box::new(|round| {
                let first = 200 * round + 1;
                let stream = |n: u32| {
                    let stream = first + 2 * n;
                    [
                        connect(stream),
                        frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
                    ]
                    .concat()
                };
                (0..100).flat_map(stream).collect()
            }),
            8 << 20,
        ),
    ];
    for (name, rounds, rounds_of, most) in rows {
        // Holds each request unanswered and each tunnel unread.
        let (handler, mut requests) = HandOver::new();
        let server = server(Limits::default(), handler).await;
        let flood = attack(&server, rounds, rounds_of);
        let hold = async {
            let mut held = Vec::new();
            while let Some(request) = requests.recv().await {
                held.extend(request.accept("").ok());
            }
        };
        let ended = tokio::select! {
            ended = soon(name, flood) => ended,
            () = hold => panic!("{name}: the server has gone"),
        };
        let (sent, code) = ended.unwrap_or_else(|| panic!("{name}: nothing ended it"));
        assert!(
            sent <= most,
            "{name}: only after {sent} bytes, code {code:?}"
        );
    }
    // A header list too large once decoded costs its stream, and the next request is served.
    let peer = peer(Limits::default()).await;
    let block = hostile_headers();
    let ended = attack(&peer.server, 1, |_| frame(HEADERS, END_HEADERS, 1, &block)).await;
    assert!(ended.is_none_or(|(_, code)| code != Some(0)), "{ended:?}");
    assert!(futures::FutureExt::now_or_never(peer.program.accept()).is_none());
    unharmed("after a hostile header list", &peer).await;
}

#[tokio::test]
async fn a_peer_that_pings_and_never_reads_stands_still() {
    let peer = peer(Limits {
        ping_after: Duration::from_millis(500),
        ping_timeout: Duration::from_millis(500),
        ..Limits::default()
    })
    .await;
    let mut stream = peer.server.raw().await;
    let hello = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &frame(SETTINGS, 0, 0, &[])[..],
    ]
    .concat();
    stream.write_all(&hello).await.unwrap();
    stream.write_all(&connect(1)).await.unwrap();
    let _its_tunnel = peer.program.accept().await.unwrap();
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let flood = async {
        let mut sent = 0;
        while stream.write_all(&pings).await.is_ok() && stream.flush().await.is_ok() {
            sent += pings.len();
        }
        sent
    };
    // Once the answers fill the way back nothing more is read, and silence ends it.
    let sent = soon("the end", flood).await;
    assert!(sent < 32 << 20, "{sent} bytes taken");
    unharmed("after a flood of pings", &peer).await;
}
