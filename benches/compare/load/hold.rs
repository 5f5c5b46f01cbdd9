//! Many connections that are open and say nothing, and the server at their other end.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fault::Fault;

/// Connections being opened at a time: fewer than any backlog.
const AT_ONCE: usize = 128;
/// Longest one may take; after the first that takes longer no more are tried.
const OPENING: Duration = Duration::from_secs(10);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Accepts connections and says back what comes, for ever.
pub(super) fn echo(port: u16) -> Result<(), Fault> {
    super::runtime()?.block_on(async {
        let failed = || Fault::io(format!("listening on port {port}"));
        let socket = TcpSocket::new_v4().map_err(failed())?;
        socket.set_reuseaddr(true).map_err(failed())?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        socket.bind(address).map_err(failed())?;
        let listener = socket.listen(BACKLOG).map_err(failed())?;
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _peer) = accepted.map_err(failed())?;
                    open.spawn(say_back(stream));
                }
                // Those that have ended are forgotten; while there are none, this is not polled.
                Some(_ended) = open.join_next() => {}
            }
        }
    })
}

async fn say_back(mut stream: TcpStream) {
    let mut byte = [0];
    while matches!(stream.read(&mut byte).await, Ok(1)) {
        if stream.write_all(&byte).await.is_err() {
            return;
        }
    }
}

/// Opens connections, sees a byte through each and back, says how many it has, and keeps them until
/// its input ends. Fewer than `count` when one cannot be opened.
pub(super) fn hold(to: SocketAddr, count: u32) -> Result<(), Fault> {
    let opened = super::runtime()?.block_on(async {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            tasks.spawn(open(to, turns.clone()));
        }
        let mut opened = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done.unwrap_or_else(|e| Err(Fault::said("opening", e.to_string()))) {
                Ok(stream) => opened.push(stream),
                // Those that have no turn yet fail at once.
                Err(_) => turns.close(),
            }
        }
        opened
    });
    println!("{}", opened.len());
    let _ended = std::io::stdin().read(&mut [0]);
    Ok(())
}

async fn open(to: SocketAddr, turns: Arc<Semaphore>) -> Result<TcpStream, Fault> {
    let doing = || format!("opening a connection to {to}");
    let turn = turns.acquire().await;
    let _turn = turn.map_err(|_closed| Fault::said(doing(), "no more are tried"))?;
    let through = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(b"x").await?;
        stream.read_exact(&mut [0]).await?;
        Ok(stream)
    };
    let done = timeout(OPENING, through).await;
    done.map_err(|_elapsed| Fault::Late {
        doing: doing(),
        within: OPENING,
    })?
    .map_err(Fault::io(doing()))
}
