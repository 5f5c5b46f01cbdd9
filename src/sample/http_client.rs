//! An HTTP client that asks again and again, each time over a new connection, and tells what came.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `host` (`ADDRESS:PORT`) for `path`, `count` times or without end, `every` so often; `tell`
/// is given each answer's body or the failure, and says whether anybody wants more.
pub async fn ask(
    host: &str,
    path: &str,
    every: Duration,
    count: Option<u64>,
    mut tell: impl FnMut(io::Result<String>) -> bool,
) {
    let mut asked = 0;
    let mut tick = tokio::time::interval(every.max(Duration::from_millis(1)));
    while count.is_none_or(|count| asked < count) {
        tick.tick().await;
        asked += 1;
        let answer = tokio::time::timeout(PATIENCE, once(host, path)).await;
        if !tell(answer.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))) {
            break;
        }
    }
}

async fn once(host: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!(
            "no answer but {:?}",
            answer.lines().next().unwrap_or_default()
        ))),
    }
}
