//! Just enough HTTP to ask nginx for its small answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// A request on a connection that is kept.
pub(super) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
/// More than the answer needs.
pub(super) const ROOM: usize = 4096;
/// Longest a connection or an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a probe tries on.
const PROBING: Duration = Duration::from_secs(20);

/// Length of the answer that `bytes` begin with, head included; none until the head is whole.
///
/// # Errors
/// When it is no good answer.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return match bytes.len() < ROOM {
            true => Ok(None),
            false => Err(Fault::said("asking nginx", "an endless head")),
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let body = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    match body {
        Some(body) if head.starts_with("HTTP/1.1 200") && body < ROOM - end - 4 => {
            Ok(Some(end + 4 + body))
        }
        _ => Err(Fault::said("asking nginx", head.into_owned())),
    }
}

/// A connection whose reader blocks.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and asks once, so that everything on the way is there.
    pub(super) fn connect(to: SocketAddr) -> Result<Self, Fault> {
        let doing = || format!("connecting to {to}");
        let stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(Fault::io(doing()))?;
        stream.set_nodelay(true).map_err(Fault::io(doing()))?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(Fault::io(doing()))?;
        let buffer = vec![0; ROOM];
        let mut client = Self { stream, buffer };
        client.ask()?;
        Ok(client)
    }

    /// Sends a request and reads the answer to its end.
    pub(super) fn ask(&mut self) -> Result<(), Fault> {
        let doing = "asking nginx";
        self.stream.write_all(REQUEST).map_err(Fault::io(doing))?;
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]);
            match read.map_err(Fault::io(doing))? {
                0 => return Err(Fault::said(doing, "the connection ended")),
                more => filled += more,
            }
            if length(&self.buffer[..filled])?.is_some_and(|whole| filled >= whole) {
                return Ok(());
            }
        }
    }
}

/// Asks each address until it answers.
pub(super) fn probe(to: &[SocketAddr]) -> Result<(), Fault> {
    let deadline = Instant::now() + PROBING;
    for to in to {
        while let Err(fault) = Client::connect(*to) {
            if Instant::now() >= deadline {
                return Err(fault);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}
