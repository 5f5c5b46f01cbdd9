//! Asks servers: by UDP, by TCP where an answer does not fit, the next one while the first is silent.
//!
//! Whoever answers must answer from where he was asked, to a port and under a number that nobody can
//! know, and the very question (RFC 5452); all else that comes is passed over.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::servers::{Server, Servers};
use crate::capture::{Place, Sockets};
use crate::dns::{Code, Heard, Query, Received, ask, hear};

/// Longest that all servers together are asked, and how often (`spec/hbone-dataplane.md` §5).
const PATIENCE: Duration = Duration::from_secs(5);
const ROUNDS: usize = 2;
/// How long one is silent before the next is asked as well.
const SILENCE: Duration = Duration::from_secs(1);
/// Exchanges of one asker at once: each takes a descriptor.
const EXCHANGES: usize = 128;
/// Largest datagram that is read; servers are told that none is to be larger than 1,232 octets.
const DATAGRAM: usize = 4096;
/// Datagrams that are no answer and are passed over, before somebody is taken to be guessing.
const GUESSES: usize = 32;

/// Why nobody has answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    /// There is nobody to ask.
    #[error("no name server is known")]
    NoServer,
    /// Nothing came.
    #[error("no name server answered in time")]
    Silence,
    /// What came is no answer.
    #[error("{server} answers what cannot be read")]
    Unreadable {
        /// Who.
        server: SocketAddr,
    },
    /// Somebody guesses, or the server does.
    #[error("{server} does not answer what it was asked")]
    Other {
        /// Who.
        server: SocketAddr,
    },
    /// It cannot be asked.
    #[error("cannot ask {server}")]
    Unreached {
        /// Who.
        server: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// This network is served no more.
    #[error("no longer wanted")]
    Stopping,
}

/// The servers of one network, and the way there.
pub(crate) struct Upstream {
    servers: Arc<Servers>,
    /// Where a workload's questions leave from; the host's from anywhere.
    from: Option<(Sockets, Place)>,
    /// The server that has answered last: one that is gone is not to be waited for each time.
    first: AtomicUsize,
    exchanges: Semaphore,
}

impl Upstream {
    /// Asks from where a workload is.
    pub(crate) fn of_workload(servers: Servers, sockets: Sockets, place: Place) -> Self {
        Self::new(Arc::new(servers), Some((sockets, place)))
    }

    /// Asks from the host.
    pub(crate) fn of_host(servers: Servers) -> Self {
        Self::new(Arc::new(servers), None)
    }

    /// The same servers, with exchanges of its own.
    pub(super) fn apart(&self) -> Self {
        Self::new(Arc::clone(&self.servers), self.from.clone())
    }

    fn new(servers: Arc<Servers>, from: Option<(Sockets, Place)>) -> Self {
        Self {
            servers,
            from,
            first: AtomicUsize::new(0),
            exchanges: Semaphore::new(EXCHANGES),
        }
    }

    /// What the servers say. Where none knows, what the last one said of itself.
    ///
    /// # Errors
    /// [`NoAnswer`], of the last.
    pub(super) async fn ask(&self, query: &Query) -> Result<Arc<Received>, NoAnswer> {
        let servers = self.servers.current().await;
        if servers.is_empty() {
            return Err(NoAnswer::NoServer);
        }
        let mut last = Last {
            poor: None,
            failed: NoAnswer::Silence,
        };
        for _ in 0..ROUNDS {
            let round = self.round(&servers, query, &mut last);
            if let Ok(Some(received)) = timeout(PATIENCE, round).await {
                return Ok(Arc::new(received));
            }
        }
        match last.poor {
            Some(poor) => Ok(Arc::new(poor)),
            None => Err(last.failed),
        }
    }

