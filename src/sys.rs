//! The few system calls that neither std nor a well-kept crate has as safe functions; the only
//! home of `unsafe`.

#![allow(
    unsafe_code,
    reason = "this room exists to hold it, each block with its proof"
)]

mod datagram;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::UnshareFlags;
use tokio::io::unix::AsyncFd;

pub use datagram::{
    Datagram, receive, receive_sent_to, tell_destinations, tell_marks, tells_marks,
};

/// Leaves the choice of a port to `connect`, so that `bind` takes none for itself alone
/// (`IP_BIND_ADDRESS_NO_PORT`). The option is of the IP level in both families.
///
/// # Errors
/// When the socket is not TCP or UDP over IP.
pub fn set_bind_address_no_port(socket: &socket2::Socket) -> io::Result<()> {
    set_option(
        socket.as_fd(),
        libc::SOL_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        1,
    )
}

/// Has the fragments that a raw IPv4 socket sends leave as they are, which connection tracking would put
/// together (`IP_NODEFRAG`): for trials of rules that are to hold them back.
///
/// # Errors
/// When the socket is not raw.
pub fn keep_fragments(socket: &socket2::Socket) -> io::Result<()> {
    /// Of linux/in.h.
    const IP_NODEFRAG: libc::c_int = 22;
    set_option(socket.as_fd(), libc::SOL_IP, IP_NODEFRAG, 1)
}

/// Sets an option of a socket that is a number.
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, so open for the whole call; `value` outlives it and the
    // length given is its size.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Round-trip time of a TCP connection as the kernel has smoothed it so far; of its handshake, right
/// after that.
///
/// # Errors
/// When the socket is not TCP.
pub fn round_trip(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    Ok(Duration::from_micros(tcp_info(socket)?.tcpi_rtt.into()))
}

/// How the way of a TCP connection has been since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The shortest round trip.
    pub round_trip: Duration,
    /// Segments sent, those sent again included.
    pub sent: u32,
    /// Segments sent again.
    pub again: u32,
    /// Segments that came before others which they should have followed: those were lost, or overtaken.
    pub early: u32,
}

/// What the kernel has noticed of a TCP connection's way.
///
/// # Errors
/// When the socket is not TCP.
pub fn way(socket: BorrowedFd<'_>) -> io::Result<Way> {
    let info = tcp_info(socket)?;
    Ok(Way {
        round_trip: Duration::from_micros(info.tcpi_min_rtt.into()),
        sent: info.tcpi_segs_out,
        again: info.tcpi_total_retrans,
        early: info.tcpi_rcv_ooopack,
    })
}

fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info: libc::tcp_info = {
        // SAFETY: `tcp_info` is plain integers, for which all zeros is a value.
        unsafe { std::mem::zeroed() }
    };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so open for the whole call; `info` outlives it, and the
    // kernel writes no more than the length given, which is its size.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut info).cast(),
            &raw mut length,
        )
    };
    match outcome {
        0 => Ok(info),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bounds what a TCP connection offers its peer to have on the way (`TCP_WINDOW_CLAMP`), in bytes.
///
/// # Errors
/// When the socket is not TCP.
pub fn clamp_window(socket: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    let clamp = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, clamp)
}

/// Asks the scheduler to give this thread short turns, and so soon after it is woken, rather than
/// long ones; its share of the processor stays what it is. Linux 6.12 and newer do, older kernels
/// take it and change nothing.
///
/// # Errors
/// When the kernel has no such call.
pub fn short_turns(turn: Duration) -> io::Result<()> {
    let mut attributes: libc::sched_attr = {
        // SAFETY: `sched_attr` is plain integers, for which all zeros is a value.
        unsafe { std::mem::zeroed() }
    };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = libc::SCHED_OTHER as u32;
    attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: 0 is this thread; `attributes` outlives the call and says its own size.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            0,
            std::ptr::from_ref(&attributes),
            0,
        )
    };
    match outcome {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The largest packet that gets to the peer of a connected socket, as far as the kernel knows
/// (`IP_MTU`, ip(7)).
///
/// # Errors
/// When the socket is not connected.
pub fn path_mtu(socket: impl std::os::fd::AsFd, ipv6: bool) -> io::Result<u32> {
    let (level, option) = match ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        false => (libc::IPPROTO_IP, libc::IP_MTU),
    };
    let mut size: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so open for the whole call; `size` outlives it, and the kernel
    // writes no more than the length given, which is its size.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            std::ptr::from_mut(&mut size).cast(),
            &raw mut length,
        )
    };
    match outcome {
        0 => u32::try_from(size).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the kernel takes its clock for right: something keeps it so (adjtimex(2)).
///
/// # Errors
/// When the kernel does not say.
pub fn clock_synchronised() -> io::Result<bool> {
    let mut state: libc::timex = {
        // SAFETY: `timex` is plain integers, for which all zeros is a value: one that changes nothing.
        unsafe { std::mem::zeroed() }
    };
    // SAFETY: `state` outlives the call, and the kernel writes no more than its size.
    let outcome = unsafe { libc::adjtimex(&raw mut state) };
    match outcome {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(state.status & libc::STA_UNSYNC == 0),
    }
}

/// A socket that is given every frame of one interface, both ways; it never blocks.
///
/// # Errors
/// When there is no such interface, or without CAP_NET_RAW.
pub fn packet_socket(interface: &str) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // ETH_P_ALL in network order; until it is bound below, the socket takes nothing.
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
    let mut address: libc::sockaddr_ll = {
        // SAFETY: `sockaddr_ll` is plain integers and bytes, for which all zeros is a value.
        unsafe { std::mem::zeroed() }
    };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    // SAFETY: the descriptor is owned here, so open for the whole call; `address` outlives it and
    // the length given is its size.
    let outcome = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    match outcome {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for a descriptor of our own with the runtime of this task.
///
/// # Errors
/// When the kernel cannot poll such a descriptor.
pub fn async_fd(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names one open descriptor from now until it is dropped, which is what
    // the runtime relies on while it polls the number.
    let registered = unsafe { AsyncFd::register(descriptor) };
    Ok(registered?)
}

/// Gives memory that is free back to the system. The allocator keeps it otherwise: after a burst
/// of connections a process would look as large as it was at its peak.
pub fn release_free_memory() {
    // SAFETY: it takes no pointer and touches only memory that the allocator knows to be free; its
    // own locks make it safe beside allocations of other threads.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Leaves namespaces for new ones. Only this thread moves, but for a user namespace, which takes a
/// process of a single thread.
///
/// # Errors
/// When the kernel forbids it.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let flags = flags.difference(UnshareFlags::FILES);
    // SAFETY: the one hazard is the descriptor table, which is not unshared: its flag has just been
    // taken out.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    Ok(())
}
