//! One busy connection to each of many addresses.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Told;
use super::http::{PATIENCE, REQUEST, ROOM, length};
use crate::fault::Fault;

/// Until every connection has had its first answer.
const HEAD_START: Duration = Duration::from_secs(1);

/// Asks all addresses at once, each as fast as it answers.
pub(super) fn run(to: &[SocketAddr], seconds: u32) -> Result<Told, Fault> {
    let span = Duration::from_secs(seconds.into());
    let start = Instant::now() + HEAD_START;
    super::runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        for to in to {
            tasks.spawn(one(*to, start, start + span));
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or_else(|e| Err(Fault::said("asking", e.to_string())));
            latencies.extend(done?);
        }
        Ok(Told::of(latencies, span.as_secs_f64()))
    })
}

/// Latencies in nanoseconds of requests that began and ended between `start` and `end`.
async fn one(to: SocketAddr, start: Instant, end: Instant) -> Result<Vec<u64>, Fault> {
    let doing = || format!("asking {to}");
    let late = |_elapsed| Fault::Late {
        doing: doing(),
        within: PATIENCE,
    };
    let connected = timeout(PATIENCE, TcpStream::connect(to)).await;
    let mut stream = connected.map_err(late)?.map_err(Fault::io(doing()))?;
    stream.set_nodelay(true).map_err(Fault::io(doing()))?;
    let mut buffer = vec![0; ROOM];
    let mut latencies = Vec::new();
    loop {
        let began = Instant::now();
        let asked = timeout(PATIENCE, ask(&mut stream, &mut buffer, to)).await;
        asked.map_err(late)??;
        let ended = Instant::now();
        if ended >= end {
            return Ok(latencies);
        }
        if began >= start {
            let took = (ended - began).as_nanos();
            latencies.push(u64::try_from(took).unwrap_or(u64::MAX));
        }
    }
}

async fn ask(stream: &mut TcpStream, buffer: &mut [u8], to: SocketAddr) -> Result<(), Fault> {
    let doing = || format!("asking {to}");
    let sent = stream.write_all(REQUEST).await;
    sent.map_err(Fault::io(doing()))?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await;
        match read.map_err(Fault::io(doing()))? {
            0 => return Err(Fault::said(doing(), "the connection ended")),
            more => filled += more,
        }
        if length(&buffer[..filled])?.is_some_and(|whole| filled >= whole) {
            return Ok(());
        }
    }
}
