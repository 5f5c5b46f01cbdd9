//! Datagrams, and the mark that each came with.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

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

/// Receives one datagram; it never waits.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is none.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    // Aligned as control messages are, with room for more than one of them.
    let mut control = [0u64; 8];
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
    Ok(Datagram {
        length,
        from: from.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?,
        mark: mark(&head),
    })
}

/// The mark among the control messages.
fn mark(head: &libc::msghdr) -> u32 {
    // SAFETY: `head` is as `recvmsg` left it, its control memory still borrowed by the caller.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(head) };
    while !message.is_null() {
        // SAFETY: not null, it points to a whole header within the control memory.
        let found = unsafe { *message };
        let whole = size_of::<libc::cmsghdr>() + size_of::<u32>();
        // The field's type differs between C libraries; the length of what is here fits in all.
        #[allow(
            clippy::unnecessary_cast,
            reason = "needed with libraries where it is another type"
        )]
        let fits = found.cmsg_len as usize >= whole;
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SO_MARK && fits {
            // SAFETY: its length says that four octets of data follow the header.
            return unsafe { libc::CMSG_DATA(message).cast::<u32>().read_unaligned() };
        }
        // SAFETY: `message` is within the control memory that `head` describes.
        message = unsafe { libc::CMSG_NXTHDR(head, message) };
    }
    0
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

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
}
