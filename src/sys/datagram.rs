//! Datagrams, the mark that each came with, and where it was going.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use socket2::SockAddr;

use super::set_option;

/// `SO_RCVMARK` (asm-generic/socket.h), of Linux 5.19 and newer.
const SO_RCVMARK: libc::c_int = 75;

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its octets, as far as they had room.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Its mark; 0 where the kernel says nothing of it.
    pub mark: u32,
}

/// Has the kernel tell the mark of what a socket receives.
///
/// # Errors
/// When the kernel has no such option.
pub fn tell_marks(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, SO_RCVMARK, 1)
}

/// Whether this kernel tells marks, as far as it can be asked.
pub fn tells_marks() -> bool {
    let trial = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    trial.is_ok_and(|trial| tell_marks(trial.as_fd()).is_ok())
}

/// Has the kernel tell where what a socket receives was sent to, also if it is for both families.
///
/// # Errors
/// When the kernel has no such option.
pub fn tell_destinations(socket: BorrowedFd<'_>, has_v6: bool) -> io::Result<()> {
    set_option(socket, libc::SOL_IP, libc::IP_RECVORIGDSTADDR, 1)?;
    match has_v6 {
        true => set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR, 1),
        false => Ok(()),
    }
}

/// Receives one datagram; it never waits.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is none.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    receive_sent_to(socket, buffer).map(|(datagram, _to)| datagram)
}

/// The same, with where it was sent to, whichever socket it was given to; none where the kernel says
/// nothing of that.
///
/// # Errors
/// As [`receive`].
pub fn receive_sent_to(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(Datagram, Option<SocketAddr>)> {
    // Aligned as control messages are, with room for all that can be asked for.
    let mut control = [0u64; 32];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut head: libc::msghdr = {
        // SAFETY: `msghdr` is integers and pointers, for which all zeros is a value.
        unsafe { std::mem::zeroed() }
    };
    head.msg_iov = &raw mut part;
    head.msg_iovlen = 1;
    head.msg_control = control.as_mut_ptr().cast();
    head.msg_controllen = size_of_val(&control) as _;
    let receive = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        head.msg_name = storage.cast();
        // SAFETY: `length` points to the size of `storage`, by the contract of `try_init`.
        head.msg_namelen = unsafe { *length };
        // SAFETY: the descriptor is borrowed, so open for the whole call; every pointer of `head` is
        // to memory that outlives it, each with its size.
        let received =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut head, libc::MSG_DONTWAIT) };
        let received = usize::try_from(received).map_err(|_negative| io::Error::last_os_error())?;
        // SAFETY: as above.
        unsafe { *length = head.msg_namelen };
        Ok(received)
    };
    // SAFETY: the kernel writes an address of that length into the storage, or the call fails.
    let (length, from) = unsafe { SockAddr::try_init(receive)? };
    let from = from.as_socket();
    let told = told(&head);
    let datagram = Datagram {
        length,
        from: from.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?,
        mark: told.mark,
    };
    Ok((datagram, told.to))
}

/// What control messages say.
#[derive(Default)]
struct Told {
    mark: u32,
    to: Option<SocketAddr>,
}

fn told(head: &libc::msghdr) -> Told {
    let mut told = Told::default();
    // SAFETY: `head` is as `recvmsg` left it, its control memory still borrowed by the caller.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !message.is_null() {
        // SAFETY: not null, it points to a whole header within the control memory.
        let found = unsafe { *message };
        // The field's type differs between C libraries; the length of what is here fits in all.
        #[allow(
            clippy::unnecessary_cast,
            reason = "needed with libraries where it is another type"
        )]
        let length = (found.cmsg_len as usize).saturating_sub(size_of::<libc::cmsghdr>());
        // SAFETY: the kernel has written so many octets behind the header, as its length says.
        let data = unsafe { std::slice::from_raw_parts(libc::CMSG_DATA(message), length) };
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_SOCKET, libc::SO_MARK) => {
                let mark = data.first_chunk().map(|mark| u32::from_ne_bytes(*mark));
                told.mark = mark.unwrap_or_default();
            }
            (libc::SOL_IP, libc::IP_ORIGDSTADDR) | (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
                told.to = address(data);
            }
            _ => {}
        }
        // SAFETY: `message` is within the control memory that `head` describes.
        message = unsafe { libc::CMSG_NXTHDR(head, message) };
    }
    told
}

/// A `sockaddr_in` or `sockaddr_in6` (ip(7), ipv6(7)), without its scope.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let ip: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_comes_with_who_sent_it() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(at).unwrap();
            tell_marks(server.as_fd()).unwrap();
            let nothing = receive(server.as_fd(), &mut [0; 8]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            let client = UdpSocket::bind(at).unwrap();
            client
                .send_to(b"question", server.local_addr().unwrap())
                .unwrap();
            let mut heard = [0; 4];
            let datagram = loop {
                match receive(server.as_fd(), &mut heard) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            assert_eq!(&heard, b"ques", "as far as there is room");
            let want = Datagram {
                length: 4,
                from: client.local_addr().unwrap(),
                mark: 0,
            };
            assert_eq!(datagram, want);
        }
    }

    #[test]
    fn a_datagram_tells_where_it_was_sent_to() {
        for (at, to, has_v6) in [
            ("127.0.0.1:0", "127.0.0.1", false),
            ("[::1]:0", "::1", true),
            ("[::]:0", "::1", true),
            ("[::]:0", "127.0.0.1", true),
        ] {
            let server = UdpSocket::bind(at).unwrap();
            tell_destinations(server.as_fd(), has_v6).unwrap();
            tell_marks(server.as_fd()).unwrap();
            let to = SocketAddr::new(to.parse().unwrap(), server.local_addr().unwrap().port());
            let client = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
            client.send_to(b"question", to).unwrap();
            let (_datagram, told) = loop {
                match receive_sent_to(server.as_fd(), &mut [0; 16]) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    other => break other.unwrap(),
                }
            };
            assert_eq!(told, Some(to), "at {at}");
        }
    }

    #[test]
    fn an_address_is_read_as_far_as_it_is_there() {
        let v4 = [&2u16.to_ne_bytes()[..], &[0x1f, 0x0a, 10, 0, 0, 1], &[0; 8]].concat();
        let v6 = [
            &10u16.to_ne_bytes()[..],
            &[0x1f, 0x0a],
            &[0; 4],
            &[0xfd; 16],
            &[0; 4],
        ]
        .concat();
        assert_eq!(address(&v4), "10.0.0.1:7946".parse().ok());
        let many = "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:7946";
        assert_eq!(address(&v6), many.parse().ok());
        for (name, cut) in [
            ("v4", &v4[..7]),
            ("v6", &v6[..23]),
            ("another family", &[1; 28]),
        ] {
            assert_eq!(address(cut), None, "{name}");
        }
    }
}
