//! Tells when somebody changes the nftables of a namespace, from the kernel's own notices.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::unix::AsyncFd;

use super::netns::Netns;
use crate::sys;

/// `NFNLGRP_NFTABLES`, as a bit of the group mask (linux/netfilter/nfnetlink.h).
const NFTABLES: u32 = 1 << (7 - 1);
/// How long without a notice until the caller should look all the same: routing rules change
/// without one.
const LOOK: Duration = Duration::from_secs(5);

/// Notices of one namespace.
#[derive(Debug)]
pub struct Changes {
    socket: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Listens in a namespace.
    ///
    /// # Errors
    /// When the namespace may not be entered or notices not be had there.
    pub fn new(ns: &Netns) -> io::Result<Self> {
        let socket = ns.within(|| -> io::Result<OwnedFd> {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                flags,
                Some(netlink::NETFILTER),
            )?;
            bind(&socket, &SocketAddrNetlink::new(0, NFTABLES))?;
            Ok(socket)
        })??;
        Ok(Self {
            socket: sys::async_fd(socket)?,
        })
    }

    /// Returns when something may have changed: after a notice, or after five seconds without one.
    ///
    /// # Cancel safety
    /// A notice that is not seen stays in the socket.
    pub async fn next(&mut self) {
        // No notice within the time, or none to be had any more: look all the same.
        let _quiet = tokio::time::timeout(LOOK, self.notice()).await;
    }

    async fn notice(&mut self) {
        let mut buffer = [0u8; 8192];
        loop {
            let Ok(mut ready) = self.socket.readable().await else {
                return std::future::pending().await;
            };
            // One notice or a hundred, what follows is one look: the rest is thrown away.
            let mut heard = false;
            loop {
                match recv(self.socket.get_ref(), &mut buffer, RecvFlags::empty()) {
                    Ok(_) => heard = true,
                    Err(rustix::io::Errno::AGAIN) => break,
                    // Too many notices for the socket's buffer is news as well.
                    Err(rustix::io::Errno::NOBUFS) => heard = true,
                    Err(_broken) => return std::future::pending().await,
                }
            }
            ready.clear_ready();
            if heard {
                return;
            }
        }
    }
}
