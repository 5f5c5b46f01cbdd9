//! Programs and what joins them.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use lateen::hbone::{
    Authority, ConnectRequest, Connector, Handler, Hop, Incoming, Limits, Pool, Traffic, Transport,
    Tunnel, headers, relay, relay_tcp, serve,
};
use lateen::tls::hbone_server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::settings::Ends;

/// The port behind which there is no program: such a tunnel is only opened.
pub(super) const BARE: u16 = 9;
/// The port of the program.
const PROGRAM: u16 = 8080;

/// A connection to a program that answers every so many bytes with one.
pub(super) struct Program {
    pub(super) tcp: TcpStream,
    /// How many it has been told.
    pub(super) told: u32,
    /// The relay, and the program where it has no other owner.
    _tasks: JoinSet<()>,
}

impl Program {
    fn at(tcp: TcpStream, tasks: JoinSet<()>) -> Self {
        let _slower = tcp.set_nodelay(true);
        Self {
            tcp,
            told: 0,
            _tasks: tasks,
        }
    }
}

/// The program, until its client goes.
async fn answer(tcp: TcpStream) {
    let _gone = answer_each(tcp).await;
}

/// Reads how many bytes make a message, then answers each message.
async fn answer_each(mut tcp: TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let size = u64::from(tcp.read_u32().await?);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let mut left = size;
        while left > 0 {
            let room = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            match tcp.read(&mut buffer[..room]).await? {
                0 => return Ok(()),
                read => left -= read as u64,
            }
        }
        tcp.write_u8(1).await?;
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let bound = TcpListener::bind("127.0.0.1:0").await;
    let listener = bound.expect("loopback has a port to give");
    let at = listener.local_addr().expect("it is bound");
    (listener, at)
}

async fn pair() -> (TcpStream, TcpStream) {
    let (listener, at) = listener().await;
    let (near, far) = tokio::join!(TcpStream::connect(at), listener.accept());
    let joined = near.and_then(|near| Ok((near, far?.0)));
    joined.expect("the listener accepts")
}

/// A program behind [`relay_tcp`].
pub(super) async fn relayed() -> Program {
    let (client, captured) = pair().await;
    let (onward, program) = pair().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(answer(program));
    tasks.spawn(async move {
        let _ended = relay_tcp(captured, onward, &Traffic::default()).await;
    });
    Program::at(client, tasks)
}

struct Plain;

impl Connector for Plain {
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(to).await
    }
}

/// Relays a tunnel to the program, or only opens it.
struct Deliver {
    program: SocketAddr,
}

impl Handler for Deliver {
    async fn handle(self: Arc<Self>, request: Incoming) {
        if request.authority.port() == BARE {
            if let Ok(tunnel) = request.accept("k8s.namespace.name=shop") {
                end(tunnel).await;
            }
            return;
        }
        let Ok(tcp) = TcpStream::connect(self.program).await else {
            return request.refuse(http::StatusCode::SERVICE_UNAVAILABLE);
        };
        if let Ok(tunnel) = request.accept("k8s.namespace.name=shop") {
            // However it ended: the bench sees its own end of it.
            let _ended = relay(tcp, tunnel, &Traffic::default()).await;
        }
    }
}

/// Ends a tunnel in order, ours first.
pub(super) async fn end(mut tunnel: Tunnel) {
    tunnel.finish();
    while let Ok(Some(_bytes)) = poll_fn(|cx| tunnel.poll_read(cx)).await {}
}

/// A server of tunnels with a program behind it, and a pool that leads there.
pub(super) struct Tunnels {
    pool: Pool<Plain>,
    hop: Hop,
    _tasks: JoinSet<()>,
}

impl Tunnels {
    pub(super) async fn up() -> Self {
        let ends = Ends::new().expect("certificates of our own making are legal");
        let tls = hbone_server(&ends.cart).expect("they can serve");
        // The first connection is to carry all: another one, opened for load in the middle of a
        // measurement, would be another measurement.
        let limits = Limits {
            connections: 1,
            busy_share: u32::MAX,
            bulk: u64::MAX,
            ..Limits::default()
        };
        let (programs, program) = listener().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((tcp, _from)) = programs.accept().await {
                answering.spawn(answer(tcp));
            }
        });
        let (server, to) = listener().await;
        let (handler, shared) = (Arc::new(Deliver { program }), limits.clone());
        tasks.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((tcp, remote)) = server.accept().await {
                let (tls, limits) = (Arc::clone(&tls), shared.clone());
                let (handler, stop) = (Arc::clone(&handler), CancellationToken::new());
                serving.spawn(async move { serve(tcp, remote, tls, &limits, handler, stop).await });
            }
        });
        let hop = Hop {
            to,
            svid: ends.web,
            accepted: Arc::new([ends.cart.id().clone()].into()),
            name: None,
            transport: Transport::Tcp,
        };
        Self {
            pool: Pool::new(Plain, limits),
            hop,
            _tasks: tasks,
        }
    }

    /// A tunnel to `port`, on the pooled connection if there is one.
    pub(super) async fn open(&self, port: u16) -> Tunnel {
        let request = ConnectRequest {
            authority: Authority::Address(SocketAddr::from(([10, 0, 0, 2], port))),
            baggage: "k8s.namespace.name=shop".to_owned(),
            forwarded: "for=\"10.0.0.1:4000\"".to_owned(),
            traceparent: headers::new_traceparent(),
            carries: lateen::hbone::Carries::Bytes,
        };
        let opened = self.pool.connect(&self.hop, &request).await;
        opened.expect("the server takes tunnels").0
    }

    /// The program, through a tunnel of its own.
    pub(super) async fn program(&self) -> Program {
        let tunnel = self.open(PROGRAM).await;
        let (client, captured) = pair().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ended = relay(captured, tunnel, &Traffic::default()).await;
        });
        Program::at(client, tasks)
    }
}
