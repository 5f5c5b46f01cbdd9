//! Notes what a peer lets us hear, pings a silent one and gives it up when nobody answers
//! (`spec/hbone-dataplane.md` §1.2).

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What has been heard on a byte stream.
#[derive(Debug, Default)]
pub(super) struct Heard {
    lately: AtomicBool,
    ever: AtomicBool,
    fault: OnceLock<rustls::Error>,
}

impl Heard {
    /// Whether anything arrived since this was last asked.
    fn lately(&self) -> bool {
        self.lately.swap(false, Ordering::Relaxed)
    }

    /// Whether anything ever arrived. In TLS 1.3 a client is done before the server has judged its
    /// certificate: until the first byte, it may still be turned away.
    pub(super) fn ever(&self) -> bool {
        self.ever.load(Ordering::Relaxed)
    }

    /// What the TLS stack said when it broke; HTTP/2 passes on no more than a text of it.
    pub(super) fn fault(&self) -> Option<&rustls::Error> {
        self.fault.get()
    }

    fn note(&self, outcome: &io::Result<()>, bytes: usize) {
        match outcome {
            Ok(()) if bytes > 0 => {
                self.lately.store(true, Ordering::Relaxed);
                self.ever.store(true, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(e) => {
                let fault = e.get_ref().and_then(|e| e.downcast_ref());
                if let Some(fault) = fault.cloned() {
                    // The first fault is the cause of the others.
                    let _known = self.fault.set(fault);
                }
            }
        }
    }
}

/// A byte stream that notes when something arrives on it.
pub(super) struct Watched<S> {
    inner: S,
    heard: Arc<Heard>,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S) -> (Self, Arc<Heard>) {
        let heard = Arc::new(Heard::default());
        let watched = Self {
            inner,
            heard: Arc::clone(&heard),
        };
        (watched, heard)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(outcome) = &outcome {
            self.heard.note(outcome, buf.filled().len() - before);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Returns when the peer has been silent for `after` and then for `timeout` more with our ping
/// unanswered; pends for ever while it lives. The connection must be polled beside it.
///
/// A pong may sit behind megabytes of data on a slow link, so whatever arrives meanwhile counts as
/// life too.
pub(super) async fn silent(
    ping: Option<PingPong>,
    heard: Arc<Heard>,
    after: Duration,
    timeout: Duration,
) {
    let Some(mut ping) = ping else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(after).await;
        if heard.lately() {
            continue;
        }
        if ping.send_ping(Ping::opaque()).is_err() {
            return;
        }
        loop {
            let pong = poll_fn(|cx| ping.poll_pong(cx));
            match tokio::time::timeout(timeout, pong).await {
                Ok(Ok(_pong)) => break,
                Err(_elapsed) if heard.lately() => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        // The pong itself is no reason to skip the next ping.
        heard.lately();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::Instant;

    const PREFACE: usize = 24;
    const FRAME_PING: u8 = 6;
    const ACK: u8 = 1;
    /// An empty SETTINGS frame: what a server must say first.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    /// A WINDOW_UPDATE of one byte for the connection: a sign of life that asks for nothing.
    const SIGN: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    /// Reads frames for ever, answering the first `pongs` pings and saying something every `signs`
    /// seconds; counts pings.
    async fn peer(mut io: DuplexStream, pongs: usize, signs: Option<u64>) -> usize {
        io.write_all(&SETTINGS).await.unwrap();
        io.read_exact(&mut [0; PREFACE]).await.unwrap();
        let mut pings = 0;
        let mut tick = tokio::time::interval(Duration::from_secs(signs.unwrap_or(1)));
        let (mut reader, mut writer) = tokio::io::split(io);
        loop {
            let read = async {
                let mut head = [0; 9];
                reader.read_exact(&mut head).await?;
                let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                reader.read_exact(&mut body).await.map(|_read| (head, body))
            };
            tokio::pin!(read);
            let frame = loop {
                tokio::select! {
                    frame = &mut read => break frame,
                    _now = tick.tick(), if signs.is_some() => writer.write_all(&SIGN).await.unwrap(),
                }
            };
            let Ok((mut head, body)) = frame else {
                return pings;
            };
            if head[3] == FRAME_PING && head[4] & ACK == 0 {
                pings += 1;
                if pings <= pongs {
                    head[4] = ACK;
                    writer.write_all(&head).await.unwrap();
                    writer.write_all(&body).await.unwrap();
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_pinged_and_given_up() {
        let minute = Duration::from_secs(61);
        // Its SETTINGS count as life in the first 10 s.
        for (name, pongs, signs, ends, pings) in [
            ("never answers", 0, None, Some(40), 1),
            ("answers twice", 2, None, Some(60), 3),
            ("answers always", usize::MAX, None, None, 5),
            ("always has something to say", 0, Some(5), None, 0),
            ("has a slow way back", 0, Some(25), None, 1),
        ] {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let (ours, heard) = Watched::new(ours);
            let (sender, mut connection) = h2::client::handshake(ours).await.unwrap();
            let ping = connection.ping_pong();
            let begun = Instant::now();
            let (after, timeout) = (Duration::from_secs(10), Duration::from_secs(20));
            let watched = async move {
                let _sender: h2::client::SendRequest<Bytes> = sender;
                tokio::select! {
                    () = silent(ping, heard, after, timeout) => Some(begun.elapsed().as_secs()),
                    _ended = &mut connection => panic!("{name}: connection ended by itself"),
                    () = tokio::time::sleep(minute) => None,
                }
            };
            let got = tokio::join!(watched, peer(theirs, pongs, signs));
            assert_eq!(got, (ends, pings), "{name}");
        }
    }
}
