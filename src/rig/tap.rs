//! Listens on the link between a host and the others, and counts what crosses it: by protocol and
//! port, and how often a marker that must never be seen in clear is.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::io::unix::AsyncFd;

use super::RigError;
use crate::sys;

/// Largest frame looked at: more than any link's segments, offload included.
const FRAME: usize = 128 << 10;

/// What has crossed a link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// Frames in all.
    pub frames: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Frames in which the marker occurs.
    pub marked: u64,
    /// Frames by what they carry, such as `tcp/15008`.
    pub kinds: BTreeMap<String, u64>,
}

impl Seen {
    /// Takes one frame into the count.
    pub fn frame(&mut self, frame: &[u8], marker: &[u8]) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        if !marker.is_empty() && frame.windows(marker.len()).any(|w| w == marker) {
            self.marked += 1;
        }
        *self.kinds.entry(kind(frame)).or_default() += 1;
    }
}

/// What a frame carries: the protocol, and for TCP and UDP the service's port, taken to be a mesh
/// port where one is there, else the lower one.
pub fn kind(frame: &[u8]) -> String {
    let ethertype = (frame.get(12), frame.get(13));
    let (protocol, transport) = match ethertype {
        (Some(0x08), Some(0x00)) => {
            let header = frame.get(14).map_or(0, |b| usize::from(b & 0x0f) * 4);
            (frame.get(23).copied(), 14 + header)
        }
        (Some(0x86), Some(0xdd)) => (frame.get(20).copied(), 54),
        (Some(0x08), Some(0x06)) => return "arp".to_owned(),
        _ => return "other".to_owned(),
    };
    let port = |at: usize| {
        let bytes = frame.get(at..at + 2)?;
        Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
    };
    let name = match protocol {
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(1) => return "icmp".to_owned(),
        // Hop-by-hop options: multicast membership, before its ICMPv6.
        Some(58 | 0) => return "icmpv6".to_owned(),
        Some(other) => return format!("ip/{other}"),
        None => return "cut".to_owned(),
    };
    match (port(transport), port(transport + 2)) {
        (Some(a), Some(b)) => {
            let mesh = [a, b].into_iter().find(|p| (15000..15100).contains(p));
            format!("{name}/{}", mesh.unwrap_or_else(|| a.min(b)))
        }
        _ => format!("{name}/cut"),
    }
}

/// Addresses of a frame, for telling who talked: source and destination.
pub fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(bytes))
    };
    let v6 = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(bytes))
    };
    match (frame.get(12)?, frame.get(13)?) {
        (0x08, 0x00) => Some((v4(26)?, v4(30)?)),
        (0x86, 0xdd) => Some((v6(22)?, v6(38)?)),
        _ => None,
    }
}

/// Listens on `eth0` of the namespace this process is in, telling what was seen as a line of JSON
/// every second and once more when standard input ends, or until `tell` says that nobody wants more.
///
/// # Errors
/// [`RigError::System`] when the link may not be listened on.
pub async fn listen(marker: &str, tell: impl Fn(&Seen) -> bool) -> Result<(), RigError> {
    let socket =
        sys::packet_socket("eth0").map_err(RigError::system("cannot listen on the link"))?;
    let socket = sys::async_fd(socket).map_err(RigError::system("cannot wait for frames"))?;
    let mut seen = Seen::default();
    let mut buffer = vec![0u8; FRAME];
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut stdin = tokio::io::stdin();
    let mut byte = [0u8];
    loop {
        tokio::select! {
            drained = drain(&socket, &mut buffer, &mut seen, marker.as_bytes()) => {
                drained.map_err(RigError::system("cannot read frames"))?;
            }
            _now = second.tick() => if !tell(&seen) {
                return Ok(());
            },
            read = stdin.read(&mut byte) => if !read.is_ok_and(|n| n > 0) {
                // What has crossed by now is part of the last word.
                let rest = take(&socket, &mut buffer, &mut seen, marker.as_bytes());
                rest.map_err(RigError::system("cannot read frames"))?;
                break;
            },
        }
    }
    tell(&seen);
    Ok(())
}

/// Waits for frames and counts all there are.
async fn drain(
    socket: &AsyncFd<OwnedFd>,
    buffer: &mut [u8],
    seen: &mut Seen,
    marker: &[u8],
) -> io::Result<()> {
    let mut ready = socket.readable().await?;
    take(socket, buffer, seen, marker)?;
    ready.clear_ready();
    Ok(())
}

/// Counts the frames that are there now.
fn take(
    socket: &AsyncFd<OwnedFd>,
    buffer: &mut [u8],
    seen: &mut Seen,
    marker: &[u8],
) -> io::Result<()> {
    loop {
        match recv(socket.get_ref(), &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((read, _full)) => {
                let length = read.min(buffer.len());
                seen.frame(buffer.get(..length).unwrap_or_default(), marker);
            }
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp4(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0u8; 12];
        frame.extend([0x08, 0x00, 0x45]);
        frame.extend([0u8; 8]);
        frame.push(6);
        frame.extend([0u8; 10]);
        frame.extend(from.to_be_bytes());
        frame.extend(to.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_are_told_apart() {
        for (name, frame, want) in [
            ("tunnel", tcp4(40000, 15008, b""), "tcp/15008"),
            ("tunnel's answer", tcp4(15008, 40000, b""), "tcp/15008"),
            ("program", tcp4(40000, 8080, b""), "tcp/8080"),
            ("arp", [&[0u8; 12][..], &[0x08, 0x06]].concat(), "arp"),
            (
                "cut",
                tcp4(1, 2, b"").get(..34).unwrap().to_vec(),
                "tcp/cut",
            ),
            ("empty", vec![], "other"),
        ] {
            assert_eq!(kind(&frame), want, "{name}");
        }
        let mut seen = Seen::default();
        seen.frame(&tcp4(1, 2, b"in the clear"), b"the clear");
        seen.frame(&tcp4(1, 2, b"else"), b"the clear");
        assert_eq!((seen.frames, seen.marked), (2, 1));
    }

    proptest! {
        #[test]
        fn any_frame_is_read_without_panic(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _read = (kind(&frame), ends(&frame));
        }
    }
}
