//! Ordinary programs: a server that says who it sees and echoes, and its client.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::room::Room;

/// Longest wait of a client for its server, less than the proxy's 10 s for the next hop.
const PATIENCE: Duration = Duration::from_secs(3);

/// Greets each connection with `from ADDRESS`, then echoes, on every address. It serves until the
/// process ends.
pub(crate) struct Server {
    accepted: Arc<AtomicUsize>,
}

impl Server {
    /// In the workload.
    pub(crate) fn in_cart(room: &Room, port: u16) -> Self {
        Self::serve(room.workload(|| listen(port)))
    }

    /// Anywhere else.
    pub(crate) fn outside(port: u16) -> Self {
        Self::serve(listen(port))
    }

    /// On a listener made elsewhere.
    pub(crate) fn on(listener: TcpListener) -> Self {
        Self::serve(listener)
    }

    fn serve(listener: TcpListener) -> Self {
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let stream = stream.unwrap();
                thread::spawn(move || echo(stream));
            }
        });
        Self { accepted }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

pub(crate) fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?.ip().to_canonical();
    writeln!(stream, "from {peer}")?;
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

/// How a client makes its socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct How {
    pub(crate) mark: Option<u32>,
    pub(crate) from: Option<SocketAddr>,
}

/// Connects as most do.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    connect_how(to, How::default())
}

pub(crate) fn connect_how(to: SocketAddr, how: How) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(mark) = how.mark {
        socket.set_mark(mark)?;
    }
    if let Some(from) = how.from {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The server's greeting: whom it sees.
pub(crate) fn greeting(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Sends that many bytes and takes them back.
pub(crate) fn exchange(stream: &TcpStream, size: usize) -> io::Result<()> {
    let sent: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let mut received = vec![0; size];
    thread::scope(|scope| {
        let writing = scope.spawn(|| (&mut &*stream).write_all(&sent));
        (&mut &*stream).read_exact(&mut received)?;
        writing.join().unwrap()
    })?;
    assert!(sent == received, "the echo of {size} bytes is another");
    Ok(())
}

/// Connects, exchanges a megabyte, ends in good order; the greeting.
pub(crate) fn visit(to: SocketAddr) -> io::Result<String> {
    let mut stream = connect(to)?;
    let greeting = greeting(&mut stream)?;
    exchange(&stream, 1 << 20)?;
    stream.shutdown(Shutdown::Write)?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    assert!(rest.is_empty());
    Ok(greeting)
}
