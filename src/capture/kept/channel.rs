//! A connection between proxy and keeper: a Unix socket that keeps messages apart and carries
//! descriptors (SOCK_SEQPACKET, SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recvmsg, sendmsg, socket_with,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::unix::AsyncFd;

use super::protocol::{DESCRIPTORS, LONGEST};
use crate::sys;

/// Room for the descriptors of a message.
const ROOM: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS));

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// One end of a connected socket that does not block.
    ///
    /// # Errors
    /// When the runtime cannot wait for it.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(sys::async_fd(socket)?))
    }

    /// Connects to whoever listens at `path`.
    ///
    /// # Errors
    /// When nobody does.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket()?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket)
    }

    /// The user at the other end, when it connected.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn peer(&self) -> io::Result<(i32, u32)> {
        let peer = rustix::net::sockopt::socket_peercred(self.0.get_ref())?;
        Ok((peer.pid.as_raw_nonzero().get(), peer.uid.as_raw()))
    }

    /// Sends a message whole.
    ///
    /// # Cancel safety
    /// Dropping the future sends nothing.
    ///
    /// # Errors
    /// When the other end is gone, or the message longer than any may be.
    pub(crate) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > LONGEST || descriptors.len() > DESCRIPTORS {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        loop {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|socket| sent(socket.as_fd(), &text, descriptors)) {
                Ok(outcome) => return outcome,
                // Its queue is full.
                Err(_would_block) => {}
            }
        }
    }

    /// The next message with its descriptors; `None` once the other end is gone.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: a message is taken whole or not at all.
    ///
    /// # Errors
    /// When what arrives is no such message.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| received(socket.as_fd())) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(outcome) => {
                    let (text, descriptors) = outcome?;
                    if text.is_empty() {
                        return Ok(None);
                    }
                    return Ok(Some((serde_json::from_slice(&text)?, descriptors)));
                }
                Err(_would_block) => {}
            }
        }
    }
}

/// A socket of our kind.
///
/// # Errors
/// When the system is out of something.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn sent(socket: BorrowedFd<'_>, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); ROOM];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let text = [IoSlice::new(text)];
    // The kernel takes a message whole or refuses it.
    let _all = sendmsg(socket, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn received(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); ROOM];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = {
        let mut into = [IoSliceMut::new(&mut text)];
        recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?
    };
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = part {
            descriptors.extend(sent);
        }
    }
    // Descriptors are missing where this process has no room for more: that is between who asked
    // and who answered, and the connection goes on.
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE.into());
    }
    text.truncate(message.bytes);
    Ok((text, descriptors))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    fn pair() -> (Channel, Channel) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let ends = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (one, other) = ends.unwrap();
        (Channel::new(one).unwrap(), Channel::new(other).unwrap())
    }

    #[tokio::test]
    async fn descriptors_arrive_with_their_message() {
        let (here, there) = pair();
        for count in [0, 1, DESCRIPTORS] {
            let (reader, writer) = io::pipe().unwrap();
            let all = vec![writer.as_fd(); count];
            here.send(&count, &all).await.unwrap();
            drop(writer);
            let heard = there.receive::<usize>().await.unwrap();
            let (said, descriptors) = heard.unwrap();
            assert_eq!((said, descriptors.len()), (count, count));
            for descriptor in descriptors {
                File::from(descriptor).write_all(b"x").unwrap();
            }
            let mut through = String::new();
            let mut reader = reader;
            reader.read_to_string(&mut through).unwrap();
            assert_eq!(through.len(), count);
        }
        drop(here);
        assert!(there.receive::<usize>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_sent_and_what_is_cut_not_taken() {
        let (here, there) = pair();
        let refused = here.send(&"x".repeat(LONGEST), &[]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let more = vec![there.0.get_ref().as_fd(); DESCRIPTORS + 1];
        assert!(here.send(&1, &more).await.is_err());

        let longer = vec![b' '; LONGEST + 1];
        rustix::net::send(here.0.get_ref(), &longer, SendFlags::empty()).unwrap();
        assert!(there.receive::<String>().await.is_err());
        rustix::net::send(here.0.get_ref(), b"{", SendFlags::empty()).unwrap();
        assert!(there.receive::<String>().await.is_err());
        here.send(&"whole", &[]).await.unwrap();
        let (said, _none) = there.receive::<String>().await.unwrap().unwrap();
        assert_eq!(said, "whole");
    }

    #[tokio::test]
    async fn a_full_queue_makes_whoever_sends_wait_and_nothing_is_lost() {
        let (here, there) = pair();
        let sending = async {
            for number in 0..500 {
                here.send(&number, &[]).await.unwrap();
            }
        };
        let receiving = async {
            for number in 0..500 {
                let (said, _none) = there.receive::<i32>().await.unwrap().unwrap();
                assert_eq!(said, number);
            }
        };
        tokio::join!(sending, receiving);
    }
}
