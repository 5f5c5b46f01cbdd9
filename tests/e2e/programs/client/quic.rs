//! What is said over QUIC: a download, and how connections begin that nobody means.

use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::streams;
use crate::programs::http3::ALPN;

const PATIENCE: Duration = Duration::from_secs(20);
/// Packets of a beginning come right after each other.
const TOGETHER: Duration = Duration::from_millis(300);
/// How long answers are waited for: whoever is not heard has said all again by then.
const SILENCE: Duration = Duration::from_secs(3);
/// Beginnings with one byte changed.
const CHANGED: usize = 64;

fn endpoint(to: SocketAddr) -> Result<Endpoint, Box<dyn Error>> {
    let any: SocketAddr = match to.is_ipv4() {
        true => (Ipv4Addr::UNSPECIFIED, 0).into(),
        false => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let mut tls = streams::config();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut endpoint = Endpoint::client(any)?;
    let tls = QuicClientConfig::try_from(tls)?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls)));
    Ok(endpoint)
}

/// How much `/LENGTH` of a server is, and its hash.
pub(super) async fn download(to: &str, length: u32) -> Value {
    match timeout(PATIENCE, downloaded(to, length)).await {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => json!({ "error": error.to_string() }),
        Err(_elapsed) => json!({ "error": "nothing came in time" }),
    }
}

async fn downloaded(to: &str, length: u32) -> Result<Value, Box<dyn Error>> {
    let to = to.parse()?;
    let quic = endpoint(to)?.connect(to, "files.example")?.await?;
    let (mut driver, mut client) = h3::client::new(h3_quinn::Connection::new(quic)).await?;
    let mut driving = JoinSet::new();
    driving.spawn(async move { driver.wait_idle().await });
    let request = Request::get(format!("https://files.example/{length}")).body(())?;
    let mut stream = client.send_request(request).await?;
    stream.finish().await?;
    let status = stream.recv_response().await?.status().as_u16();
    let (mut bytes, mut hash) = (0, Sha256::new());
    while let Some(mut data) = stream.recv_data().await? {
        let piece = data.copy_to_bytes(data.remaining());
        bytes += piece.len();
        hash.update(&piece);
    }
    let hash = format!("{:x}", hash.finalize());
    Ok(json!({ "status": status, "bytes": bytes, "sha256": hash }))
}

/// How many bytes are sent and heard of beginnings that go no further, by what is odd about them.
pub(super) async fn begin(to: &str) -> Value {
    let to: SocketAddr = to.parse().unwrap();
    let mut all = JoinSet::new();
    for (name, packets) in beginnings(&flight().await) {
        all.spawn(async move { (name, heard(to, &packets).await) });
    }
    let told = all.join_all().await.into_iter().map(|(name, heard)| {
        let sent = heard.0;
        json!({ "name": name, "sent": sent, "heard": heard.1 })
    });
    told.collect()
}

/// What a client says first, of whom nobody is at the other end.
async fn flight() -> Vec<Vec<u8>> {
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let to = nobody.local_addr().unwrap();
    let endpoint = endpoint(to).unwrap();
    let _connecting = endpoint.connect(to, "files.example").unwrap();
    let (mut packets, mut room) = (Vec::new(), vec![0; 2048]);
    while let Ok(read) = timeout(TOGETHER, nobody.recv(&mut room)).await {
        packets.push(room[..read.unwrap()].to_vec());
    }
    packets
}

fn beginnings(flight: &[Vec<u8>]) -> Vec<(String, Vec<Vec<u8>>)> {
    let first = flight.first().expect("a client says something").clone();
    let version = |version: u32| {
        let mut packet = first.clone();
        packet[1..5].copy_from_slice(&version.to_be_bytes());
        vec![packet]
    };
    let mut short = first.clone();
    short[0] = 0x41;
    let mut rng = StdRng::seed_from_u64(15008);
    let mut noise = vec![0; 1200];
    rng.fill(&mut noise[..]);
    let mut all = vec![
        ("whole".to_owned(), flight.to_vec()),
        ("twice".to_owned(), [flight, flight].concat()),
        ("first packet".to_owned(), vec![first.clone()]),
        ("truncated".to_owned(), vec![first[..600].to_vec()]),
        ("one byte".to_owned(), vec![first[..1].to_vec()]),
        ("empty".to_owned(), vec![Vec::new()]),
        ("another version".to_owned(), version(0xbaba_baba)),
        ("version negotiation".to_owned(), version(0)),
        ("short header".to_owned(), vec![short]),
        ("noise".to_owned(), vec![noise]),
    ];
    all.extend((0..CHANGED).map(|_| {
        let (mut packet, at) = (first.clone(), rng.random_range(0..first.len()));
        packet[at] ^= rng.random_range(1..=255u8);
        (format!("changed at {at}"), vec![packet])
    }));
    all
}

async fn heard(to: SocketAddr, packets: &[Vec<u8>]) -> (usize, usize) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    let (mut sent, mut heard) = (0, 0);
    for packet in packets {
        sent += socket.send(packet).await.unwrap();
    }
    let (until, mut room) = (Instant::now() + SILENCE, vec![0; 4096]);
    while let Ok(Ok(read)) = timeout_at(until, socket.recv(&mut room)).await {
        heard += read;
    }
    (sent, heard)
}
