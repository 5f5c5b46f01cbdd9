//! Datagrams, and capsules where those do not do.

use std::future::poll_fn;
use std::task::Poll;

use http::StatusCode;
use quinn::SendStream;

use super::leaving::hello;
use crate::h3::testing::{
    Ends, Pair, Task, closed, ends, ends_of, pair, pair_of, spawn, transport, within,
};
use crate::h3::{
    Code, Config, Ended, Flow, Oversize, Request, Response, Sent, Server, StreamError, capsule,
    datagram, frame, server,
};

fn udp() -> Request {
    Request::connect_udp("10.0.0.2:15008", "/.well-known/masque/udp/10.0.0.2/53/")
}

/// A flow, seen from both ends.
async fn flow(ends: &Ends) -> (Flow, Flow) {
    let request = udp();
    let accepting = async {
        let (got, responder) = ends.server.accept().await.unwrap().request().await.unwrap();
        assert_eq!(got, request);
        let stream = responder
            .accept(&Response::new(StatusCode::OK))
            .await
            .unwrap();
        stream.into_flow().unwrap()
    };
    let asking = ends.client.connect(&request);
    let (asked, theirs) = within(async { tokio::join!(asking, accepting) }).await;
    (asked.unwrap().1.into_flow().unwrap(), theirs)
}

async fn send(flow: &mut Flow, payload: &[u8], oversize: Oversize) -> Sent {
    let sent = poll_fn(|cx| Poll::Ready(flow.send(cx, payload, oversize))).await;
    sent.unwrap()
}

async fn recv(flow: &mut Flow) -> Option<Vec<u8>> {
    let got = within(poll_fn(|cx| flow.poll_recv(cx))).await.unwrap();
    got.map(|payload| payload.to_vec())
}

