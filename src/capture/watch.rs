//! Tells when somebody changes the rules or routes of a namespace, from the kernel's own notices.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use rustix::net::{bind, recv, socket_with};
use tokio::io::unix::AsyncFd;
use tokio::time::{self, Instant};

use super::netns::Netns;
use crate::sys;

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const NFTABLES: u32 = group(7);
/// `RTNLGRP_LINK`, `_IPV4_ROUTE`, `_IPV4_RULE`, `_IPV6_ROUTE` and `_IPV6_RULE`
/// (linux/rtnetlink.h). Links, because routes by way of one that goes down vanish without a notice.
const ROUTING: u32 = group(1) | group(7) | group(8) | group(11) | group(19);
/// How long notices rest after a look. Changes come in swarms, the caller's own among them, and each
/// look starts programs. The first of others is told of at once: nothing may hold a program back until
/// it is mended.
const REST: Duration = Duration::from_millis(50);
/// How long without a notice until the caller should look all the same. The kernel drops no notice
/// without saying so, and every namespace pays for each look.
const LOOK: Duration = Duration::from_secs(60);

/// Groups are counted from one, and asked for as bits.
const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

/// Notices of one namespace.
#[derive(Debug)]
pub(super) struct Changes {
    rules: AsyncFd<OwnedFd>,
    routing: AsyncFd<OwnedFd>,
    looked: Option<Instant>,
}

impl Changes {
    /// Listens in a namespace.
    ///
    /// # Errors
    /// When the namespace may not be entered or notices not be had there.
    pub(super) fn new(ns: &Netns) -> io::Result<Self> {
        let (rules, routing) = ns.within(|| -> io::Result<_> {
            let rules = listen(Some(netlink::NETFILTER), NFTABLES)?;
            // Routing is protocol number zero, the default.
            Ok((rules, listen(None, ROUTING)?))
        })??;
        Ok(Self {
            rules: sys::async_fd(rules)?,
            routing: sys::async_fd(routing)?,
            looked: None,
        })
    }

    /// The caller has looked just now, and maybe changed something itself.
    pub(super) fn rest(&mut self) {
        self.looked = Some(Instant::now());
    }

    /// Returns when something may have changed: at a notice, 50 ms after the last look at the
    /// earliest, or after a minute without one.
    ///
    /// # Cancel safety
    /// A notice that was not told of stays in its socket.
    pub(super) async fn next(&mut self) {
        // No notice within the time: look all the same.
        if let (Ok(()), Some(looked)) = (time::timeout(LOOK, self.notice()).await, self.looked) {
            time::sleep_until(looked + REST).await;
        }
        // One notice or a hundred, what follows is one look.
        for socket in [&self.rules, &self.routing] {
            discard(socket);
        }
    }

    async fn notice(&self) {
        tokio::select! {
            () = arrived(&self.rules) => {}
            () = arrived(&self.routing) => {}
        }
    }
}

fn listen(protocol: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Returns when a notice waits in the socket; never where notices cannot be had any more.
async fn arrived(socket: &AsyncFd<OwnedFd>) {
    if let Err(_stopping) = socket.readable().await.map(drop) {
        std::future::pending().await
    }
}

fn discard(socket: &AsyncFd<OwnedFd>) {
    let mut buffer = [0u8; 8192];
    loop {
        let taken = socket.try_io(tokio::io::Interest::READABLE, |fd| {
            Ok(recv(fd, &mut buffer, RecvFlags::empty())?)
        });
        match taken {
            Ok(_notice) => {}
            // More notices than the socket holds: some are lost, and the look is due all the more.
            Err(e) if Errno::from_io_error(&e) == Some(Errno::NOBUFS) => {}
            Err(_empty) => return,
        }
    }
}
