//! Peers that break the protocol on the streams that go one way: each gets the code that the RFCs
//! have for it.

use std::future::poll_fn;

use quinn::{Connection, SendStream};

use crate::h3::testing::{accept, closed, pair, spawn, within};
use crate::h3::{Code, Config, Request, client, frame, server};

const CONTROL: &[u8] = &[0, 4, 0];

/// What a peer does with a stream of its own after these bytes.
#[derive(Clone, Copy)]
enum Then {
    Stays,
    Ends,
    Resets,
}

async fn say(connection: &Connection, bytes: &[u8], then: Then) -> Option<SendStream> {
    // A connection that is closed in the middle of it says why.
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(bytes).await.ok()?;
    match then {
        Then::Stays => return Some(stream),
        Then::Ends => stream.finish().ok()?,
        Then::Resets => stream.reset(0u32.into()).ok()?,
    }
    None
}

/// Streams that go one way. Each row is tried on a server and on a client, unless the code is given
/// for one of them alone.
#[tokio::test]
async fn control_streams_are_judged() {
    use Then::{Ends, Stays};
    let with = |frame: &[u8]| [CONTROL, frame].concat();
    let twice = |stream: &[u8]| vec![(stream.to_vec(), Stays), (stream.to_vec(), Stays)];
    let one = |stream: Vec<u8>| vec![(stream, Stays)];
    let long = [&[0, 4, 0x80, 0, 0x10, 1][..], &[0; 0x1001]].concat();
    let flood = |frame: &[u8]| with(&frame.repeat(61));
    let both = |code: Code| (Some(code), Some(code));
    let only_server = |code: Code| (Some(code), None);
    let only_client = |code: Code| (None, Some(code));
    #[rustfmt::skip]
    let rows = [
        ("no SETTINGS", one(vec![0, 7, 1, 0]), both(Code::MISSING_SETTINGS)),
        ("unknown before SETTINGS", one(vec![0, 0x21, 0]), both(Code::MISSING_SETTINGS)),
        ("SETTINGS twice", one(with(&[4, 0])), both(Code::FRAME_UNEXPECTED)),
        ("a setting twice", one(vec![0, 4, 4, 6, 1, 6, 1]), both(Code::SETTINGS_ERROR)),
        ("a setting of HTTP/2", one(vec![0, 4, 2, 3, 1]), both(Code::SETTINGS_ERROR)),
        ("CONNECT is 2", one(vec![0, 4, 2, 8, 2]), both(Code::SETTINGS_ERROR)),
        ("half a setting", one(vec![0, 4, 1, 6]), both(Code::FRAME_ERROR)),
        ("long SETTINGS", one(long), both(Code::EXCESSIVE_LOAD)),
        ("DATA", one(with(&[0, 0])), both(Code::FRAME_UNEXPECTED)),
        ("HEADERS", one(with(&[1, 0])), both(Code::FRAME_UNEXPECTED)),
        ("PUSH_PROMISE", one(with(&[5, 0])), both(Code::FRAME_UNEXPECTED)),
        ("PRIORITY of HTTP/2", one(with(&[2, 0])), both(Code::FRAME_UNEXPECTED)),
        ("PING of HTTP/2", one(with(&[6, 0])), both(Code::FRAME_UNEXPECTED)),
        ("WINDOW_UPDATE of HTTP/2", one(with(&[8, 0])), both(Code::FRAME_UNEXPECTED)),
        ("CONTINUATION of HTTP/2", one(with(&[9, 0])), both(Code::FRAME_UNEXPECTED)),
        ("a push cancelled", one(with(&[3, 1, 0])), both(Code::ID_ERROR)),
        ("no push cancelled", one(with(&[3, 0])), both(Code::FRAME_ERROR)),
        ("GOAWAY grows", one(with(&[7, 1, 4, 7, 1, 8])), both(Code::ID_ERROR)),
        ("GOAWAY of no stream", one(with(&[7, 1, 1])), only_client(Code::ID_ERROR)),
        ("GOAWAY is empty", one(with(&[7, 0])), both(Code::FRAME_ERROR)),
        ("GOAWAY goes on", one(with(&[7, 2, 0, 0])), both(Code::FRAME_ERROR)),
        ("MAX_PUSH_ID to a client", one(with(&[13, 1, 0])), only_client(Code::FRAME_UNEXPECTED)),
        ("MAX_PUSH_ID shrinks", one(with(&[13, 1, 2, 13, 1, 1])), only_server(Code::ID_ERROR)),
        ("SETTINGS, then GOAWAY for ever", one(flood(&[7, 1, 0])), only_server(Code::EXCESSIVE_LOAD)),
        ("unknown frames for ever", one(flood(&[0x21, 0])), both(Code::EXCESSIVE_LOAD)),
        ("a huge unknown frame", one(with(&[0x21, 0xa0, 0, 0, 0])), both(Code::EXCESSIVE_LOAD)),
        ("two control streams", twice(CONTROL), both(Code::STREAM_CREATION_ERROR)),
        ("two encoder streams", twice(&[2]), both(Code::STREAM_CREATION_ERROR)),
        ("two decoder streams", twice(&[3]), both(Code::STREAM_CREATION_ERROR)),
        ("control ends", vec![(CONTROL.to_vec(), Ends)], both(Code::CLOSED_CRITICAL_STREAM)),
        ("control ends at once", vec![(vec![0], Ends)], both(Code::CLOSED_CRITICAL_STREAM)),
        ("control ends in a frame", vec![(with(&[7]), Ends)], both(Code::FRAME_ERROR)),
        ("the encoder ends", vec![(vec![2], Ends)], both(Code::CLOSED_CRITICAL_STREAM)),
        ("the decoder ends", vec![(vec![3, 0x40], Ends)], both(Code::CLOSED_CRITICAL_STREAM)),
        ("the encoder inserts", one(vec![2, 0xc0, 1, b'a']), both(Code::QPACK_ENCODER_STREAM_ERROR)),
        ("the encoder wants room", one(vec![2, 0x21]), both(Code::QPACK_ENCODER_STREAM_ERROR)),
        ("the encoder sets 0 for ever", one([&[2][..], &[0x20; 61]].concat()), both(Code::EXCESSIVE_LOAD)),
        ("the decoder acknowledges", one(vec![3, 0x80]), both(Code::QPACK_DECODER_STREAM_ERROR)),
        ("the decoder increments", one(vec![3, 0x01]), both(Code::QPACK_DECODER_STREAM_ERROR)),
        ("the decoder cancels for ever", one([&[3][..], &[0x40; 2000]].concat()), both(Code::EXCESSIVE_LOAD)),
        ("streams that say nothing", vec![(vec![], Ends); 61], both(Code::EXCESSIVE_LOAD)),
        ("unknown streams for ever", vec![(vec![0x21], Ends); 61], both(Code::EXCESSIVE_LOAD)),
        ("a push of a client's", one(vec![1, 0]), only_server(Code::STREAM_CREATION_ERROR)),
        ("a push not allowed", one(vec![1, 0]), only_client(Code::ID_ERROR)),
    ];
    for (name, streams, (of_server, of_client)) in rows {
        if let Some(want) = of_server {
            let pair = pair().await;
            let (_server, driver) = server(pair.server.clone(), Config::default());
            let driving = spawn(driver.run());
            let mut kept = Vec::new();
            for (bytes, then) in &streams {
                kept.push(say(&pair.client, bytes, *then).await);
            }
            assert_eq!(closed(&pair.client).await, want, "{name}, to a server");
            assert!(within(driving).await.unwrap().is_err(), "{name}");
        }
        if let Some(want) = of_client {
            let pair = pair().await;
            let (_client, driver) = client(pair.client.clone(), Config::default());
            let driving = spawn(driver.run());
            let mut kept = Vec::new();
            for (bytes, then) in &streams {
                kept.push(say(&pair.server, bytes, *then).await);
            }
            assert_eq!(closed(&pair.server).await, want, "{name}, to a client");
            assert!(within(driving).await.unwrap().is_err(), "{name}");
        }
    }
}