/// Both ends know that the other takes datagrams.
async fn settled(ends: &Ends) {
    within(ends.client.ready()).await.unwrap();
    within(async {
        while !ends.server.sends_datagrams() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_flow_has_its_own_datagrams() {
    let ends = ends().await;
    settled(&ends).await;
    let mut flows = Vec::new();
    for n in 0..100u32 {
        let (ours, theirs) = flow(&ends).await;
        assert_eq!(ours.id(), u64::from(n) * 4);
        flows.push((n, ours, theirs));
    }
    for (n, ours, theirs) in &mut flows {
        let sent = send(ours, &n.to_be_bytes(), Oversize::Drop).await;
        assert_eq!(sent, Sent::Datagram);
        assert_eq!(recv(theirs).await.unwrap(), n.to_be_bytes());
        let sent = send(theirs, b"", Oversize::Drop).await;
        assert_eq!(sent, Sent::Datagram);
        assert_eq!(recv(ours).await.unwrap(), b"");
    }
}

/// Far more at once than wait for a flow, whose owner has its turn meanwhile.
#[tokio::test]
async fn none_of_many_datagrams_at_once_is_lost() {
    let ends = ends().await;
    settled(&ends).await;
    let (mut ours, mut theirs) = flow(&ends).await;
    for n in 0..1000u32 {
        let sent = send(&mut ours, &n.to_be_bytes(), Oversize::Drop).await;
        assert_eq!(sent, Sent::Datagram);
    }
    for n in 0..1000u32 {
        assert_eq!(recv(&mut theirs).await.unwrap(), n.to_be_bytes());
    }
}

#[tokio::test]
async fn what_is_too_long_for_a_datagram_goes_in_a_capsule() {
    let ends = ends().await;
    settled(&ends).await;
    let (mut ours, mut theirs) = flow(&ends).await;
    for (name, length, oversize, want) in [
        ("short", 1000, Oversize::Capsule, Sent::Datagram),
        ("long", 20_000, Oversize::Capsule, Sent::Capsule),
        ("the longest", 65_527, Oversize::Capsule, Sent::Capsule),
        ("long, to be dropped", 20_000, Oversize::Drop, Sent::Dropped),
        ("longer than UDP", 65_528, Oversize::Capsule, Sent::Dropped),
    ] {
        let payload = vec![7; length];
        assert_eq!(send(&mut ours, &payload, oversize).await, want, "{name}");
        if want != Sent::Dropped {
            let received = recv(&mut theirs);
            let moving = poll_fn(|cx| ours.poll_stopped(cx));
            let got = tokio::select! {
                got = received => got,
                stopped = moving => panic!("{name}: {stopped:?}"),
            };
            assert!(got.is_some_and(|got| got == payload), "{name}");
        }
    }
    ours.close();
    assert_eq!(recv(&mut theirs).await, None);
}

#[tokio::test]
async fn without_datagrams_all_goes_in_capsules() {
    let mut none = transport();
    none.datagram_receive_buffer_size(None);
    let config = Config {
        datagrams: false,
        ..Config::default()
    };
    let ends = ends_of(pair_of(none, transport()).await, config);
    let settings = within(ends.client.ready()).await.unwrap();
    assert!(!settings.datagrams);
    let (mut ours, mut theirs) = flow(&ends).await;
    assert_eq!(
        send(&mut theirs, b"down", Oversize::Drop).await,
        Sent::Capsule
    );
    assert_eq!(recv(&mut ours).await.unwrap(), b"down");
    assert_eq!(send(&mut ours, b"up", Oversize::Drop).await, Sent::Capsule);
    assert_eq!(recv(&mut theirs).await.unwrap(), b"up");
    assert!(!ends.server.sends_datagrams());
}

/// A server under test, and a client of bare QUIC.
async fn raw() -> (Pair, Server, (SendStream, Task<Result<(), Ended>>)) {
    let pair = pair().await;
    let (server, driver) = server(pair.server.clone(), Config::default());
    let driving = spawn(driver.run());
    let control = hello(&pair.client).await;
    (pair, server, (control, driving))
}

async fn accept_flow(server: &Server) -> Flow {
    let incoming = within(server.accept()).await.unwrap();
    let (_request, responder) = within(incoming.request()).await.unwrap();
    let ok = Response::new(StatusCode::OK);
    responder.accept(&ok).await.unwrap().into_flow().unwrap()
}

#[tokio::test]
async fn datagrams_before_their_stream_wait_for_it() {
    let (pair, server, _kept) = raw().await;
    // Of the second stream, before either is there.
    for n in 0..20 {
        pair.client
            .send_datagram(datagram::encode(1, 0, &[n]))
            .unwrap();
    }
    // And of a context that means nothing.
    pair.client
        .send_datagram(datagram::encode(0, 2, b"?"))
        .unwrap();
    pair.client
        .send_datagram(datagram::encode(0, 0, b"!"))
        .unwrap();
    within(async {
        while pair.server.stats().frame_rx.datagram < 22 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let head = frame::whole(frame::HEADERS, &udp().encode().0);
    let (mut first, _first) = pair.client.open_bi().await.unwrap();
    first.write_all(&head).await.unwrap();
    let mut one = accept_flow(&server).await;
    assert_eq!(recv(&mut one).await.unwrap(), b"!");
    let (mut second, _second) = pair.client.open_bi().await.unwrap();
    second.write_all(&head).await.unwrap();
    let mut two = accept_flow(&server).await;
    for n in 0..16 {
        assert_eq!(recv(&mut two).await.unwrap(), [n]);
    }
    pair.client
        .send_datagram(datagram::encode(1, 0, b"live"))
        .unwrap();
    assert_eq!(
        recv(&mut two).await.unwrap(),
        b"live",
        "the 17th was not held"
    );
    // Of a stream that is over.
    drop(one);
    pair.client
        .send_datagram(datagram::encode(0, 0, b"late"))
        .unwrap();
    pair.client
        .send_datagram(datagram::encode(1, 0, b"next"))
        .unwrap();
    assert_eq!(recv(&mut two).await.unwrap(), b"next");
    assert_eq!(pair.client.close_reason(), None);
}

#[tokio::test]
async fn capsules_come_in_any_pieces() {
    let (pair, server, _kept) = raw().await;
    let (mut stream, _recv) = pair.client.open_bi().await.unwrap();
    let head = frame::whole(frame::HEADERS, &udp().encode().0);
    stream.write_all(&head).await.unwrap();
    let mut flow = accept_flow(&server).await;
    let capsules = [
        &capsule::encode(0, b"one")[..],
        &[0x21, 3, 9, 9, 9],
        &capsule::encode(0, &[7; 3000]),
        &capsule::encode(5, b"of another context"),
        &capsule::encode(0, b""),
    ]
    .concat();
    for sizes in [&[1usize][..], &[2, 1], &[700], &[1 << 20]] {
        let sending = async {
            let mut rest = &capsules[..];
            let mut sizes = sizes.iter().cycle();
            while !rest.is_empty() {
                let size = sizes.next().map_or(1, |size| *size);
                let (some, more) = rest.split_at(size.min(rest.len()));
                stream
                    .write_all(&frame::whole(frame::DATA, some))
                    .await
                    .unwrap();
                rest = more;
            }
        };
        let receiving = async {
            assert_eq!(recv(&mut flow).await.unwrap(), b"one", "{sizes:?}");
            assert_eq!(recv(&mut flow).await.unwrap(), [7; 3000], "{sizes:?}");
            assert_eq!(recv(&mut flow).await.unwrap(), b"", "{sizes:?}");
        };
        within(async { tokio::join!(sending, receiving) }).await;
    }
    stream.finish().unwrap();
    assert_eq!(recv(&mut flow).await, None);
}

#[tokio::test]
async fn a_flow_that_holds_no_capsules_is_reset() {
    for (name, data, want) in [
        ("half a capsule", &[0, 2, 0][..], Code::MESSAGE_ERROR),
        (
            "a capsule too long",
            &[0, 0x80, 1, 0, 0],
            Code::MESSAGE_ERROR,
        ),
        ("no context", &[0, 0], Code::MESSAGE_ERROR),
        (
            "unknown capsules for ever",
            &[0x21, 0].repeat(65),
            Code::EXCESSIVE_LOAD,
        ),
    ] {
        let (pair, server, _kept) = raw().await;
        let (mut stream, mut answer) = pair.client.open_bi().await.unwrap();
        let head = frame::whole(frame::HEADERS, &udp().encode().0);
        let data = frame::whole(frame::DATA, data);
        stream
            .write_all(&[&head[..], &data].concat())
            .await
            .unwrap();
        stream.finish().unwrap();
        let mut flow = accept_flow(&server).await;
        let error = within(poll_fn(|cx| flow.poll_recv(cx))).await.unwrap_err();
        let code = want;
        assert!(
            matches!(error, StreamError::Malformed(f) if f.code == code),
            "{name}: {error:?}"
        );
        let reset = within(answer.received_reset()).await;
        assert_eq!(reset, Ok(Some(want.quic())), "{name}");
        assert_eq!(pair.client.close_reason(), None, "{name}");
    }
}

#[tokio::test]
async fn a_datagram_of_no_stream_ends_the_connection() {
    for (name, datagram) in [("empty", &[][..]), ("half", &[0x40]), ("none", &[0xff; 8])] {
        let (pair, _server, _kept) = raw().await;
        let datagram = bytes::Bytes::copy_from_slice(datagram);
        pair.client.send_datagram(datagram).unwrap();
        assert_eq!(closed(&pair.client).await, Code::DATAGRAM_ERROR, "{name}");
    }
}

/// Both ends have to take them, or neither sends any (RFC 9297, section 2.1.1).
#[tokio::test]
async fn who_takes_no_datagrams_sends_none() {
    let pair = pair().await;
    let config = Config {
        datagrams: false,
        ..Config::default()
    };
    let (server, driver) = server(pair.server.clone(), config);
    let _driving = spawn(driver.run());
    let mut control = pair.client.open_uni().await.unwrap();
    control.write_all(&[0, 4, 2, 0x33, 1]).await.unwrap();
    let head = frame::whole(frame::HEADERS, &udp().encode().0);
    let (mut stream, _recv) = pair.client.open_bi().await.unwrap();
    stream.write_all(&head).await.unwrap();
    let incoming = within(server.accept()).await.unwrap();
    let (_request, responder) = within(incoming.request()).await.unwrap();
    let ok = Response::new(StatusCode::OK);
    let stream = responder.accept(&ok).await.unwrap();
    let mut status = stream.shared().unwrap().status.subscribe();
    within(status.wait_for(|status| status.peer.is_some()))
        .await
        .unwrap();
    assert!(!server.sends_datagrams());
    let mut flow = stream.into_flow().unwrap();
    let sent = send(&mut flow, b"down", Oversize::Drop).await;
    assert_eq!(sent, Sent::Capsule);
}

#[tokio::test]
async fn datagrams_before_the_end_come_before_it() {
    let (pair, server, _kept) = raw().await;
    for n in 0..3 {
        pair.client
            .send_datagram(datagram::encode(0, 0, &[n]))
            .unwrap();
    }
    within(async {
        while pair.server.stats().frame_rx.datagram < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (mut stream, _recv) = pair.client.open_bi().await.unwrap();
    let head = frame::whole(frame::HEADERS, &udp().encode().0);
    stream.write_all(&head).await.unwrap();
    stream.finish().unwrap();
    let mut flow = accept_flow(&server).await;
    for n in 0..3 {
        assert_eq!(recv(&mut flow).await, Some(vec![n]));
    }
    assert_eq!(recv(&mut flow).await, None);
}

#[tokio::test]
async fn nothing_is_sent_after_a_reset() {
    let ends = ends().await;
    settled(&ends).await;
    let (mut ours, _theirs) = flow(&ends).await;
    ours.reset(Code::CONNECT_ERROR);
    let sent = poll_fn(|cx| Poll::Ready(ours.send(cx, b"late", Oversize::Drop))).await;
    assert!(matches!(sent, Err(StreamError::Closed)), "{sent:?}");
}

/// Capsules of contexts that there are not are passed over, however many, but others have their
/// turn meanwhile.
#[tokio::test]
async fn capsules_that_mean_nothing_do_not_keep_others_waiting() {
    let (pair, server, _kept) = raw().await;
    let (mut stream, _recv) = pair.client.open_bi().await.unwrap();
    let head = frame::whole(frame::HEADERS, &udp().encode().0);
    let foreign = capsule::encode(5, b"").repeat(10_000);
    let one = capsule::encode(0, b"one");
    let data = frame::whole(frame::DATA, &[&foreign[..], &one].concat());
    stream
        .write_all(&[&head[..], &data].concat())
        .await
        .unwrap();
    let mut flow = accept_flow(&server).await;
    let mut turns = 0;
    let got = within(poll_fn(|cx| {
        turns += 1;
        flow.poll_recv(cx)
    }))
    .await;
    assert_eq!(got.unwrap().as_deref(), Some(&b"one"[..]));
    assert!(turns > 20, "{turns}");
}
