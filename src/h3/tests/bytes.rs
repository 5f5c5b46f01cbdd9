//! Bytes, ends and cuts.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use ::bytes::Bytes;
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::h3::testing::{accept, ends, ends_of, pair_of, spawn, transport, within};
use crate::h3::{Code, Config, Ended, Request, Response, StreamError};

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_come_back_as_they_went() {
    let ends = ends().await;
    let (ours, theirs) = ends.stream().await;
    let sent = noise(10 << 20);
    let digest = Sha256::digest(&sent);
    let echo = spawn(async move {
        let (mut read, mut write) = tokio::io::split(theirs);
        let copied = tokio::io::copy(&mut read, &mut write).await.unwrap();
        // The client has ended its direction, and this one is still open.
        write.shutdown().await.unwrap();
        copied
    });
    let (mut read, mut write) = tokio::io::split(ours);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let reading = read.read_to_end(&mut got);
    let (_, read) = within(async { tokio::join!(writing, reading) }).await;
    assert_eq!(read.unwrap(), sent.len());
    assert_eq!(Sha256::digest(&got), digest);
    assert_eq!(within(echo).await.unwrap(), sent.len() as u64);
}

#[tokio::test]
async fn frames_are_sent_without_copying_and_through_small_windows() {
    let mut small = transport();
    small.stream_receive_window(20_000u32.into());
    let pair = pair_of(transport(), small).await;
    let ends = ends_of(pair, Config::default());
    let (mut ours, mut theirs) = ends.stream().await;
    let sent = noise(1 << 20);
    let digest = Sha256::digest(&sent);
    let sending = async {
        let mut rest = Bytes::from(sent);
        while !rest.is_empty() {
            poll_fn(|cx| ours.poll_ready(cx)).await.unwrap();
            ours.send(rest.split_to(rest.len().min(256 << 10)));
        }
        // What is held leaves without another look at it.
        ours.close();
    };
    let receiving = async {
        let mut hash = Sha256::new();
        while let Some(bytes) = poll_fn(|cx| theirs.poll_data(cx)).await.unwrap() {
            hash.update(&bytes);
        }
        assert_eq!(hash.finalize(), digest);
        theirs
    };
    let (_, mut theirs) = within(async { tokio::join!(sending, receiving) }).await;
    let stopped = within(poll_fn(|cx| theirs.poll_stopped(cx))).await;
    let want = Code::NO_ERROR;
    assert!(
        matches!(stopped, StreamError::Stopped { code } if code == want),
        "{stopped:?}"
    );
    assert_eq!(ends.server.streams(), 1);
    drop(theirs);
    within(async {
        while ends.client.streams() + ends.server.streams() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let ends = ends().await;
    let (mut ours, mut theirs) = ends.stream().await;
    let mut byte = [0];
    ours.write_all(b"a").await.unwrap();
    ours.shutdown().await.unwrap();
    within(theirs.read_exact(&mut byte)).await.unwrap();
    assert_eq!(within(theirs.read(&mut byte)).await.unwrap(), 0);
    theirs.write_all(b"b").await.unwrap();
    within(ours.read_exact(&mut byte)).await.unwrap();
    assert_eq!(&byte, b"b");
    let more = ours.write_all(b"c").await.unwrap_err();
    assert_eq!(more.kind(), io::ErrorKind::BrokenPipe);
    theirs.shutdown().await.unwrap();
    assert_eq!(within(ours.read(&mut byte)).await.unwrap(), 0);
    assert_eq!(within(ours.read(&mut byte)).await.unwrap(), 0, "and again");
}

#[tokio::test]
async fn what_is_sent_leaves_without_another_call() {
    let ends = ends().await;
    let (mut ours, mut theirs) = ends.stream().await;
    poll_fn(|cx| ours.poll_ready(cx)).await.unwrap();
    ours.send(Bytes::from_static(b"go"));
    let got = within(poll_fn(|cx| theirs.poll_data(cx))).await.unwrap();
    assert_eq!(got.as_deref(), Some(&b"go"[..]));
}

/// Whoever only sends, and never asks otherwise, learns that nothing arrives.
#[tokio::test]
async fn what_is_lost_is_told_to_whoever_sends() {
    for stopped in [true, false] {
        let mut ends = ends().await;
        let (mut ours, theirs) = ends.stream().await;
        if stopped {
            theirs.close();
        } else {
            ends.drivers.abort_all();
            while ends.drivers.join_next().await.is_some() {}
        }
        let error = within(async {
            loop {
                if let Err(error) = poll_fn(|cx| ours.poll_ready(cx)).await {
                    return error;
                }
                ours.send(Bytes::from_static(b"lost"));
                tokio::task::yield_now().await;
            }
        })
        .await;
        let again = poll_fn(|cx| ours.poll_ready(cx)).await.unwrap_err();
        // Nor is it taken ill of whoever does not ask.
        ours.send(Bytes::from_static(b"more"));
        ours.send(Bytes::from_static(b"and more"));
        for error in [error, again] {
            let told = match stopped {
                true => matches!(error, StreamError::Stopped { code } if code == Code::NO_ERROR),
                false => matches!(error, StreamError::Ended(_)),
            };
            assert!(told, "{error:?}");
        }
    }
}

/// Nothing of it is to arrive, so nobody waits for that: neither what counts streams nor a
/// connection that is to close after the last.
#[tokio::test]
async fn a_stream_that_was_reset_is_gone_with_its_owner() {
    let ends = ends().await;
    let (mut ours, mut theirs) = ends.stream().await;
    ours.reset(Code::CONNECT_ERROR);
    drop(ours);
    assert_eq!(ends.client.streams(), 0);
    theirs.reset(Code::CONNECT_ERROR);
    theirs.close();
    assert_eq!(ends.server.streams(), 0);
}

/// How a stream is let go of, and as what the other end sees that.
#[tokio::test]
async fn a_cut_is_never_an_end() {
    #[derive(Clone, Copy, Debug)]
    enum Cut {
        Abort,
        Drop,
        DropUnused,
        DropEnded,
    }
    for (cut, from_client, want) in [
        (Cut::Abort, true, Code::CONNECT_ERROR),
        (Cut::Abort, false, Code::CONNECT_ERROR),
        (Cut::Drop, true, Code::CONNECT_ERROR),
        (Cut::Drop, false, Code::CONNECT_ERROR),
        (Cut::DropUnused, true, Code::REQUEST_CANCELLED),
        (Cut::DropUnused, false, Code::REQUEST_CANCELLED),
        (Cut::DropEnded, true, Code::CONNECT_ERROR),
    ] {
        let name = format!("{cut:?}, by the client: {from_client}");
        let ends = ends().await;
        let (ours, theirs) = ends.stream().await;
        let (mut ours, mut theirs) = match from_client {
            true => (ours, theirs),
            false => (theirs, ours),
        };
        if !matches!(cut, Cut::DropUnused) {
            ours.write_all(b"half").await.unwrap();
        }
        match cut {
            Cut::Abort => ours.reset(Code::CONNECT_ERROR),
            Cut::DropEnded => {
                // The other direction has not ended, so nobody knows what it would have said.
                ours.finish();
                drop(ours);
            }
            Cut::Drop | Cut::DropUnused => drop(ours),
        }
        let mut got = Vec::new();
        let error = within(theirs.read_to_end(&mut got)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{name}");
        for _again in 0..2 {
            let error = poll_fn(|cx| theirs.poll_data(cx)).await.unwrap_err();
            assert!(
                matches!(error, StreamError::Reset { code } if code == want),
                "{name}: {error:?}"
            );
        }
        let stopped = within(poll_fn(|cx| theirs.poll_stopped(cx))).await;
        assert!(
            matches!(stopped, StreamError::Stopped { code } if code == want),
            "{name}: {stopped:?}"
        );
    }
}

#[tokio::test]
async fn the_end_of_a_connection_is_a_cut() {
    let mut ends = ends().await;
    let (mut ours, _theirs) = ends.stream().await;
    ends.drivers.abort_all();
    while ends.drivers.join_next().await.is_some() {}
    let error = within(poll_fn(|cx| ours.poll_data(cx))).await.unwrap_err();
    assert!(matches!(error, StreamError::Ended(_)), "{error:?}");
    let stopped = within(poll_fn(|cx| ours.poll_stopped(cx))).await;
    assert!(matches!(stopped, StreamError::Ended(_)), "{stopped:?}");
}

/// Amid a transfer, when the congestion window is full.
#[tokio::test]
async fn the_end_of_a_connection_is_told_at_once() {
    let ends = ends().await;
    let (mut ours, mut theirs) = ends.stream().await;
    poll_fn(|cx| ours.poll_ready(cx)).await.unwrap();
    ours.send(vec![0; 1 << 20].into());
    let first = within(poll_fn(|cx| theirs.poll_data(cx))).await;
    assert!(first.unwrap().is_some());
    ends.dialled.abort();
    let error = within(async {
        loop {
            if let Err(error) = poll_fn(|cx| theirs.poll_data(cx)).await {
                return error;
            }
        }
    })
    .await;
    let want = Code::NO_ERROR;
    assert!(
        matches!(error, StreamError::Ended(Ended::Peer { code }) if code == want),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_client_that_gives_up_is_seen() {
    let ends = ends().await;
    let client = ends.client.clone();
    let asking = spawn(async move {
        let request = Request::connect("10.0.0.2:80");
        client.connect(&request).await.map(drop)
    });
    let incoming = within(ends.server.accept()).await.unwrap();
    let (_request, mut responder) = within(incoming.request()).await.unwrap();
    {
        let mut cancelled = pin!(responder.cancelled());
        let pending = poll_fn(|cx| Poll::Ready(cancelled.as_mut().poll(cx).is_pending())).await;
        assert!(pending, "the client still waits");
    }
    asking.handle.abort();
    let gone = within(responder.cancelled()).await;
    let want = Code::REQUEST_CANCELLED;
    assert!(
        matches!(gone, StreamError::Reset { code } | StreamError::Stopped { code } if code == want),
        "{gone:?}"
    );
    let late = responder.accept(&Response::new(StatusCode::OK)).await;
    assert!(late.is_err() || ends.server.streams() == 0);
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let ends = ends().await;
    let server = ends.server.clone();
    let serving = spawn(async move {
        let mut echoes = tokio::task::JoinSet::new();
        for _n in 0..100 {
            let incoming = server.accept().await.unwrap();
            echoes.spawn(async move {
                let (mut read, mut write) = tokio::io::split(accept(incoming).await);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
        while let Some(done) = echoes.join_next().await {
            done.unwrap();
        }
    });
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..100u32 {
        let client = ends.client.clone();
        asking.spawn(async move {
            let request = Request::connect(format!("10.0.0.2:{n}"));
            let (_response, mut stream) = client.connect(&request).await.unwrap();
            let sent = noise(20_000 + n as usize);
            stream.write_all(&sent).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert!(got == sent, "stream {n}");
        });
    }
    while let Some(done) = within(asking.join_next()).await {
        done.unwrap();
    }
    within(serving).await.unwrap();
}
