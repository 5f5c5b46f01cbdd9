//! What two programs see of each other through a tunnel.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::hbone::testing::*;
use crate::hbone::*;

/// Both directions at once, each ending by itself; what arrived at either end.
async fn exchange(
    client: &mut tokio::net::TcpStream,
    server: &mut tokio::net::TcpStream,
    data: &[u8],
) -> (Vec<u8>, Vec<u8>) {
    let (mut client_in, mut client_out) = client.split();
    let (mut server_in, mut server_out) = server.split();
    let send = async {
        client_out.write_all(data).await.unwrap();
        client_out.shutdown().await.unwrap();
    };
    let echo = async {
        let mut got = Vec::new();
        let mut chunk = vec![0; 10_000];
        loop {
            match server_in.read(&mut chunk).await.unwrap() {
                0 => break,
                read => {
                    got.extend_from_slice(&chunk[..read]);
                    server_out.write_all(&chunk[..read]).await.unwrap();
                }
            }
        }
        // The client has ended its direction; ours is still open.
        server_out.write_all(b"after your end").await.unwrap();
        server_out.shutdown().await.unwrap();
        got
    };
    let receive = async {
        let mut got = Vec::new();
        client_in.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), there, back) = soon("echo", async { tokio::join!(send, echo, receive) }).await;
    (there, back)
}

over_both! {
async fn bytes_arrive_whole_and_each_direction_ends_by_itself() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    // Below, at and above every buffer size.
    for length in [0, 1, 1 << 10, 1 << 20, 24 << 20] {
        let mut session = peer.session(&pool, &hop).await;
        let data = pattern(length);
        let (client, server) = (&mut session.client, &mut session.server);
        let (there, mut back) = exchange(client, server, &data).await;
        let tail = back.split_off(length);
        assert!(there == data, "{} of {length} bytes there", there.len());
        assert!(back == data, "{} of {length} bytes back", back.len());
        assert_eq!(tail, b"after your end");
        session.end("the relay").await.unwrap();
        let counted = (length as u64, (length + tail.len()) as u64);
        assert_eq!(session.traffic.totals(), counted);
    }
}
}

#[tokio::test]
async fn plain_legs_keep_the_same_rules() {
    let (mut client, near) = tcp_pair().await;
    let (far, mut server) = tcp_pair().await;
    let mut relays = JoinSet::new();
    relays.spawn(async move { relay_tcp(near, far, &Traffic::default()).await });
    let data = pattern(24 << 20);
    let (there, back) = exchange(&mut client, &mut server, &data).await;
    assert!(there == data && back.starts_with(&data) && back.ends_with(b"after your end"));
    let end = soon("the relay", relays.join_next()).await;
    end.unwrap().unwrap().unwrap();

    for by_client in [true, false] {
        let (client, near) = tcp_pair().await;
        let (far, server) = tcp_pair().await;
        relays.spawn(async move { relay_tcp(near, far, &Traffic::default()).await });
        let (gone, mut left) = if by_client {
            (client, server)
        } else {
            (server, client)
        };
        // The other program does not read, so the relay is stuck and must notice all the same.
        fill(&gone, &[7; 64 << 10]).await;
        reset(gone);
        let end = soon("the relay", relays.join_next()).await;
        assert!(end.unwrap().unwrap().is_err());
        let end = soon("a reset", left.read_to_end(&mut Vec::new())).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

over_both! {
async fn a_reset_stays_a_reset_in_both_directions() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    for (name, by_client, when) in [
        ("client, at once", true, 0),
        ("server, at once", false, 0),
        ("client, mid-transfer", true, 1),
        ("server, mid-transfer", false, 1),
        ("client, with the other not reading", true, 2),
        ("server, with the other not reading", false, 2),
    ] {
        let session = peer.session(&pool, &hop).await;
        let Session {
            client,
            server,
            mut relay,
            ..
        } = session;
        let (mut gone, mut left) = if by_client {
            (client, server)
        } else {
            (server, client)
        };
        match when {
            0 => {}
            1 => {
                gone.write_all(&pattern(100_000)).await.unwrap();
                left.read_exact(&mut [0; 1000]).await.unwrap();
            }
            _ => drop(fill(&gone, &[7; 64 << 10]).await),
        }
        reset(gone);
        let ended = soon(name, relay.join_next()).await.unwrap().unwrap();
        assert!(ended.is_err(), "{name}");
        let outcome = soon(name, left.read_to_end(&mut Vec::new())).await;
        let kind = outcome.map_err(|e| e.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionReset), "{name}");
    }
}
}

