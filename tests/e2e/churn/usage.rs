//! What a process of `edge-1` uses, and where it listens, as the kernel has it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::thread::available_parallelism;

use super::CONNECTING;

/// What a process may use more of in the end than after the first tenth of the time.
const MORE_DESCRIPTORS: usize = 5;
const MORE_THREADS: usize = 5;
const MORE_RESIDENT: usize = 4 << 10;

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    /// Without those of tunnels.
    descriptors: usize,
    /// Each unit that has called keeps one on each thread for five minutes after.
    tunnels: usize,
    threads: usize,
    /// KiB.
    resident: usize,
}

impl Use {
    /// As it is now.
    pub(super) fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let tunnels = sockets(process).into_iter().filter(Socket::is_tunnel);
        let tunnels: BTreeSet<_> = tunnels.map(|socket| socket.link).collect();
        let open = descriptors(process);
        let (tunnels, others): (Vec<_>, Vec<_>) =
            open.into_iter().partition(|link| tunnels.contains(link));
        let tasks = fs::read_dir(format!("/proc/{process}/task"));
        Self {
            descriptors: others.len(),
            tunnels: tunnels.len(),
            threads: tasks.unwrap().count(),
            resident: kilobytes.and_then(|text| text.parse().ok()).unwrap(),
        }
    }

    /// Whether it is no more than `before` and a little.
    pub(super) fn is_flat(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors + MORE_DESCRIPTORS
            && self.tunnels <= CONNECTING * available_parallelism().map_or(1, usize::from)
            && self.threads <= before.threads + MORE_THREADS
            && self.resident <= before.resident * 11 / 10 + MORE_RESIDENT
    }

    /// The most of each.
    pub(super) fn most(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            tunnels: self.tunnels.max(other.tunnels),
            threads: self.threads.max(other.threads),
            resident: self.resident.max(other.resident),
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            descriptors,
            tunnels,
            threads,
            resident,
        } = self;
        write!(
            f,
            "{descriptors} fd {tunnels} tunnels {threads} threads {resident} KiB"
        )
    }
}

/// What a process's open descriptors are, as links say it; those that it closes meanwhile are none.
fn descriptors(process: u32) -> Vec<String> {
    let listed = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = listed.flatten().map(|entry| fs::read_link(entry.path()));
    let links = links.flatten().map(|link| link.display().to_string());
    links.collect()
}

/// A TCP socket on the network of a process.
struct Socket {
    local: String,
    remote: String,
    state: String,
    /// As the link of a descriptor says it.
    link: String,
}

impl Socket {
    /// Of a line of the kernel's list: number, local and remote address, state, five words more, inode.
    fn of(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split_whitespace().collect();
        let word = |at: usize| words.get(at).map(|word| (*word).to_owned());
        Some(Self {
            local: word(1)?,
            remote: word(2)?,
            state: word(3)?,
            link: format!("socket:[{}]", word(9)?),
        })
    }

    fn listens(&self) -> bool {
        self.state == "0A"
    }

    fn is_tunnel(&self) -> bool {
        self.remote.ends_with(":3AA0")
    }
}

/// Where programs of the process's network listen.
pub(super) fn listening(process: u32) -> BTreeSet<String> {
    let listening = sockets(process).into_iter().filter(Socket::listens);
    listening.map(|socket| socket.local).collect()
}

fn sockets(process: u32) -> Vec<Socket> {
    let listed = ["tcp", "tcp6"]
        .map(|family| fs::read_to_string(format!("/proc/{process}/net/{family}")).unwrap());
    let lines = listed.iter().flat_map(|listed| listed.lines().skip(1));
    lines.filter_map(Socket::of).collect()
}
