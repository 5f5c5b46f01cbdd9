//! How connections that carry tunnels end: by drain, by break, by a certificate's end.

use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::hbone::testing::*;
use crate::hbone::*;
use crate::tls::testing::Leaf;
use crate::tls::{Grace, hbone_client};

over_both! {
async fn a_connection_without_tunnels_is_let_go() {
    let limits = Limits {
        idle_in: Duration::from_millis(100),
        ..steady()
    };
    let mut peer = peer(limits).await;
    let (pool, _plain) = pool(steady());
    let mut session = peer.session(&pool, &peer.server.web()).await;
    // As long as a tunnel is open, idle or not, nothing ends.
    let early = tokio::time::timeout(Duration::from_millis(300), peer.server.ends.recv()).await;
    assert!(early.is_err(), "{early:?}");
    session.client.shutdown().await.unwrap();
    session.server.shutdown().await.unwrap();
    session.end("the tunnel").await.unwrap();
    peer.server.end("the connection").await.unwrap();
}
}

over_both! {
async fn a_stopping_server_lets_open_tunnels_finish() {
    let mut peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let hop = peer.server.web();
    let mut session = peer.session(&pool, &hop).await;
    peer.server.stop.cancel();
    // What is told to go away is not used again, though its tunnel lives on.
    eventually("the pool lets go", || {
        pool.reap();
        pool.connections() == 0
    })
    .await;
    for n in 0..10u8 {
        session.client.write_all(&[n]).await.unwrap();
        assert_eq!(soon("there", session.server.read_u8()).await.unwrap(), n);
        session.server.write_all(&[n]).await.unwrap();
        assert_eq!(soon("back", session.client.read_u8()).await.unwrap(), n);
    }
    session.client.shutdown().await.unwrap();
    session.server.shutdown().await.unwrap();
    session.end("the tunnel").await.unwrap();
    peer.server.end("the connection").await.unwrap();
}
}

#[tokio::test]
async fn a_stopping_server_waits_for_no_handshake() {
    let (handler, _requests) = HandOver::new();
    let mut server = server(Limits::default(), handler).await;
    let _before_tls = TcpStream::connect(server.at).await.unwrap();
    let _before_http2 = server.raw().await;
    server.stop.cancel();
    server.end("one").await.unwrap();
    server.end("the other").await.unwrap();
}

over_both! {
async fn a_broken_connection_is_told_by_its_tunnels() {
    let mut peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let mut session = peer.session(&pool, &peer.server.web()).await;
    session.client.write_all(b"x").await.unwrap();
    assert_eq!(session.server.read_u8().await.unwrap(), b'x');
    // The client's proxy dies: the program must not take what it has for the whole.
    drop(pool);
    let end = soon("the program's end", session.server.read_u8()).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let relay = soon("the server's relay", peer.relays.recv()).await;
    assert_eq!(relay.as_deref(), Some("the tunnel ended early"));
    peer.server.end("the connection").await.unwrap();
}
}

over_both! {
async fn a_dropped_server_resets_its_tunnels() {
    let peer = peer(Limits::default()).await;
    let (pool, _plain) = pool(steady());
    let mut session = peer.session(&pool, &peer.server.web()).await;
    session.client.write_all(b"x").await.unwrap();
    assert_eq!(session.server.read_u8().await.unwrap(), b'x');
    peer.server.crash();
    for (name, stream) in [
        ("client", &mut session.client),
        ("server", &mut session.server),
    ] {
        let end = soon(name, stream.read_u8()).await.unwrap_err();
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{name}");
    }
    assert!(session.end("the client's relay").await.is_err());
}
}

