//! The ports on which questions arrive: datagrams, and connections that carry several.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcp, UdpSocket as StdUdp};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Answering;
use crate::dns::{Query, Transport};
use crate::sys::{self, Datagram};

/// Largest question by UDP that is read.
const DATAGRAM: usize = 4096;
/// Connections of one network at once; above it new ones wait to be accepted.
const CONNECTIONS: usize = 128;
/// How long a connection may be idle, or take for one message (`spec/hbone-dataplane.md` §5).
const IDLE: Duration = Duration::from_secs(5);
/// Pause after a failure to receive or accept: trying at once only spins.
const PAUSE: Duration = Duration::from_millis(50);
/// Questions of one socket that are being followed up; above it, nothing more is read from it. What
/// the network may have followed up is less.
const TASKS: usize = 2048;

/// The sockets of one network: of each family there is.
pub(crate) struct Listeners {
    pub(crate) udp: Vec<StdUdp>,
    pub(crate) tcp: Vec<StdTcp>,
}

/// Answers what arrives until `stop`; then nobody holds the ports any more.
///
/// # Errors
/// When the runtime cannot take the sockets.
pub(crate) async fn serve(
    answering: Answering,
    listeners: Listeners,
    stop: CancellationToken,
) -> io::Result<()> {
    let answering = Arc::new(answering);
    let udp = listeners.udp.into_iter().map(UdpSocket::from_std);
    let udp = udp.collect::<io::Result<Vec<_>>>()?;
    let tcp = listeners.tcp.into_iter().map(TcpListener::from_std);
    let tcp = tcp.collect::<io::Result<Vec<_>>>()?;
    {
        let datagrams = udp.into_iter().map(|socket| datagrams(&answering, socket));
        let mut datagrams: FuturesUnordered<_> = datagrams.collect();
        let connections = tcp
            .into_iter()
            .map(|listener| connections(&answering, listener));
        let mut connections: FuturesUnordered<_> = connections.collect();
        let all = async {
            tokio::join!(async { while datagrams.next().await.is_some() {} }, async {
                while connections.next().await.is_some() {}
            },)
        };
        tokio::select! {
            () = stop.cancelled() => {}
            _never = all => {}
        }
    }
    answering.ways.stop().await;
    Ok(())
}

async fn datagrams(answering: &Arc<Answering>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut heard = vec![0; DATAGRAM];
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(done) = tasks.join_next() => report(done),
            received = received(&socket, &mut heard), if tasks.len() < TASKS => match received {
                Ok(Datagram { length, from, mark }) => {
                    let message = heard.get(..length).unwrap_or_default();
                    if let Some(query) = datagram(answering, &socket, message, (from, mark)).await {
                        let (answering, socket) = (Arc::clone(answering), Arc::clone(&socket));
                        tasks.spawn(async move {
                            let reply = answering.in_time(&query, Transport::Udp, mark).await;
                            send(&socket, &reply, from).await;
                        });
                    }
                }
                Err(e) => {
                    warn!(error = %e, "cannot hear questions for names, pausing");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Answers a datagram if that can be done at once; else the question.
async fn datagram(
    answering: &Answering,
    socket: &UdpSocket,
    message: &[u8],
    (from, mark): (SocketAddr, u32),
) -> Option<Query> {
    let reply = match Query::read(message) {
        Ok(query) => match answering.at_once(&query, Transport::Udp, mark) {
            Some(reply) => reply,
            None => return Some(query),
        },
        Err(unfit) => unfit.reply()?,
    };
    send(socket, &reply, from).await;
    None
}

async fn received(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let receive = || sys::receive(socket.as_fd(), buffer);
    socket.async_io(Interest::READABLE, receive).await
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    // Who is not there any more needs no answer.
    let _gone = socket.send_to(reply, to).await;
}

async fn connections(answering: &Arc<Answering>, listener: TcpListener) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            Some(done) = tasks.join_next() => report(done),
            accepted = listener.accept(), if tasks.len() < CONNECTIONS => match accepted {
                Ok((stream, _from)) => {
                    let answering = Arc::clone(answering);
                    tasks.spawn(async move { connection(&answering, stream).await });
                }
                Err(e) => {
                    warn!(error = %e, "cannot accept questions for names, pausing");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

/// Answers what comes on a connection, in its order, until either side has enough.
async fn connection(answering: &Answering, mut stream: TcpStream) {
    let mark = SockRef::from(&stream).mark().unwrap_or_default();
    while let Ok(Ok(message)) = timeout(IDLE, read(&mut stream)).await {
        let reply = match Query::read(&message) {
            Ok(query) => answering.in_time(&query, Transport::Tcp, mark).await,
            Err(unfit) => match unfit.reply() {
                Some(reply) => reply,
                None => return,
            },
        };
        let written = timeout(IDLE, write(&mut stream, &reply)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    let mut message = Vec::new();
    // What is announced is not believed before it comes.
    let most = u64::try_from(length).unwrap_or_default();
    stream.take(most).read_to_end(&mut message).await?;
    match message.len() == length {
        true => Ok(message),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn write(stream: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
    let framed = [&length.to_be_bytes()[..], reply].concat();
    stream.write_all(&framed).await
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = done {
        warn!(error = %failed, "a question's task died");
    }
}
