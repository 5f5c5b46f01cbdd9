//! Peers that ask for too much.

use std::future::poll_fn;

use http::{HeaderValue, StatusCode};
use proptest::prelude::any;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use quinn::VarInt;

use super::leaving::hello;
use crate::h3::testing::{accept, closed, ends, ends_of, pair, spawn, within};
use crate::h3::{Code, Config, Request, RequestError, Response, client, frame, server};

fn large(bytes: usize) -> Request {
    let mut request = Request::connect("10.0.0.2:80");
    let value = HeaderValue::from_bytes(&vec![b'a'; bytes]).unwrap();
    request.headers.insert("baggage", value);
    request
}

#[tokio::test]
async fn a_request_too_large_for_the_peer_is_not_made() {
    let ends = ends().await;
    let (_, size) = large(0).encode();
    let fits = (64 << 10) - size as usize;
    let error = within(ends.client.connect(&large(fits + 1)))
        .await
        .unwrap_err();
    assert!(matches!(error, RequestError::TooLarge), "{error:?}");
    assert_eq!(ends.client.streams(), 0);
    let request = large(fits);
    let asked = ends.client.connect(&request);
    let accepting = async { accept(ends.server.accept().await.unwrap()).await };
    let (asked, _stream) = within(async { tokio::join!(asked, accepting) }).await;
    asked.unwrap();
}

