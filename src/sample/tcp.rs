//! Raw TCP: an echo, and a client that opens many connections to one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// Longest wait of a client for its echo.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends back what it hears, until it is ended.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn echo(listen: SocketAddr) -> io::Result<()> {
    let socket = match listen {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    let listener = socket.listen(4096)?;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_done) = tasks.join_next() => {}
            accepted = listener.accept() => {
                let (mut stream, _peer) = accepted?;
                tasks.spawn(async move {
                    let (mut from, mut to) = stream.split();
                    // A client that goes away is its own business.
                    let _ended = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        }
    }
}

/// What came of many connections.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Connections that echoed and ended in order.
    pub good: usize,
    /// Connections that did not.
    pub bad: usize,
    /// The first failure.
    pub first_error: Option<String>,
}

/// Opens `count` connections, holds them all open at once, sends a line through each, and closes
/// them.
pub async fn many(to: SocketAddr, count: usize) -> Tally {
    let all_open = Arc::new(Barrier::new(count));
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let all_open = Arc::clone(&all_open);
        tasks.spawn(async move {
            let session = one(to, number, &all_open);
            let outcome = tokio::time::timeout(PATIENCE, session).await;
            outcome.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        });
    }
    let mut tally = Tally::default();
    while let Some(done) = tasks.join_next().await {
        match done.map_err(io::Error::other).and_then(|outcome| outcome) {
            Ok(()) => tally.good += 1,
            Err(e) => {
                tally.bad += 1;
                tally.first_error.get_or_insert_with(|| e.to_string());
            }
        }
    }
    tally
}

async fn one(to: SocketAddr, number: usize, all_open: &Barrier) -> io::Result<()> {
    let line = format!("line {number} of many\n");
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(line.as_bytes()).await?;
    let mut echo = vec![0; line.len()];
    stream.read_exact(&mut echo).await?;
    if echo != line.as_bytes() {
        return Err(io::Error::other("another line came back"));
    }
    all_open.wait().await;
    stream.shutdown().await?;
    match stream.read(&mut echo).await? {
        0 => Ok(()),
        _ => Err(io::Error::other("more came back than was sent")),
    }
}
