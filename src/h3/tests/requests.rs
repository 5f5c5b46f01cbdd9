//! Peers that break the protocol on request streams: each gets the code that the RFCs have for it.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use ::bytes::Bytes;
use futures::FutureExt as _;
use http::StatusCode;
use quinn::ReadError;

use super::leaving::{hello, open};
use crate::h3::testing::{accept, closed, pair, spawn, within};
use crate::h3::{
    Code, Config, Request, RequestError, Response, StreamError, client, frame, server,
};

fn connect() -> Bytes {
    frame::whole(frame::HEADERS, &Request::connect("a:1").encode().0)
}

/// What a client may not send on a request stream.
#[tokio::test]
async fn request_streams_are_judged() {
    enum End {
        Connection,
        Stream,
    }
    let after = |frames: &[u8]| [&connect()[..], frames].concat();
    let section = |section: &[u8]| frame::whole(frame::HEADERS, section).to_vec();
    let unexpected = Code::FRAME_UNEXPECTED;
    let (load, section_error) = (Code::EXCESSIVE_LOAD, Code::QPACK_DECOMPRESSION_FAILED);
    #[rustfmt::skip]
    let rows = [
        ("DATA before HEADERS", vec![0, 1, 9], false, End::Connection, unexpected),
        ("SETTINGS", vec![4, 0], false, End::Connection, unexpected),
        ("GOAWAY", vec![7, 1, 0], false, End::Connection, unexpected),
        ("PUSH_PROMISE", vec![5, 0], false, End::Connection, unexpected),
        ("PING of HTTP/2", vec![6, 0], false, End::Connection, unexpected),
        ("trailers", after(&[1, 2, 0, 0]), false, End::Connection, unexpected),
        ("SETTINGS later", after(&[4, 0]), false, End::Connection, unexpected),
        ("PRIORITY of HTTP/2 later", after(&[2, 0]), false, End::Connection, unexpected),
        ("MAX_PUSH_ID later", after(&[13, 1, 0]), false, End::Connection, unexpected),
        ("half a frame's header", after(&[0]), true, End::Connection, Code::FRAME_ERROR),
        ("half a frame", after(&[0, 2, 9]), true, End::Connection, Code::FRAME_ERROR),
        ("half a request", connect()[..6].to_vec(), true, End::Connection, Code::FRAME_ERROR),
        ("no such section", section(&[0, 0, 0x80]), false, End::Connection, section_error),
        ("an insert is required", section(&[2, 0]), false, End::Connection, section_error),
        ("empty DATA for ever", after(&[0, 0].repeat(65)), false, End::Connection, load),
        ("unknown frames for ever", [0x21, 0].repeat(65), false, End::Connection, load),
        ("a huge unknown frame", after(&[0x21, 0xc0, 0, 0, 0, 0, 0xff, 0, 0]), false, End::Connection, load),
        ("no authority", section(&[0, 0, 0xcf]), false, End::Stream, Code::MESSAGE_ERROR),
        ("nothing in it", section(&[0, 0]), false, End::Stream, Code::MESSAGE_ERROR),
        ("nothing at all", vec![], true, End::Stream, Code::REQUEST_INCOMPLETE),
        ("nothing of note", vec![0x21, 0], true, End::Stream, Code::REQUEST_INCOMPLETE),
    ];
    for (name, bytes, ends, end, want) in rows {
        let pair = pair().await;
        let (server, driver) = server(pair.server.clone(), Config::default());
        let _driving = spawn(driver.run());
        let _control = hello(&pair.client).await;
        let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
        let _closed = send.write_all(&bytes).await;
        if ends {
            send.finish().unwrap();
        }
        let serving = spawn(async move {
            let Ok((_request, responder)) = server.accept().await.unwrap().request().await else {
                // What was opened stays open otherwise.
                return Some(server);
            };
            let ok = Response::new(StatusCode::OK);
            let mut stream = responder.accept(&ok).await.ok()?;
            while let Ok(Some(_)) = poll_fn(|cx| stream.poll_data(cx)).await {}
            Some(server)
        });
        match end {
            End::Connection => assert_eq!(closed(&pair.client).await, want, "{name}"),
            End::Stream => {
                let read = within(recv.read_chunk(1, true)).await;
                assert_eq!(read.unwrap_err(), ReadError::Reset(want.quic()), "{name}");
                if !ends {
                    assert_eq!(
                        within(send.stopped()).await,
                        Ok(Some(want.quic())),
                        "{name}"
                    );
                }
                let (mut send, _recv) = open(&pair.client).await;
                send.finish().unwrap();
                let server = within(serving).await.unwrap().unwrap();
                accept(within(server.accept()).await.unwrap()).await;
            }
        }
    }
}