    /// Asks all of them, one after another, each while those before it are silent.
    async fn round(&self, servers: &[Server], query: &Query, last: &mut Last) -> Option<Received> {
        let first = self.first.load(Ordering::Relaxed);
        let order = (0..servers.len()).map(|n| (first + n) % servers.len());
        let mut order = order.filter_map(|at| Some((at, *servers.get(at)?)));
        let mut asked = FuturesUnordered::new();
        let mut more = true;
        loop {
            match order.next().filter(|_| more) {
                Some((at, server)) => {
                    asked.push(async move { (at, self.exchange(server, query).await) })
                }
                None => more = false,
            }
            tokio::select! {
                answered = asked.next() => match answered {
                    Some((at, Ok(received))) if received.code.is_of_the_name() => {
                        self.first.store(at, Ordering::Relaxed);
                        return Some(received);
                    }
                    Some((_, Ok(poor))) => last.poor = Some(poor),
                    Some((_, Err(e))) => last.failed = e,
                    None if more => {}
                    None => return None,
                },
                () = sleep(SILENCE), if more => {}
            }
        }
    }

    /// Asks one.
    async fn exchange(&self, server: Server, query: &Query) -> Result<Received, NoAnswer> {
        let Ok(_place) = self.exchanges.acquire().await else {
            return Err(NoAnswer::Stopping);
        };
        let heard = self.by_udp(server, query, true).await?;
        // Some know nothing of EDNS (RFC 6891 §7).
        let puzzled = |code| code == Code::FORMAT || code == Code::NOT_IMPLEMENTED;
        let heard = match heard {
            Heard::Answer(received) if puzzled(received.code) => {
                self.by_udp(server, query, false).await?
            }
            other => other,
        };
        let heard = match heard {
            Heard::Truncated => self.by_tcp(server, query).await?,
            other => other,
        };
        let server = server.address;
        match heard {
            Heard::Answer(received) => Ok(received),
            Heard::Other => Err(NoAnswer::Other { server }),
            Heard::Truncated | Heard::Unreadable => Err(NoAnswer::Unreadable { server }),
        }
    }

    async fn by_udp(&self, server: Server, query: &Query, edns: bool) -> Result<Heard, NoAnswer> {
        let unreached = |source| NoAnswer::Unreached {
            server: server.address,
            source,
        };
        let socket = self.udp(server).await.map_err(unreached)?;
        // Connected, it hears nobody else.
        socket.connect(server.address).await.map_err(unreached)?;
        let id = rand::random();
        let question = ask(id, query, edns);
        socket.send(&question).await.map_err(unreached)?;
        // One more than is read, to see what is larger.
        let mut heard = vec![0; DATAGRAM + 1];
        for _ in 0..GUESSES {
            let length = socket.recv(&mut heard).await.map_err(unreached)?;
            let message = heard.get(..length).unwrap_or_default().to_vec();
            match hear(message, id, &query.question) {
                Heard::Other => {}
                _ if length > DATAGRAM => return Ok(Heard::Unreadable),
                heard => return Ok(heard),
            }
        }
        Ok(Heard::Other)
    }

    async fn udp(&self, server: Server) -> io::Result<UdpSocket> {
        let to = server.address.ip();
        match &self.from {
            Some((sockets, place)) if !server.on_host => {
                UdpSocket::from_std(sockets.udp(place, to).await?)
            }
            _ => UdpSocket::bind((unspecified(to), 0)).await,
        }
    }

    /// Asks on a connection (RFC 7766).
    async fn by_tcp(&self, server: Server, query: &Query) -> Result<Heard, NoAnswer> {
        let unreached = |source| NoAnswer::Unreached {
            server: server.address,
            source,
        };
        let mut stream = self.tcp(server).await.map_err(unreached)?;
        let id = rand::random();
        let message = on_connection(id, query, &mut stream).await;
        Ok(hear(message.map_err(unreached)?, id, &query.question))
    }

    async fn tcp(&self, server: Server) -> io::Result<TcpStream> {
        match &self.from {
            Some((sockets, place)) if !server.on_host => {
                Ok(sockets.connect(place, server.address, None).await?)
            }
            _ => TcpStream::connect(server.address).await,
        }
    }
}

/// What came of those who did not know.
struct Last {
    poor: Option<Received>,
    failed: NoAnswer,
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

async fn on_connection(id: u16, query: &Query, stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let question = ask(id, query, true);
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes()[..], &question].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