/// A stream is reset after it was read, lest nobody know what it was.
#[tokio::test]
async fn the_control_stream_may_not_be_reset() {
    const DATAGRAMS: &[u8] = &[0, 4, 2, 0x33, 1];
    let ends = pair().await;
    let (server, driver) = server(ends.server.clone(), Config::default());
    let _driving = spawn(driver.run());
    let mut control = say(&ends.client, DATAGRAMS, Then::Stays).await.unwrap();
    within(async {
        while !server.sends_datagrams() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    control.reset(0u32.into()).unwrap();
    assert_eq!(closed(&ends.client).await, Code::CLOSED_CRITICAL_STREAM);

    let ends = pair().await;
    let (client, driver) = client(ends.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let mut control = say(&ends.server, DATAGRAMS, Then::Stays).await.unwrap();
    assert!(within(client.ready()).await.unwrap().datagrams);
    control.reset(0u32.into()).unwrap();
    assert_eq!(closed(&ends.server).await, Code::CLOSED_CRITICAL_STREAM);
}

/// What may be sent and means nothing, or nothing to us: the connection carries on.
#[tokio::test]
async fn what_is_unknown_is_skipped() {
    use Then::{Ends, Resets, Stays};
    let pair = pair().await;
    let (server, driver) = server(pair.server.clone(), Config::default());
    let _driving = spawn(driver.run());
    let mut kept = Vec::new();
    for (bytes, then) in [
        // Settings, a frame and a push id that nobody needs, and a GOAWAY.
        (
            &[
                0, 4, 5, 0x21, 1, 0x40, 0x22, 7, 0x21, 2, 9, 9, 13, 1, 5, 13, 1, 5, 7, 1, 0,
            ][..],
            Stays,
        ),
        (&[2, 0x20], Stays),
        (&[3, 0x44], Stays),
        (&[0x21, 1, 2, 3], Stays),
        (&[0x40, 0x54], Ends),
        (&[], Ends),
        (&[0x40], Ends),
        (&[0x40], Resets),
    ] {
        kept.push(say(&pair.client, bytes, then).await);
    }
    let stopped = kept[3].as_ref().unwrap().stopped();
    let code = Code::STREAM_CREATION_ERROR.quic();
    assert_eq!(
        within(stopped).await,
        Ok(Some(code)),
        "an unknown stream is not wanted"
    );
    let (section, _) = Request::connect("a:1").encode();
    let (mut send, _recv) = pair.client.open_bi().await.unwrap();
    let request = [
        &[0x21, 3, 0, 0, 0][..],
        &frame::whole(frame::HEADERS, &section),
        &[0x21, 0, 0, 0, 0x40, 0x21, 1, 9, 0, 2, b'h', b'i', 0x21, 1],
    ];
    for byte in request.concat().chunks(1) {
        send.write_all(byte).await.unwrap();
    }
    let mut stream = accept(within(server.accept()).await.unwrap()).await;
    let mut got = Vec::new();
    while got.len() < 2 {
        let piece = within(poll_fn(|cx| stream.poll_data(cx))).await;
        got.extend_from_slice(&piece.unwrap().unwrap());
    }
    assert_eq!(got, b"hi");
}

#[tokio::test]
async fn the_wrong_end_opens_a_stream_or_closes_ours() {
    let pair = pair().await;
    let (_client, driver) = client(pair.client.clone(), Config::default());
    let _driving = spawn(driver.run());
    let (mut send, _recv) = pair.server.open_bi().await.unwrap();
    send.write_all(b"x").await.unwrap();
    assert_eq!(closed(&pair.server).await, Code::STREAM_CREATION_ERROR);

    let pair = crate::h3::testing::pair().await;
    let (_server, driver) = server(pair.server.clone(), Config::default());
    let _driving = spawn(driver.run());
    let mut control = within(pair.client.accept_uni()).await.unwrap();
    control.stop(0u32.into()).unwrap();
    assert_eq!(closed(&pair.client).await, Code::CLOSED_CRITICAL_STREAM);
}
