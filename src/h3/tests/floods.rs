//! What has brought other stacks down, as it is on HTTP/3: each flood ends with the connection, and
//! what is kept meanwhile is counted.

use std::future::poll_fn;
use std::sync::Arc;

use ::bytes::Bytes;
use quinn::{Connection, VarInt};

use super::leaving::{hello, open};
use crate::h3::shared::Shared;
use crate::h3::testing::{Task, accept, pair_of, spawn, transport, within};
use crate::h3::{Code, Config, Ended, Server, frame, qpack, server, varint};

/// Bytes of a stream that may be on the way, and so wait for whoever does not read it.
const WINDOW: u32 = 32 << 10;
/// Streams of the peer's at once.
const STREAMS: u32 = 16;
const WASTED: u32 = 20;

/// A server that answers what it is asked and keeps what it accepts, and its peer.
struct Flooded {
    client: Connection,
    /// Of the server.
    shared: Arc<Shared>,
    _kept: Box<dyn std::any::Any>,
}

async fn flooded() -> Flooded {
    let mut small = transport();
    small
        .stream_receive_window(WINDOW.into())
        .max_concurrent_bidi_streams(STREAMS.into());
    let pair = pair_of(transport(), small).await;
    let config = Config {
        wasted: WASTED,
        // The size alone is what bounds them.
        fields: usize::MAX,
        ..Config::default()
    };
    let (server, driver) = server(pair.server.clone(), config);
    let driving = spawn(driver.run());
    let control = hello(&pair.client).await;
    let first = open(&pair.client).await;
    let stream = accept(within(server.accept()).await.unwrap()).await;
    let shared = Arc::clone(stream.shared().unwrap());
    let serving = serve(server);
    Flooded {
        client: pair.client.clone(),
        shared,
        _kept: Box::new((pair, driving, control, first, stream, serving)),
    }
}

fn serve(server: Server) -> Task<()> {
    spawn(async move {
        while let Ok(incoming) = server.accept().await {
            if let Ok((_request, mut responder)) = incoming.request().await {
                responder.cancelled().await;
            }
        }
    })
}

impl Flooded {
    /// Makes requests until the connection is closed: after a few, with a code that says why, and
    /// with no more kept meanwhile than the streams that there may be.
    async fn until_closed(&self, name: &str, each: impl AsyncFn(&Connection) -> Option<()>) {
        let mut made = 0;
        while each(&self.client).await.is_some() {
            made += 1;
            assert!(self.shared.live() <= STREAMS as usize, "{name}");
            assert!(made < 1000, "{name} for ever");
        }
        assert_eq!(ended(&self.shared).await, Code::EXCESSIVE_LOAD, "{name}");
        assert!(made >= WASTED, "{name}: {made}");
        // Some may have been on the way.
        assert!(made <= 2 * WASTED + STREAMS, "{name}: {made}");
    }
}

/// The code with which a connection was closed here. A client that floods on may hear nothing but a
/// stateless reset, when the connection has been forgotten.
async fn ended(shared: &Shared) -> Code {
    let error = within(shared.quic.closed()).await;
    match shared.ended(&error) {
        Ended::Fault(fault) => fault.code,
        other => panic!("not closed here: {other:?}"),
    }
}

fn headers(fields: &[u8]) -> Bytes {
    let prefix = &[0, 0, 0xcf, 0x50, 3, b'a', b':', b'1'];
    frame::whole(frame::HEADERS, &[prefix, fields].concat())
}

#[tokio::test]
async fn requests_that_are_reset_at_once() {
    let flooded = flooded().await;
    let one = async |client: &Connection| {
        let (mut send, mut recv) = client.open_bi().await.ok()?;
        send.write_all(&headers(&[])).await.ok()?;
        let code = VarInt::from_u32(0x10c);
        send.reset(code).ok()?;
        recv.stop(code).ok()
    };
    flooded.until_closed("rapid reset", one).await;
}

#[tokio::test]
async fn a_header_block_without_end() {
    let flooded = flooded().await;
    let one = async |client: &Connection| {
        let (mut send, _recv) = client.open_bi().await.ok()?;
        let mut header = vec![1];
        varint::put(varint::MAX, &mut header);
        send.write_all(&header).await.ok()?;
        let mut taken = 0;
        // Four times what a head may be.
        while taken < 256 << 10 {
            match send.write(&[0; 1024]).await {
                Ok(some) => taken += some,
                Err(_stopped) => break,
            }
        }
        assert!(taken <= WINDOW as usize, "{taken} bytes were taken");
        client.close_reason().is_none().then_some(())
    };
    flooded.until_closed("an endless head", one).await;
}

