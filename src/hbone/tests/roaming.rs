//! A peer whose address changes under its tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::hbone::testing::*;
use crate::hbone::*;

/// What is downloaded.
const SIZE: usize = 4 << 20;

/// A server behind a router that can be given another address to speak from.
struct Rebound {
    server: Server,
    requests: mpsc::Receiver<Incoming>,
    address: watch::Sender<SocketAddr>,
    _tasks: JoinSet<()>,
}

async fn rebound(roaming: bool) -> Rebound {
    let limits = Limits {
        quic: Quic {
            roaming,
            ..Quic::default()
        },
        ..Limits::default()
    };
    let (handler, requests) = HandOver::new();
    let (server, front) = server_behind(limits, handler).await;
    let (address, addresses) = watch::channel(([127, 0, 0, 1], 0).into());
    let mut tasks = JoinSet::new();
    tasks.spawn(route(front, server.udp, addresses));
    Rebound {
        server,
        requests,
        address,
        _tasks: tasks,
    }
}

/// Carries the datagrams of one client, whom the server sees at the latest of the addresses alone; of longer ones
/// than 2 KiB, as links here have, it carries what is of no use to anybody.
async fn route(front: UdpSocket, to: SocketAddr, mut addresses: watch::Receiver<SocketAddr>) {
    let (mut there, mut here) = ([0u8; 2048], [0u8; 2048]);
    let mut client = None;
    loop {
        let from = *addresses.borrow_and_update();
        let back = UdpSocket::bind(from).await.unwrap();
        back.connect(to).await.unwrap();
        loop {
            tokio::select! {
                changed = addresses.changed() => match changed {
                    Ok(()) => break,
                    Err(_over) => return,
                },
                Ok((size, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    back.send(&there[..size]).await.unwrap();
                }
                Ok(size) = back.recv(&mut here) => {
                    front.send_to(&here[..size], client.unwrap()).await.unwrap();
                }
            }
        }
    }
}

/// A tunnel with programs at both ends, and what the server knew of the address it was asked from.
async fn tunnelled(
    way: &mut Rebound,
    pool: &Pool<Plain>,
    relays: &mut JoinSet<()>,
) -> (TcpStream, TcpStream, Option<std::net::IpAddr>) {
    let mut hop = way.server.web();
    hop.transport = Transport::Quic;
    let request = ask(80);
    let (opened, (tunnel, proven)) = tokio::join!(pool.connect(&hop, &request), async {
        let request = soon("a request", way.requests.recv()).await.unwrap();
        let proven = request.proven_ip;
        (request.accept("").unwrap(), proven)
    });
    let (client, near) = tcp_pair().await;
    let (program, far) = tcp_pair().await;
    for (tcp, tunnel) in [(near, opened.unwrap().0), (far, tunnel)] {
        relays.spawn(async move {
            let _told_by_bytes = relay(tcp, tunnel, &Traffic::default()).await;
        });
    }
    (client, program, proven)
}

fn by_quic() -> Pool<Plain> {
    let limits = Limits {
        quic: Quic {
            roaming: true,
            ..Quic::default()
        },
        ..Limits::default()
    };
    let quic = endpoint(Links::here(), &limits);
    Pool::with_quic(Plain::default(), limits, Some(quic))
}

#[tokio::test]
async fn downloads_outlive_a_change_of_address() {
    let (mut way, pool) = (rebound(true).await, by_quic());
    let mut relays = JoinSet::new();
    let (mut client, mut program, proven) = tunnelled(&mut way, &pool, &mut relays).await;
    assert_eq!(proven, None, "who may be elsewhere has no proven address");
    let sent = Arc::new(pattern(SIZE));
    let mut sending = JoinSet::new();
    let bytes = Arc::clone(&sent);
    sending.spawn(async move { program.write_all(&bytes).await.map(|()| program) });
    let mut got = vec![0; SIZE];
    client.read_exact(&mut got[..SIZE / 4]).await.unwrap();
    way.address.send(([127, 0, 0, 2], 0).into()).unwrap();
    soon("the rest", client.read_exact(&mut got[SIZE / 4..]))
        .await
        .unwrap();
    assert!(got == *sent, "what came is not what was sent");
    let mut program = sending.join_next().await.unwrap().unwrap().unwrap();
    // And back.
    client.write_all(b"thanks").await.unwrap();
    let mut thanks = [0; 6];
    soon("thanks", program.read_exact(&mut thanks))
        .await
        .unwrap();
}

/// Whose address means something stays where it is.
#[tokio::test]
async fn nobody_moves_where_addresses_are_looked_at() {
    let (mut way, pool) = (rebound(false).await, by_quic());
    let mut relays = JoinSet::new();
    let (mut client, mut program, proven) = tunnelled(&mut way, &pool, &mut relays).await;
    assert_eq!(proven, Some([127, 0, 0, 1].into()));
    client.write_all(b"a").await.unwrap();
    soon("the first byte", program.read_u8()).await.unwrap();
    way.address.send(([127, 0, 0, 2], 0).into()).unwrap();
    client.write_all(b"b").await.unwrap();
    let unheard = tokio::time::timeout(Duration::from_secs(1), program.read_u8()).await;
    assert!(unheard.is_err(), "{unheard:?}");
}
