//! What leaves the workload's namespace, seen on the link outside it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, recv};

use crate::room::CART;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const FRAGMENT: u8 = 44;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What forged packets carry, to be known by on the wire.
pub(crate) const TOKEN: &[u8] = b"lateen-escaped-in-clear";

/// Listens on a link.
pub(crate) struct Wire {
    socket: OwnedFd,
    sources: Vec<String>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        Self::of(&CART)
    }

    /// For what comes from others than the workload.
    pub(crate) fn of(sources: &[&str]) -> Self {
        Self::on("outside", sources)
    }

    /// On another link.
    pub(crate) fn on(link: &str, sources: &[&str]) -> Self {
        Self {
            socket: lateen::sys::packet_socket(link).unwrap(),
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    /// What was forged and carries the token, or opens a connection, since the last look.
    pub(crate) fn escapes(&self) -> Vec<String> {
        let marked = |frame: &[u8]| {
            !is_complaint(frame) && frame.windows(TOKEN.len()).any(|part| part == TOKEN)
        };
        let mut found = Vec::new();
        self.frames(|frame| {
            let forged = marked(frame).then(|| format!("forged: {frame:02x?}"));
            found.extend(forged.or_else(|| opening(frame, &self.sources)));
        });
        found
    }

    /// ICMP errors about what carries the token, since the last look.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.frames(|frame| {
            let about = frame.windows(TOKEN.len()).any(|part| part == TOKEN);
            found.extend((about && is_complaint(frame)).then(|| format!("{frame:02x?}")));
        });
        found
    }

    fn frames(&self, mut look: impl FnMut(&[u8])) {
        let mut frame = [0; 65536];
        while let Ok((_, length)) = recv(&self.socket, &mut frame, RecvFlags::empty()) {
            look(&frame[..length]);
        }
    }

    /// What the workload sent since the last look that opens a TCP connection, or hides whether it
    /// does.
    pub(crate) fn openings(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.frames(|frame| found.extend(opening(frame, &self.sources)));
        found
    }
}

/// Whether it is an ICMP error, which quotes what it is about: of what was let alone one may come while
/// the next thing is tried.
fn is_complaint(frame: &[u8]) -> bool {
    let at = |index: usize| frame.get(index).copied();
    match frame.get(12..14) {
        Some([0x08, 0x00]) => at(23) == Some(ICMP),
        Some([0x86, 0xdd]) => at(20) == Some(ICMPV6) && at(54).is_some_and(|kind| kind < 128),
        _ => false,
    }
}

fn opening(frame: &[u8], sources: &[String]) -> Option<String> {
    let kind: [u8; 2] = frame.get(12..14)?.try_into().ok()?;
    let packet = &frame[14..];
    let (source, protocol, hidden, segment) = match kind {
        IPV4 => {
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
            let header = usize::from(packet[0] & 15) * 4;
            let source = Ipv4Addr::from(source).to_string();
            (source, packet[9], fragment, packet.get(header..)?)
        }
        IPV6 => {
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let (next, rest) = (packet[6], packet.get(40..)?);
            let source = Ipv6Addr::from(source).to_string();
            match next {
                FRAGMENT => (source, *rest.first()?, true, rest.get(8..)?),
                next => (source, next, false, rest),
            }
        }
        _ => return None,
    };
    if !sources.contains(&source) || protocol != TCP {
        return None;
    }
    match segment.get(13) {
        Some(flags) if !hidden && flags & (SYN | ACK) != SYN => None,
        _ => Some(format!("{source}: {segment:02x?}")),
    }
}