/// By the size on the wire, by what it decodes to, and by the number of fields.
#[tokio::test]
async fn a_request_too_large_for_us_is_answered_431() {
    let many = |n: usize| [&[0, 0, 0xcf, 0x50, 3][..], b"a:1", &vec![0xc2; n]].concat();
    // 1 + 6 bytes of `date` in the static table and 48 of value: no more than 128, but 84 each.
    let wide = [&[0x56, 48][..], &[b'a'; 48]].concat().repeat(125);
    let config = Config {
        field_section: 8 << 10,
        ..Config::default()
    };
    for (name, section, good) in [
        ("128 fields", many(126), true),
        ("129 fields", many(127), false),
        ("10 KB decoded", [&many(0)[..], &wide].concat(), false),
        ("9 KB on the wire", vec![0; 9 << 10], false),
    ] {
        let pair = pair().await;
        let (server, driver) = server(pair.server.clone(), config.clone());
        let _driving = spawn(driver.run());
        let _control = hello(&pair.client).await;
        let (mut send, mut recv) = pair.client.open_bi().await.unwrap();
        let _stopped = send
            .write_all(&frame::whole(frame::HEADERS, &section))
            .await;
        let incoming = within(server.accept()).await.unwrap();
        match within(incoming.request()).await {
            Ok(_) => assert!(good, "{name}"),
            Err(RequestError::TooLarge) => {
                assert!(!good, "{name}");
                let answer = within(recv.read_to_end(1000)).await.unwrap();
                let (section, _) =
                    Response::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).encode();
                assert_eq!(answer, frame::whole(frame::HEADERS, &section), "{name}");
                let stopped = within(send.stopped()).await;
                assert_eq!(stopped, Ok(Some(Code::NO_ERROR.quic())), "{name}");
            }
            Err(other) => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_response_too_large_is_not_taken() {
    let pair = pair().await;
    let (client, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let _control = hello(&pair.server).await;
    let asking = spawn(async move { client.connect(&Request::connect("a:1")).await });
    let (mut send, _recv) = within(pair.server.accept_bi()).await.unwrap();
    let _stopped = send
        .write_all(&frame::header(frame::HEADERS, (64 << 10) + 1))
        .await;
    let error = within(asking).await.unwrap().unwrap_err();
    assert!(matches!(error, RequestError::TooLarge), "{error:?}");
    let stopped = within(send.stopped()).await;
    assert_eq!(stopped, Ok(Some(Code::EXCESSIVE_LOAD.quic())));
}

/// Requests that are reset as soon as they are made, or that provoke us to reset them, cost us more
/// than the peer: it may do so only so often.
#[tokio::test]
async fn requests_that_come_to_nothing_are_counted() {
    for (name, malformed) in [("reset", false), ("malformed", true)] {
        let pair = pair().await;
        let config = Config {
            wasted: 20,
            ..Config::default()
        };
        let (server, driver) = server(pair.server.clone(), config);
        let _driving = spawn(driver.run());
        let serving = spawn(async move {
            let mut served = 0;
            while let Ok(incoming) = server.accept().await {
                served += 1;
                if let Ok((_request, mut responder)) = incoming.request().await {
                    responder.cancelled().await;
                }
            }
            served
        });
        let _control = hello(&pair.client).await;
        let section = match malformed {
            true => vec![0, 0].into(),
            false => Request::connect("10.0.0.2:80").encode().0,
        };
        for _n in 0..1000 {
            let Ok((mut send, mut recv)) = pair.client.open_bi().await else {
                break;
            };
            let _closed = send
                .write_all(&frame::whole(frame::HEADERS, &section))
                .await;
            if malformed {
                let _reset = send.stopped().await;
            } else {
                let code = VarInt::from_u32(0x10c);
                let _reset = (send.reset(code), recv.stop(code));
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(closed(&pair.client).await, Code::EXCESSIVE_LOAD, "{name}");
        let served = within(serving).await.unwrap();
        assert!(served >= 20, "{name}: {served}");
    }
}

#[tokio::test]
async fn frames_that_hold_bytes_may_be_many_and_empty_ones_few() {
    let ends = ends_of(pair().await, Config::default());
    let (mut ours, mut theirs) = ends.stream().await;
    let sending = async {
        for n in 0..2000u32 {
            poll_fn(|cx| ours.poll_ready(cx)).await.unwrap();
            ours.send(n.to_be_bytes().to_vec().into());
        }
        ours.finish();
        poll_fn(|cx| ours.poll_ready(cx)).await.unwrap();
    };
    let receiving = async {
        let mut got = 0;
        while let Some(bytes) = poll_fn(|cx| theirs.poll_data(cx)).await.unwrap() {
            got += bytes.len();
        }
        got
    };
    let ((), got) = within(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(got, 8000);
}

/// A server lives through whatever is said to it, in its place or not.
#[tokio::test]
async fn nothing_that_is_said_is_taken_ill() {
    let mut runner = TestRunner::deterministic();
    let mut noise = |most: usize| {
        let bytes = proptest::collection::vec(any::<u8>(), 0..most);
        bytes.new_tree(&mut runner).unwrap().current()
    };
    let udp = Request::connect_udp("10.0.0.2:15008", "/.well-known/masque/udp/10.0.0.2/53/");
    let head = frame::whole(frame::HEADERS, &udp.encode().0);
    for n in 0..100u8 {
        let pair = pair().await;
        let (server, driver) = server(pair.server.clone(), Config::default());
        let driving = spawn(driver.run());
        let serving = spawn(async move {
            while let Ok(incoming) = server.accept().await {
                let Ok((_request, responder)) = incoming.request().await else {
                    continue;
                };
                let ok = Response::new(StatusCode::OK);
                let Ok(stream) = responder.accept(&ok).await else {
                    continue;
                };
                let mut flow = stream.into_flow().unwrap();
                while let Ok(Some(_)) = poll_fn(|cx| flow.poll_recv(cx)).await {}
            }
        });
        // Any one of them may be the end of the connection, and often is.
        let said = async {
            let mut control = pair.client.open_uni().await.ok()?;
            let settings = [&[0, 4, 0][..], &noise(60)].concat();
            control.write_all(&settings).await.ok()?;
            let mut other = pair.client.open_uni().await.ok()?;
            other
                .write_all(&[&[n % 5][..], &noise(60)].concat())
                .await
                .ok()?;
            pair.client.send_datagram(noise(20).into()).ok()?;
            let (mut send, _recv) = pair.client.open_bi().await.ok()?;
            let data = frame::whole(frame::DATA, &noise(200));
            send.write_all(&[&head[..], &data, &noise(60)].concat())
                .await
                .ok()?;
            send.finish().ok()?;
            let (mut send, mut recv) = pair.client.open_bi().await.ok()?;
            send.write_all(&noise(200)).await.ok()?;
            send.finish().ok()?;
            recv.read_to_end(1000).await.ok()
        };
        let _answer = within(said).await;
        pair.client.close(Code::NO_ERROR.quic(), b"");
        let _ended = within(driving).await.expect("the driver lives");
        within(serving).await.expect("whoever takes requests lives");
    }
}