over_both! {
async fn a_reset_reaches_a_program_that_has_ended_its_own_direction() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let mut session = peer.session(&pool, &peer.server.web()).await;
    session.client.shutdown().await.unwrap();
    assert_eq!(session.server.read(&mut [0]).await.unwrap(), 0);
    // The client does not read, so that its relay is stuck with the server's bytes.
    fill(&session.server, &[7; 64 << 10]).await;
    reset(session.server);
    let ended = soon("the relay", session.relay.join_next()).await;
    assert!(ended.unwrap().unwrap().is_err());
    let end = soon("a reset", session.client.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
}

over_both! {
async fn a_relay_that_is_cut_resets_both_ends() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    for (name, from_client) in [("after bytes forth", true), ("after bytes back", false)] {
        let mut session = peer.session(&pool, &peer.server.web()).await;
        let (from, to) = if from_client {
            (&mut session.client, &mut session.server)
        } else {
            (&mut session.server, &mut session.client)
        };
        from.write_all(b"x").await.unwrap();
        assert_eq!(to.read_u8().await.unwrap(), b'x');
        session.relay.abort_all();
        for program in [&mut session.client, &mut session.server] {
            let end = soon(name, program.read_u8()).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::ConnectionReset, "{name}");
        }
    }
}
}

/// Both ends of one tunnel.
async fn tunnel(limits: Limits) -> (Server, Pool<Plain>, Tunnel, Tunnel) {
    let (handler, mut requests) = HandOver::new();
    let server = server(limits.clone(), handler).await;
    let (pool, _plain) = pool(limits);
    let hop = server.web();
    let request = ask(80);
    let accept = async { requests.recv().await.unwrap().accept("").unwrap() };
    let (near, far) = tokio::join!(pool.connect(&hop, &request), accept);
    (server, pool, near.unwrap().0, far)
}

over_both! {
async fn how_a_tunnel_ends_is_what_its_program_sees() {
    type End = fn(&mut Option<Tunnel>);
    let rows: [(&str, End, Option<io::ErrorKind>); 6] = [
        ("finished", |t| t.as_mut().unwrap().finish(), None),
        // RST_STREAM(CANCEL): the peer reads an end with nothing in it.
        ("dropped unused", |t| drop(t.take()), None),
        (
            "dropped in use",
            |t| {
                t.as_mut().unwrap().send(Bytes::from_static(b"x"));
                drop(t.take());
            },
            Some(io::ErrorKind::ConnectionReset),
        ),
        (
            "dropped after its end, with the peer's direction open",
            |t| {
                let mut t = t.take().unwrap();
                t.send(Bytes::from_static(b"x"));
                t.finish();
            },
            // HTTP/2's reset overtakes the end, HTTP/3's is of the other direction.
            (transport() == Transport::Tcp).then_some(io::ErrorKind::ConnectionReset),
        ),
        (
            "aborted",
            |t| t.as_mut().unwrap().abort(),
            Some(io::ErrorKind::ConnectionReset),
        ),
        (
            "both",
            |t| {
                let t = t.as_mut().unwrap();
                t.finish();
                t.finish();
            },
            None,
        ),
    ];
    for (name, end, want) in rows {
        let (_server, _pool, near, far) = tunnel(Limits::default()).await;
        let mut near = Some(near);
        let (mut program, socket) = tcp_pair().await;
        let mut relays = JoinSet::new();
        relays.spawn(async move { relay(socket, far, &Traffic::default()).await });
        end(&mut near);
        let got = soon(name, program.read_to_end(&mut Vec::new())).await;
        assert_eq!(got.err().map(|e| e.kind()), want, "{name}");
        // An orderly cancellation ends the relay although this program has not ended its own.
        if near.is_none() {
            let ended = soon(name, relays.join_next()).await.unwrap().unwrap();
            assert_eq!(ended.is_err(), want.is_some(), "{name}");
        }
    }
}
}

over_both! {
async fn what_a_peer_said_arrives_though_it_resets_then() {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let (pool, _plain) = pool(Limits::default());
    let hop = server.web();
    let mut open = async || {
        let request = ask(80);
        let accept = async { requests.recv().await.unwrap().accept("").unwrap() };
        let (near, far) = tokio::join!(pool.connect(&hop, &request), accept);
        (near.unwrap().0, far)
    };
    for (name, ends, want) in [
        ("after its end", true, None),
        // As Envoy ends an answer to CONNECT whose connection inside was closed.
        (
            "instead of an end",
            false,
            Some(io::ErrorKind::ConnectionReset),
        ),
    ] {
        let (mut near, far) = open().await;
        near.send(Bytes::from_static(b"all of it"));
        if ends {
            near.finish();
        }
        // Once another is open, what was sent before has left.
        let _another = open().await;
        // RST_STREAM(CONNECT_ERROR).
        drop(near);
        let _third = open().await;
        let (mut program, socket) = tcp_pair().await;
        let mut relays = JoinSet::new();
        relays.spawn(async move { relay(socket, far, &Traffic::default()).await });
        let mut got = Vec::new();
        let read = soon(name, program.read_to_end(&mut got)).await;
        assert_eq!(read.err().map(|e| e.kind()), want, "{name}");
        match transport() {
            Transport::Tcp => assert_eq!(got, b"all of it", "{name}"),
            // QUIC forgets what was not read before a reset (RFC 9000 §3.2).
            _ if want.is_none() => assert_eq!(got, b"all of it", "{name}"),
            _ => assert!(b"all of it".starts_with(&got), "{name}: {got:?}"),
        }
        let ended = soon(name, relays.join_next()).await.unwrap().unwrap();
        assert_eq!(ended.is_err(), want.is_some(), "{name}");
    }
}
}

