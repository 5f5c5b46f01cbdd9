//! Clients and programs that write HTTP/1 by hand, to see every byte of it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::hbone::TunnelIo;
use crate::hbone::testing::soon;
use crate::waypoint::testing::Rig;

/// What a program answers with nothing to say.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A program that takes the heads of requests, and the bodies that say how long they are, tells of
/// them and gives the same answer to each.
pub(super) struct Program {
    pub(super) heard: mpsc::Receiver<String>,
}

impl Program {
    /// Serves `cart` at `address`.
    pub(super) async fn new(rig: &mut Rig, answer: &'static str) -> Self {
        let listener = rig.endpoint("cart-1", "10.1.0.11").await;
        let (tell, heard) = mpsc::channel(64);
        rig.run(serve(listener, tell, answer));
        Self { heard }
    }

    /// The next request.
    pub(super) async fn next(&mut self) -> String {
        soon("a request", self.heard.recv()).await.unwrap()
    }
}

async fn serve(listener: TcpListener, tell: mpsc::Sender<String>, answer: &'static str) {
    let mut connections = JoinSet::new();
    loop {
        let (mut tcp, _from) = listener.accept().await.unwrap();
        let tell = tell.clone();
        connections.spawn(async move {
            while let Some(request) = request(&mut tcp).await {
                tell.send(request).await.unwrap();
                tcp.write_all(answer.as_bytes()).await.unwrap();
            }
        });
    }
}

async fn request(tcp: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(tcp.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
    tcp.read_exact(&mut body).await.ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// Sends `bytes` to a port of `cart`, and returns all that comes back until the end.
pub(super) async fn exchange(rig: &Rig, port: u16, bytes: &[u8]) -> String {
    let io = TunnelIo::new(rig.cart(port).await);
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut answer = Vec::new();
    let writing = async {
        // It may be answered, and closed, before all of it is sent.
        let _cut = writer.write_all(bytes).await;
    };
    let reading = soon("the end", reader.read_to_end(&mut answer));
    let ((), read) = tokio::join!(writing, reading);
    read.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
