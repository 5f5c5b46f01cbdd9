//! Links that take longer packets than others, by QUIC.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::hbone::connect::Line;
use crate::hbone::testing::*;
use crate::hbone::*;

/// More than goes at once, whatever the packets.
const SIZE: usize = 16 << 20;

#[tokio::test]
async fn packets_grow_to_what_the_link_takes() {
    // The loopback takes more than any that is asked for.
    for (name, links, want) in [
        ("as the route says", Links::here(), 8972),
        ("nobody knows", Links::default(), 1452),
    ] {
        let (handler, _requests) = HandOver::new();
        let server = server(Limits::default(), handler).await;
        let limits = Limits::default();
        let endpoint = endpoint(links, &limits);
        let mut hop = server.web();
        hop.to = server.udp;
        let dialled = quic::dial(&endpoint, &hop, &limits).await.unwrap();
        let Line::Http3(line) = dialled.line else {
            panic!("{name}: that was no QUIC");
        };
        let mtu = || line.quic.stats().path.current_mtu;
        let grown = async {
            while mtu() < want {
                sleep(Duration::from_millis(2)).await;
            }
            // The last of the search would be asked for by now.
            sleep(Duration::from_millis(100)).await;
        };
        tokio::select! {
            () = soon(name, grown) => {}
            ended = line.driving => panic!("{name}: {ended:?}"),
        }
        assert_eq!(mtu(), want, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_both_ways_in_long_packets() {
    let (handler, mut requests) = HandOver::new();
    let server = server(Limits::default(), handler).await;
    let limits = Limits::default();
    let endpoint = endpoint(Links::here(), &limits);
    let pool = Pool::with_quic(Plain::default(), limits, Some(endpoint));
    let mut hop = server.web();
    hop.transport = Transport::Quic;
    let request = ask(80);
    let (opened, accepted) = tokio::join!(pool.connect(&hop, &request), async {
        let request = soon("a request", requests.recv()).await.unwrap();
        request.accept("").unwrap()
    });
    let mut tasks = JoinSet::new();
    let sent = Arc::new(pattern(SIZE));
    let mut ends = Vec::new();
    for tunnel in [opened.unwrap().0, accepted] {
        let (program, near) = tcp_pair().await;
        tasks.spawn(async move {
            let _told_by_bytes = relay(near, tunnel, &Traffic::default()).await;
        });
        let (read, mut write) = program.into_split();
        let bytes = Arc::clone(&sent);
        tasks.spawn(async move {
            write.write_all(&bytes).await.unwrap();
            // What is dropped would be closed.
            std::future::pending::<()>().await;
        });
        ends.push(read);
    }
    for (end, mut read) in ends.into_iter().enumerate() {
        let mut got = vec![0; SIZE];
        soon("all of it", read.read_exact(&mut got)).await.unwrap();
        assert!(got == *sent, "what came to {end} is not what was sent");
    }
}