/// What a server may not answer.
#[tokio::test]
async fn responses_are_judged() {
    let section = |section: &[u8]| frame::whole(frame::HEADERS, section).to_vec();
    let ok = section(&[0, 0, 0xd9]);
    let early = section(&[0, 0, 0xd8]);
    let after = |frames: &[u8]| [&ok[..], frames].concat();
    let (connection, stream) = (true, false);
    #[rustfmt::skip]
    let rows = [
        ("DATA first", vec![0, 1, 9], false, connection, Code::FRAME_UNEXPECTED),
        ("a push", vec![5, 1, 0], false, connection, Code::ID_ERROR),
        ("a push later", after(&[5, 1, 0]), false, connection, Code::ID_ERROR),
        ("trailers", after(&[1, 2, 0, 0]), false, connection, Code::FRAME_UNEXPECTED),
        ("half a frame", after(&[0, 2, 9]), true, connection, Code::FRAME_ERROR),
        ("no section", section(&[0, 0, 0x10]), false, connection, Code::QPACK_DECOMPRESSION_FAILED),
        ("a request", section(&[0, 0, 0xcf]), false, stream, Code::MESSAGE_ERROR),
        ("no status", section(&[0, 0]), false, stream, Code::MESSAGE_ERROR),
        ("only early hints", early.repeat(17), false, stream, Code::MESSAGE_ERROR),
    ];
    for (name, bytes, ends, of, want) in rows {
        let pair = pair().await;
        let (client, driver) = client(pair.client.clone(), Config::default());
        let _driving = spawn(driver.run());
        let _control = hello(&pair.server).await;
        let asking = spawn(async move {
            let (_response, mut stream) = client.connect(&Request::connect("a:1")).await?;
            while poll_fn(|cx| stream.poll_data(cx)).await?.is_some() {}
            Ok::<_, RequestError>(())
        });
        let (mut send, mut recv) = within(pair.server.accept_bi()).await.unwrap();
        let _closed = send.write_all(&bytes).await;
        if ends {
            send.finish().unwrap();
        }
        if of == connection {
            assert_eq!(closed(&pair.server).await, want, "{name}");
        } else {
            assert_eq!(
                within(send.stopped()).await,
                Ok(Some(want.quic())),
                "{name}"
            );
            let read = within(recv.read_to_end(1000)).await;
            assert!(read.is_err(), "{name}");
        }
        let error = within(asking).await.unwrap().unwrap_err();
        assert!(!error.is_unprocessed(), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn hints_before_the_answer_are_passed_over() {
    let pair = pair().await;
    let (client, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let _control = hello(&pair.server).await;
    let asking = spawn(async move { client.connect(&Request::connect("a:1")).await });
    let (mut send, _recv) = within(pair.server.accept_bi()).await.unwrap();
    let hint = frame::whole(frame::HEADERS, &[0, 0, 0xd8]);
    let ok = frame::whole(frame::HEADERS, &[0, 0, 0xd9]);
    send.write_all(&[&hint[..], &hint, &[0x21, 1, 0], &ok].concat())
        .await
        .unwrap();
    let (response, _stream) = within(asking).await.unwrap().unwrap();
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn a_response_that_does_not_come_is_malformed() {
    let pair = pair().await;
    let (client, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let _control = hello(&pair.server).await;
    let asking = spawn(async move { client.connect(&Request::connect("a:1")).await });
    let (mut send, _recv) = within(pair.server.accept_bi()).await.unwrap();
    send.finish().unwrap();
    let error = within(asking).await.unwrap().unwrap_err();
    assert!(
        matches!(error, RequestError::Stream(StreamError::Malformed(_))),
        "{error:?}"
    );
}

/// A client that sends all it has with its request is heard in full, and whoever waited for it to
/// give up is not kept.
#[tokio::test]
async fn what_comes_before_the_answer_is_read_after_it() {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let nobody = Arc::new(Nobody);
    let waker = Waker::from(Arc::clone(&nobody));
    let pair = pair().await;
    let (server, driver) = server(pair.server.clone(), Config::default());
    let _driving = spawn(driver.run());
    let _control = hello(&pair.client).await;
    let (mut send, mut recv) = open(&pair.client).await;
    let incoming = within(server.accept()).await.unwrap();
    let (_request, mut responder) = within(incoming.request()).await.unwrap();
    let data = frame::whole(frame::DATA, b"early");
    send.write_all(&data).await.unwrap();
    send.finish().unwrap();
    // All of it is there.
    assert_eq!(within(send.stopped()).await, Ok(None));
    for _again in 0..3 {
        let mut cancelled = pin!(responder.cancelled());
        let now = cancelled.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(now.is_pending(), "it has ended, and waits");
    }
    drop(waker);
    let ok = Response::new(StatusCode::OK);
    let mut stream = responder.accept(&ok).await.unwrap();
    let got = within(poll_fn(|cx| stream.poll_data(cx))).await.unwrap();
    assert_eq!(got.as_deref(), Some(&b"early"[..]));
    let end = within(poll_fn(|cx| stream.poll_data(cx))).await.unwrap();
    assert_eq!(end, None);
    stream.finish();
    drop(stream);
    within(recv.read_to_end(100)).await.unwrap();
    within(async {
        while Arc::strong_count(&nobody) > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A client that gives up after it has sent something is seen to, and once seen it stays so.
#[tokio::test]
async fn a_request_that_is_reset_before_its_answer_is_wasted() {
    for (name, waits) in [("waited for", true), ("answered", false)] {
        let pair = pair().await;
        let config = Config {
            wasted: 3,
            ..Config::default()
        };
        let (server, driver) = server(pair.server.clone(), config);
        let _driving = spawn(driver.run());
        let _control = hello(&pair.client).await;
        // To drop them would say more, and what answers that may overtake why it was closed.
        let mut kept = Vec::new();
        for n in 1..=4 {
            let (mut send, recv) = open(&pair.client).await;
            let early = frame::whole(frame::DATA, b"early");
            send.write_all(&early).await.unwrap();
            let incoming = within(server.accept()).await.unwrap();
            let (_request, mut responder) = within(incoming.request()).await.unwrap();
            // The client takes an answer still, and has cut what it had to say.
            send.reset(Code::REQUEST_CANCELLED.quic()).unwrap();
            kept.push(recv);
            // The server has that.
            within(async {
                while send.stopped().now_or_never().is_none() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            if waits {
                within(responder.cancelled()).await;
            }
            let ok = Response::new(StatusCode::OK);
            let error = within(responder.accept(&ok)).await.map(drop);
            let code = Code::REQUEST_CANCELLED;
            assert!(
                matches!(error, Err(StreamError::Reset { code: c }) if c == code) || n == 4,
                "{name}, request {n}: {error:?}"
            );
        }
        assert_eq!(closed(&pair.client).await, Code::EXCESSIVE_LOAD, "{name}");
    }
}