/// Of few bytes on the wire many would be decoded.
#[tokio::test]
async fn heads_that_swell() {
    // 1 byte for a field of 69 and 32.
    let indexed = [0xfa; 12 << 10];
    // 2 bytes for a field of 6, 1 and 32: a name of the table, and `0` in Huffman's code.
    let coded = [0x56, 0x81, 0x07].repeat(4 << 10);
    let cookies = [0x55, 0x01, b'a'].repeat(4 << 10);
    for (name, fields) in [
        ("fields of the table", &indexed[..]),
        ("coded values", &coded),
        ("cookies", &cookies),
    ] {
        let (size, mut told) = (Config::default().field_section, 0);
        let section = [&[0, 0][..], fields].concat();
        let read = qpack::decode(&section, size, usize::MAX, |name, value| {
            told += name.len() as u64 + value.len() as u64 + 32;
            Ok::<_, ()>(())
        });
        assert_eq!(read, Err(qpack::DecodeError::TooLarge), "{name}");
        assert!(told <= size, "{name}: {told}");

        let flooded = flooded().await;
        let one = async |client: &Connection| {
            let (mut send, mut recv) = client.open_bi().await.ok()?;
            send.write_all(&headers(fields)).await.ok()?;
            let answer = recv.read_to_end(1000).await.ok()?;
            assert_eq!(answer.last_chunk(), Some(b"431"), "{name}");
            Some(())
        };
        flooded.until_closed(name, one).await;
    }
}

/// A length that nothing comes of is not believed.
#[tokio::test]
async fn heads_that_promise_content() {
    let flooded = flooded().await;
    let one = async |client: &Connection| {
        let (mut send, mut recv) = client.open_bi().await.ok()?;
        send.write_all(&headers(&[0x54, 1, b'5'])).await.ok()?;
        send.finish().ok()?;
        let reset = recv.received_reset().await.ok()?;
        assert_eq!(reset, Some(Code::MESSAGE_ERROR.quic()));
        Some(())
    };
    flooded.until_closed("content-length", one).await;
}

/// What is read ahead, to see whether a client gives up, is little.
#[tokio::test]
async fn bytes_before_the_answer() {
    let mut small = transport();
    small.stream_receive_window(WINDOW.into());
    let pair = pair_of(transport(), small).await;
    let (server, driver) = server(pair.server.clone(), Config::default());
    let _driving = spawn(driver.run());
    let _control = hello(&pair.client).await;
    let (mut send, _recv) = open(&pair.client).await;
    let incoming = within(server.accept()).await.unwrap();
    let (_request, mut responder) = within(incoming.request()).await.unwrap();
    let flood = frame::whole(frame::DATA, &[0; 1 << 20]);
    let mut taken = 0;
    let blocked = async {
        while pair.client.stats().frame_tx.stream_data_blocked == 0 {
            tokio::task::yield_now().await;
        }
        // If more were read, it would be all within these.
        for _turn in 0..10_000 {
            tokio::task::yield_now().await;
        }
    };
    let flooding = async {
        while taken < flood.len()
            && let Ok(some) = send.write(&flood[taken..]).await
        {
            taken += some;
        }
    };
    within(async {
        tokio::select! {
            () = blocked => {}
            () = flooding => panic!("all was taken"),
            gone = responder.cancelled() => panic!("{gone:?}"),
        }
    })
    .await;
    assert!(taken <= 3 * WINDOW as usize, "{taken}");
}

#[tokio::test]
async fn frames_of_nothing() {
    for (name, frame) in [
        ("empty DATA", &[0, 0][..]),
        ("unknown frames", &[0x21, 0]),
        ("unknown frames of a byte", &[0x21, 1, 9]),
    ] {
        let mut small = transport();
        small.stream_receive_window(WINDOW.into());
        let pair = pair_of(transport(), small).await;
        let (server, driver) = server(pair.server.clone(), Config::default());
        let _driving = spawn(driver.run());
        let _control = hello(&pair.client).await;
        let (mut send, _recv) = open(&pair.client).await;
        let mut stream = accept(within(server.accept()).await.unwrap()).await;
        let flood = frame.repeat(1_000_000);
        let mut taken = 0;
        let blocked = async {
            while pair.client.stats().frame_tx.stream_data_blocked == 0 {
                tokio::task::yield_now().await;
            }
        };
        let flooding = async {
            while let Ok(some) = send.write(&flood[taken % frame.len()..]).await {
                taken += some;
            }
        };
        within(async {
            tokio::select! {
                () = blocked => {}
                () = flooding => panic!("{name}: all was taken"),
            }
        })
        .await;
        // Nobody reads it, so no more of it comes than may be on the way.
        assert!(taken <= WINDOW as usize, "{name}: {taken}");
        let read = within(poll_fn(|cx| stream.poll_data(cx))).await;
        assert!(read.is_err(), "{name}");
        let shared = stream.shared().unwrap();
        assert_eq!(ended(shared).await, Code::EXCESSIVE_LOAD, "{name}");
    }
}
