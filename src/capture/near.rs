//! What suits a connection whose other end is near: on this host, or in the same rack.
//!
//! There is next to nothing on the way, so what is sent ahead of the reader only waits, in the
//! kernel's queues, and all that is sent behind it waits as well. And congestion control that paces
//! by the round-trip time, as BBR does, has no time to pace by: on such a path it halves what
//! a connection carries.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::sys;

/// Round trips below it are near: beyond it lies another site, or a slow link.
const NEAR: Duration = Duration::from_millis(1);
/// Bytes of a near connection that wait in our kernel to be sent.
const UNSENT: u32 = 128 << 10;
/// Bytes of a near connection that wait in our kernel to be read: more than 40 Gbit/s has on the
/// way in 200 µs.
const WINDOW: u32 = 1 << 20;
/// Congestion control of near connections, the first that the kernel has and lets us use.
const PREFERRED: [&str; 2] = ["cubic", "reno"];
/// Congestion control that is replaced.
const PACED: &[u8] = b"bbr";

/// Suits a connection to a program of this host, or a listener to which only such connect.
pub fn local(socket: &impl AsFd) {
    unpaced(&SockRef::from(socket));
}

/// Suits a fresh connection to another node, when that is near.
pub fn tunnel(stream: &TcpStream) {
    let socket = stream.as_fd();
    if sys::round_trip(socket).is_ok_and(|time| time < NEAR) {
        let socket = SockRef::from(stream);
        unpaced(&socket);
        // Refused, the connection only queues more.
        let _queues = socket.set_tcp_notsent_lowat(UNSENT);
        let _queues = sys::clamp_window(stream.as_fd(), WINDOW);
    }
}

/// Takes pacing off a socket. Where that is not allowed it is only slower.
fn unpaced(socket: &SockRef<'_>) {
    let paced = socket
        .tcp_congestion()
        .is_ok_and(|name| name.starts_with(PACED));
    if paced {
        let _set = PREFERRED
            .iter()
            .find(|name| socket.set_tcp_congestion(name.as_bytes()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn connection() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_tunnel_on_loopback_queues_little() {
        let stream = connection().await;
        tunnel(&stream);
        let unsent = SockRef::from(&stream).tcp_notsent_lowat();
        assert_eq!(unsent.unwrap(), UNSENT);
    }

    #[tokio::test]
    async fn pacing_is_taken_off_and_nothing_else() {
        for (name, before, paced) in [("paced", "bbr", true), ("not", "reno", false)] {
            let stream = connection().await;
            let socket = SockRef::from(&stream);
            if socket.set_tcp_congestion(before.as_bytes()).is_err() {
                eprintln!("skipped: `{name}` needs a kernel with {before}");
                continue;
            }
            local(&stream);
            let now = String::from_utf8(socket.tcp_congestion().unwrap()).unwrap();
            let now = now.trim_end_matches('\0');
            assert_eq!(now == before, !paced, "{name}: {now}");
        }
    }
}
