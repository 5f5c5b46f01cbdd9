//! GOAWAY, and how a connection ends.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use quinn::{ReadError, VarInt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::h3::testing::{accept, closed, ends, ends_of, pair, pair_of, spawn, transport, within};
use crate::h3::{
    Code, Config, Ended, Request, RequestError, Response, StreamError, client, frame, server,
};

#[tokio::test]
async fn a_server_that_leaves_lets_streams_finish() {
    let mut ends = ends().await;
    let (mut ours, mut theirs) = ends.stream().await;
    ends.server.leave();
    let request = Request::connect("10.0.0.2:80");
    within(async {
        while ends.client.is_usable() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let refused = ends.client.connect(&request).await.unwrap_err();
    assert!(matches!(refused, RequestError::Unprocessed), "{refused:?}");
    ours.write_all(b"still").await.unwrap();
    ours.shutdown().await.unwrap();
    let mut got = Vec::new();
    within(theirs.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"still");
    theirs.shutdown().await.unwrap();
    assert_eq!(within(ours.read_to_end(&mut got)).await.unwrap(), 0);
    drop((ours, theirs));
    while let Some(ended) = within(ends.drivers.join_next()).await {
        ended.unwrap().unwrap();
    }
    let over = within(ends.server.accept()).await.unwrap_err();
    assert!(over.is_orderly(), "{over:?}");
    let over = within(ends.client.ready()).await.unwrap_err();
    assert!(matches!(over, Ended::Here), "{over:?}");
}

#[tokio::test]
async fn a_client_that_leaves_lets_streams_finish() {
    let mut ends = ends().await;
    let (mut ours, mut theirs) = ends.stream().await;
    ends.client.leave();
    ends.client.leave();
    let request = Request::connect("10.0.0.2:80");
    let refused = ends.client.connect(&request).await.unwrap_err();
    assert!(refused.is_unprocessed(), "{refused:?}");
    theirs.write_all(b"still").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut got = Vec::new();
    within(ours.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"still");
    // The last that happens is that this arrives: more than leaves at once.
    let last = vec![1; 1 << 20];
    within(ours.write_all(&last)).await.unwrap();
    ours.shutdown().await.unwrap();
    drop(ours);
    got.clear();
    within(theirs.read_to_end(&mut got)).await.unwrap();
    assert!(got == last);
    while let Some(ended) = within(ends.drivers.join_next()).await {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn requests_after_goaway_are_rejected() {
    let pair = pair().await;
    let (server, driver) = server(pair.server.clone(), Config::default());
    let driving = spawn(driver.run());
    let (_control, mut first) = (hello(&pair.client).await, open(&pair.client).await);
    let stream = accept(within(server.accept()).await.unwrap()).await;
    server.leave();
    let (mut send, mut recv) = open(&pair.client).await;
    let accepting = spawn(async move { server.accept().await.map(drop) });
    let code = VarInt::from(0x10bu32);
    let read = within(recv.read_chunk(1, true)).await;
    assert_eq!(read.unwrap_err(), ReadError::Reset(code));
    assert_eq!(within(send.stopped()).await, Ok(Some(code)));
    // The stream from before lives on.
    first
        .0
        .write_all(&frame::whole(frame::DATA, b"x"))
        .await
        .unwrap();
    let mut stream = stream;
    let mut byte = [0];
    within(stream.read_exact(&mut byte)).await.unwrap();
    send.reset(code).unwrap_or_default();
    drop(stream);
    // The client does not close, so the server does after a while.
    assert_eq!(closed(&pair.client).await, Code::NO_ERROR);
    within(driving).await.unwrap().unwrap();
    assert!(within(accepting).await.unwrap().unwrap_err().is_orderly());
}

/// To reject them costs us more than it costs a client to make them.
#[tokio::test]
async fn requests_after_goaway_are_few() {
    let pair = pair().await;
    let config = Config {
        wasted: 20,
        ..Config::default()
    };
    let (server, driver) = server(pair.server.clone(), config);
    let _driving = spawn(driver.run());
    let (_control, _first) = (hello(&pair.client).await, open(&pair.client).await);
    let _stream = accept(within(server.accept()).await.unwrap()).await;
    server.leave();
    let _accepting = spawn(async move { server.accept().await.map(drop) });
    let head = frame::whole(frame::HEADERS, &[0, 0]);
    let mut made = 0;
    while made < 1000
        && let Ok((mut send, recv)) = pair.client.open_bi().await
    {
        let _sent = send.write_all(&head).await;
        let _stopped = send.stopped().await;
        drop(recv);
        made += 1;
    }
    assert_eq!(closed(&pair.client).await, Code::EXCESSIVE_LOAD);
    assert!((20..100).contains(&made), "{made}");
}

#[tokio::test]
async fn a_request_that_goaway_passes_over_is_unprocessed() {
    let pair = pair().await;
    let (client, driver) = client(pair.client.clone(), Config::default());
    let driving = spawn(driver.run());
    let mut control = hello(&pair.server).await;
    let asking = spawn(async move {
        client
            .connect(&Request::connect("10.0.0.2:80"))
            .await
            .map(drop)
    });
    let _unanswered = within(pair.server.accept_bi()).await.unwrap();
    control.write_all(&frame::goaway(0)).await.unwrap();
    let error = within(asking).await.unwrap().unwrap_err();
    assert!(matches!(error, RequestError::Unprocessed), "{error:?}");
    assert_eq!(closed(&pair.server).await, Code::NO_ERROR);
    within(driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_is_rejected_is_unprocessed() {
    let pair = pair().await;
    let (client, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let _control = hello(&pair.server).await;
    for (name, code, unprocessed) in [
        ("rejected", Code::REQUEST_REJECTED, true),
        ("cancelled", Code::REQUEST_CANCELLED, false),
    ] {
        let client = client.clone();
        let asking = spawn(async move {
            client
                .connect(&Request::connect("10.0.0.2:80"))
                .await
                .map(drop)
        });
        let (mut send, _recv) = within(pair.server.accept_bi()).await.unwrap();
        send.reset(code.quic()).unwrap();
        let error = within(asking).await.unwrap().unwrap_err();
        assert_eq!(error.is_unprocessed(), unprocessed, "{name}: {error:?}");
    }
}

#[tokio::test]
async fn a_connection_is_usable_once_settings_have_come() {
    let pair = pair().await;
    let (client, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let waiting = client.clone();
    let ready = spawn(async move { waiting.ready().await });
    // The peer has our SETTINGS, and still has not sent any.
    let mut control = within(pair.server.accept_uni()).await.unwrap();
    let mut greeting = [0; 3];
    within(control.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(greeting[..2], [0, 4]);
    assert!(!ready.handle.is_finished());
    let _ours = hello(&pair.server).await;
    let settings = within(ready).await.unwrap().unwrap();
    assert!(!settings.extended_connect, "it has not offered it");
    let udp = Request::connect_udp("10.0.0.2:15008", "/.well-known/masque/udp/10.0.0.2/53/");
    let error = within(client.connect(&udp)).await.unwrap_err();
    assert!(matches!(error, RequestError::NotOffered), "{error:?}");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_head() {
    let ends = ends().await;
    let request = Request::connect("10.0.0.2:80");
    let refusing = async {
        let (got, responder) = ends.server.accept().await.unwrap().request().await.unwrap();
        assert_eq!(got, request);
        let mut response = Response::new(StatusCode::UNAUTHORIZED);
        response.headers.insert("x-why", "policy".parse().unwrap());
        responder.refuse(&response);
    };
    let asked = ends.client.connect(&request);
    let (asked, ()) = within(async { tokio::join!(asked, refusing) }).await;
    let error = asked.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::UNAUTHORIZED));
    let RequestError::Refused(response) = error else {
        panic!("{error:?}");
    };
    assert_eq!(response.headers["x-why"], "policy");
}

#[tokio::test]
async fn streams_that_nobody_reads_do_not_linger_for_ever() {
    let mut small = transport();
    small.stream_receive_window(10_000u32.into());
    let config = Config {
        linger: Duration::from_millis(100),
        ..Config::default()
    };
    let ends = ends_of(pair_of(transport(), small).await, config);
    let (mut ours, mut theirs) = ends.stream().await;
    poll_fn(|cx| ours.poll_ready(cx)).await.unwrap();
    ours.send(vec![0; 64 << 10].into());
    ours.close();
    within(async {
        while ends.client.streams() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let error = within(async {
        loop {
            if let Err(error) = poll_fn(|cx| theirs.poll_data(cx)).await {
                return error;
            }
        }
    })
    .await;
    let want = Code::CONNECT_ERROR;
    assert!(
        matches!(error, StreamError::Reset { code } if code == want),
        "what did not arrive is no end: {error:?}"
    );
}

/// Requests that the end of the connection cuts were not withdrawn by anybody.
#[tokio::test]
async fn who_closes_a_connection_is_not_told_that_the_peer_did_wrong() {
    let config = Config {
        wasted: 1,
        ..Config::default()
    };
    let mut ends = ends_of(pair().await, config);
    let mut asking = tokio::task::JoinSet::new();
    let mut waiting = Vec::new();
    for _n in 0..5 {
        let client = ends.client.clone();
        asking.spawn(async move { client.connect(&Request::connect("a:1")).await.map(drop) });
        let incoming = within(ends.server.accept()).await.unwrap();
        waiting.push(within(incoming.request()).await.unwrap().1);
    }
    ends.drivers.abort_all();
    while ends.drivers.join_next().await.is_some() {}
    for mut responder in waiting {
        let gone = within(responder.cancelled()).await;
        assert!(matches!(gone, StreamError::Ended(Ended::Here)), "{gone:?}");
    }
    let ended = within(ends.server.accept()).await.map(drop);
    assert!(matches!(ended, Err(Ended::Here)), "{ended:?}");
}

/// A stream that outlives its connection keeps nothing of it when it goes.
#[tokio::test]
async fn streams_that_outlive_their_driver_leave_nothing_behind() {
    let mut ends = ends().await;
    let (mut ours, theirs) = ends.stream().await;
    let shared = Arc::downgrade(ours.shared().unwrap());
    ours.finish();
    ends.drivers.abort_all();
    while ends.drivers.join_next().await.is_some() {}
    ours.close();
    drop((theirs, ends));
    assert_eq!(shared.strong_count(), 0);
}

/// Opens a control stream as a peer that sends no settings of note.
pub(super) async fn hello(connection: &quinn::Connection) -> quinn::SendStream {
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&[0, 4, 0]).await.unwrap();
    control
}

/// Opens a request stream with a CONNECT on it.
pub(super) async fn open(connection: &quinn::Connection) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    let (section, _) = Request::connect("10.0.0.2:80").encode();
    send.write_all(&frame::whole(frame::HEADERS, &section))
        .await
        .unwrap();
    (send, recv)
}