#[tokio::test]
async fn what_lies_between_the_ends_is_bounded_by_the_window() {
    let (_server, _pool, mut near, mut far) = tunnel(Limits::default()).await;
    let chunk = Bytes::from(vec![7; 64 << 10]);
    let mut sent = 0;
    let push = async |near: &mut Tunnel| {
        let room = std::future::poll_fn(|cx| near.poll_capacity(cx, chunk.len()));
        let room = tokio::time::timeout(Duration::from_millis(300), room).await;
        let Ok(room) = room else { return None };
        let room = room.unwrap();
        near.send(chunk.slice(..room));
        Some(room)
    };
    while let Some(room) = push(&mut near).await {
        sent += room;
    }
    assert_eq!(sent, 4 << 20, "one stream's window and not a byte more");
    // Reading alone makes no room: what is held has not been passed on yet.
    let mut held = 0;
    while held < sent {
        let read = std::future::poll_fn(|cx| far.poll_read(cx));
        held += soon("a chunk", read).await.unwrap().unwrap().len();
    }
    assert_eq!(push(&mut near).await, None);
    far.release(held);
    assert!(
        push(&mut near).await.is_some(),
        "released, it may be sent again"
    );
}

over_both! {
async fn a_reader_that_stalls_holds_back_its_sender_and_nobody_else() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    let stalled = peer.session(&pool, &hop).await;
    let taken = fill(&stalled.client, &[7; 64 << 10]).await;
    assert!(taken < 64 << 20, "{taken} bytes lie between the ends");
    let mut session = peer.session(&pool, &hop).await;
    let data = pattern(1 << 20);
    let (client, server) = (&mut session.client, &mut session.server);
    let (there, _back) = exchange(client, server, &data).await;
    assert!(there == data, "a neighbour on the same connection");
    assert_eq!(pool.connections(), 1);
}
}

over_both! {
async fn idle_tunnels_keep_no_room_from_their_neighbours() {
    // Room for four of the largest reads; each of twenty flows has made some and gone idle.
    let limits = Limits {
        connection_window: 1 << 20,
        busy: usize::MAX,
        ..steady()
    };
    let peer = peer(limits.clone()).await;
    let (pool, _plain) = pool(limits);
    let hop = peer.server.web();
    let data = pattern(12 << 20);
    let mut idle = Vec::new();
    for n in 0..20 {
        let mut session = peer.session(&pool, &hop).await;
        let Session { client, server, .. } = &mut session;
        let send = client.write_all(&data);
        let mut got = vec![0; data.len()];
        let receive = server.read_exact(&mut got);
        let moved = async { tokio::join!(send, receive) };
        let (sent, received) = soon(&format!("flow {n}"), moved).await;
        sent.unwrap();
        received.unwrap();
        idle.push(session);
    }
    assert_eq!(pool.connections(), 1);
}
}

over_both! {
async fn a_peer_that_dribbles_at_a_stalled_program_keeps_its_connection() {
    let (_server, _pool, mut near, far) = tunnel(Limits::default()).await;
    // As little as the kernel lets two sockets hold between them.
    let listener = TcpSocket::new_v4().unwrap();
    listener.set_recv_buffer_size(1).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(1).unwrap();
    let socket = socket.connect(listener.local_addr().unwrap());
    let (socket, program) = tokio::join!(socket, listener.accept());
    let (socket, mut program) = (socket.unwrap(), program.unwrap().0);
    let mut relays = JoinSet::new();
    relays.spawn(async move { relay(socket, far, &Traffic::default()).await });
    let bytes = pattern(100_000);
    for (n, byte) in bytes.iter().enumerate() {
        let room = std::future::poll_fn(|cx| near.poll_capacity(cx, 1));
        let room = soon("room", room).await;
        assert_eq!(room.unwrap_or_else(|e| panic!("byte {n}: {e:?}")), 1);
        near.send(Bytes::copy_from_slice(&[*byte]));
        if n % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    near.finish();
    let mut got = Vec::new();
    soon("all of it", program.read_to_end(&mut got))
        .await
        .unwrap();
    assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
}
}

over_both! {
async fn a_refusal_tells_its_status() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let refused = pool.connect(&peer.server.web(), &ask(DEAF)).await;
    let error = refused.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused { status } if status == StatusCode::SERVICE_UNAVAILABLE)
    );
    assert_eq!((error.flag(), error.retryable()), ("CONNECT", true));
}
}