fn for_two_seconds<'a>(uris: &'a [&'a str]) -> Leaf<'a> {
    Leaf {
        not_after: SystemTime::now() + Duration::from_secs(2),
        ..Leaf::uris(uris)
    }
}

over_both! {
async fn a_client_retires_a_connection_with_either_certificate() {
    for (name, ours) in [("its own", true), ("the server's", false)] {
        let (handler, mut requests) = HandOver::new();
        let leaf = if ours {
            Leaf::uris(&[CART])
        } else {
            for_two_seconds(&[CART])
        };
        let server = server_as(&leaf, Limits::default(), handler).await;
        let (pool, _plain) = pool(steady());
        let leaf = if ours {
            for_two_seconds(&[WEB])
        } else {
            Leaf::uris(&[WEB])
        };
        let hop = server.hop(server.ca.svid_of(&leaf));
        let request = ask(80);
        let accept = async { requests.recv().await.unwrap().accept("").unwrap() };
        let (near, mut far) = tokio::join!(pool.connect(&hop, &request), accept);
        let mut near = near.unwrap().0;
        eventually(name, || {
            pool.reap();
            pool.connections() == 0
        })
        .await;
        // What is open carries on.
        let room = std::future::poll_fn(|cx| near.poll_capacity(cx, 1));
        assert_eq!(soon(name, room).await.unwrap(), 1, "{name}");
        near.send(bytes::Bytes::from_static(b"x"));
        let read = std::future::poll_fn(|cx| far.poll_read(cx));
        assert_eq!(
            soon(name, read).await.unwrap().as_deref(),
            Some(&b"x"[..]),
            "{name}"
        );
        if ours {
            let error = soon(name, pool.connect(&hop, &request)).await.unwrap_err();
            assert_eq!(error.flag(), "IDENTITY_ERROR", "{error:?}");
            assert_eq!(server.arrivals(), 1, "it is not even shown");
        }
    }
}
}

#[tokio::test]
async fn a_server_takes_no_tunnels_past_the_clients_certificate() {
    let mut peer = peer(Limits::default()).await;
    let svid = peer.server.ca.svid_of(&for_two_seconds(&[WEB]));
    let tls = hbone_client(&svid, ids(&[CART])).unwrap();
    let stream = tls_connect(peer.server.at, tls).await.unwrap();
    let (sender, connection) = h2::client::handshake::<_>(stream).await.unwrap();
    let mut sender = sender.ready().await.unwrap();
    let request = http::Request::connect("10.0.0.2:80").body(()).unwrap();
    let (answer, _stream) = sender.send_request(request, false).unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ended = connection.await;
    });
    let body = soon("an answer", answer).await.unwrap().into_body();
    let refused = async {
        while let Ok(ready) = sender.clone().ready().await {
            drop(ready);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the GOAWAY", refused).await;
    drop((body, _stream, sender));
    peer.server
        .end("the connection, once its tunnel has")
        .await
        .unwrap();
}

over_both! {
async fn in_grace_a_connection_goes_on_and_others_are_made() {
    let (handler, mut requests) = HandOver::new();
    let server = server_as(&for_two_seconds(&[CART]), Limits::default(), handler).await;
    let svid = server.ca.svid_of(&for_two_seconds(&[WEB]));
    let grace = Grace {
        lasts: Duration::from_secs(3600),
        alone: Some(SystemTime::now()),
    };
    let ours = svid.trust().clone();
    server.trust.give(grace);
    ours.give(grace);
    let (old, _plain) = pool(steady());
    let hop = server.hop(svid);
    let request = ask(80);
    let mut meet = async |pool: &Pool<Plain>| {
        let accept = async { requests.recv().await.unwrap().accept("").unwrap() };
        tokio::join!(pool.connect(&hop, &request), accept)
            .0
            .unwrap()
    };
    let _open = soon("a tunnel", meet(&old)).await;
    let ended = hop.svid.not_after() + Duration::from_secs(1);
    eventually("both certificates expire", || SystemTime::now() > ended).await;
    let _second = soon("a tunnel past its end", meet(&old)).await;
    assert_eq!((old.connections(), server.arrivals()), (1, 1));
    let (new, _plain) = pool(steady());
    let _third = soon("a connection past its end", meet(&new)).await;
    server.trust.give(Grace::default());
    let (refused, _plain) = pool(steady());
    let refused = soon("a server that has none", refused.connect(&hop, &request)).await;
    assert!(refused.is_err(), "the server's control plane is there");
    ours.give(Grace::default());
    eventually("the client's is too", || {
        old.reap();
        old.connections() == 0
    })
    .await;
}
}
