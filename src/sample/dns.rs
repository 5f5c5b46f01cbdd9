//! A client of name servers: asks for one name and tells all that was said, or for many and tells how
//! that went.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;

use crate::dns::{IN, Kind, Name, Query, Question, Shown, Transport, ask, shown};
use crate::resolve::nameservers;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whom to ask, and how.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// The server.
    pub server: SocketAddr,
    /// By datagram or on a connection.
    pub transport: Transport,
    /// Whether to say how large an answer may be: 1,232 octets.
    pub edns: bool,
}

/// The first server of this host's /etc/resolv.conf.
pub fn first_server() -> SocketAddr {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let first = nameservers(&text).first().copied();
    first.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 53)))
}

/// Asks once.
///
/// # Errors
/// When the name is none, nothing comes in 15 s, or what comes is no message.
pub async fn once(how: How, name: &str, kind: Kind) -> io::Result<Shown> {
    let name = Name::of(name).ok_or_else(|| io::Error::other(format!("{name:?} is no name")))?;
    let question = Question {
        name,
        kind,
        class: IN,
    };
    let message = ask(rand::random(), &Query::new(0, question), how.edns);
    let asked = async {
        match how.transport {
            Transport::Udp => by_udp(how.server, &message).await,
            Transport::Tcp => by_tcp(how.server, &message).await,
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
    shown(&answer).ok_or_else(|| io::Error::other("what came is no message"))
}

async fn by_udp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(message).await?;
    let mut heard = vec![0; 65_535];
    let length = socket.recv(&mut heard).await?;
    heard.truncate(length);
    Ok(heard)
}

async fn by_tcp(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    let length = stream.read_u16().await?;
    let mut heard = vec![0; length.into()];
    stream.read_exact(&mut heard).await?;
    Ok(heard)
}

/// What came of many questions.
#[derive(Debug, Default, Serialize)]
pub struct Tally {
    /// How many were asked.
    pub asked: usize,
    /// What was said, by code; `none` where nothing was.
    pub codes: BTreeMap<String, usize>,
    /// Half of the answers took no longer, in milliseconds.
    pub p50: u64,
    /// All but one in a hundred took no longer.
    pub p99: u64,
    /// The longest took so long.
    pub longest: u64,
}

/// Asks for addresses `rate` times a second, for so many seconds, of `different` names below `domain`
/// in turn.
pub async fn many(how: How, domain: &str, rate: u32, seconds: u32, different: u32) -> Tally {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    let mut tasks = JoinSet::new();
    for number in 0..rate.saturating_mul(seconds) {
        tick.tick().await;
        let name = format!("n{}.{domain}", number % different.max(1));
        tasks.spawn(async move {
            let begun = Instant::now();
            (once(how, &name, Kind::A).await, begun.elapsed())
        });
    }
    let mut tally = Tally::default();
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        tally.asked += 1;
        let (code, took) = match done {
            Ok((Ok(said), took)) => (said.code, took),
            Ok((Err(_), took)) => ("none".to_owned(), took),
            Err(_) => ("none".to_owned(), PATIENCE),
        };
        *tally.codes.entry(code).or_default() += 1;
        times.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get(times.len() * share / 100)
            .or_else(|| times.last())
    };
    tally.p50 = at(50).copied().unwrap_or_default();
    tally.p99 = at(99).copied().unwrap_or_default();
    tally.longest = times.last().copied().unwrap_or_default();
    tally
}
