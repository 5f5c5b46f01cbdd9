//! What the proxy and the keeper say to each other: one JSON value a message, of a version, with the
//! descriptors that belong to it.
//!
//! The proxy asks, in the order of its questions' numbers; each is answered once, a command when it
//! has ended, everything else in turn. Unasked, the keeper tells how the rules of a place are and
//! that a network is gone. Nothing that is asked describes a rule: whoever takes the proxy over can
//! have workloads captured or let go, but write no rule of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::Domain;

use crate::capture::command::Ran;
use crate::capture::host::{Standing, Wanted};
use crate::capture::ruleset::Datagrams;
use crate::capture::ruleset::host::Mark;

/// What both must speak alike.
pub(crate) const VERSION: u32 = 1;
/// Most bytes of a message: 4 KiB of what a command said are six times that when every one of them
/// is escaped.
pub(crate) const LONGEST: usize = 32 << 10;
/// What of a message is for a list.
const PIECE: usize = LONGEST / 2;
/// Most bytes of why something is not as it should be. With a piece of a list it fits a message however
/// many of them are escaped.
const REASON: usize = 2 << 10;
/// Most descriptors of a message; the kernel takes 253.
pub(crate) const DESCRIPTORS: usize = 32;

/// A place, by the number that its connection has given it.
pub(crate) type PlaceId = u64;

/// The proxy asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// Which one, to know the answer by.
    pub(crate) id: u64,
    pub(crate) verb: Verb,
}

/// All there is to ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Verb {
    /// The first question of a connection: do we speak alike?
    Hello { version: u32 },
    /// Open a network, to be known by a number that is not taken.
    Attach { place: PlaceId, network: Network },
    /// A listener on one of the mesh's ports: the one that is held already, or a new one.
    Listen { place: PlaceId, port: u16 },
    /// A datagram socket bound to one of the mesh's ports.
    ListenUdp { place: PlaceId, at: SocketAddr },
    /// The datagram socket on the port of tunnels, of every address.
    ListenTunnelsUdp { place: PlaceId },
    /// The sockets that captured datagrams come to, those that the workload sends and those that come
    /// from outside: the ones that are held already, or new ones.
    CaptureUdp { place: PlaceId },
    /// A datagram socket whose datagrams are from there.
    AnswerUdp { place: PlaceId, from: SocketAddr },
    /// A datagram socket to speak to programs with.
    SpeakUdp { place: PlaceId, family: Family },
    /// Sockets to connect with, 1 to 32.
    Dial {
        place: PlaceId,
        family: Family,
        count: u8,
    },
    /// A datagram socket to ask somebody else with.
    Udp { place: PlaceId, family: Family },
    /// Have the rules in place, and put back whatever becomes of them.
    /// With those for questions for names, or without.
    Keep {
        place: PlaceId,
        #[serde(default)]
        dns: bool,
        /// With those for the datagrams that are told of next. Not said by default: a keeper of before
        /// does not know it.
        #[serde(default, skip_serializing_if = "is_not")]
        udp: bool,
    },
    /// These are they, from the first on or after those told before; the next such question tells of
    /// more.
    Datagrams {
        place: PlaceId,
        datagrams: Vec<Taken>,
        first: bool,
        more: bool,
    },
    /// Have the rules of the host's network kept for the workloads that are told of next.
    KeepHost {
        place: PlaceId,
        /// As of [`Self::Keep`].
        #[serde(default, skip_serializing_if = "is_not")]
        udp: bool,
    },
    /// These are they, from the first on or after those told before; the next such question tells of
    /// more.
    Workloads {
        place: PlaceId,
        workloads: Vec<Wanted>,
        first: bool,
        more: bool,
    },
    /// Close the listeners that are held for this connection. The rules stay.
    Close { place: PlaceId },
    /// Remove the rules.
    Release { place: PlaceId },
    /// Run a command there, without any powers, for so long at most.
    Run {
        place: PlaceId,
        command: Vec<Arc<str>>,
        timeout: Duration,
    },
    /// Forget the place. The rules stay.
    Leave { place: PlaceId },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_not(said: &bool) -> bool {
    !said
}

/// Some of the datagrams that come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Taken {
    /// Those that the workload sends there.
    To(SocketAddr),
    /// Those that come to this port from outside.
    At(u16),
}

impl Taken {
    pub(crate) fn all(datagrams: &Datagrams) -> Vec<Self> {
        let to = datagrams.destinations.iter().copied().map(Self::To);
        let at = datagrams.ports.iter().copied().map(Self::At);
        to.chain(at).collect()
    }

    pub(crate) fn read(all: &[Self]) -> Datagrams {
        let mut datagrams = Datagrams::default();
        for taken in all {
            match *taken {
                Self::To(to) => drop(datagrams.destinations.insert(to)),
                Self::At(port) => drop(datagrams.ports.insert(port)),
            }
        }
        datagrams
    }
}

/// What a place is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Network {
    /// The network that the keeper itself is on.
    Host,
    /// A namespace, by its name under `/run/netns` or an absolute path.
    Netns(Arc<str>),
}

impl Network {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Host => "host",
            Self::Netns(name) => name,
        }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(in crate::capture) fn domain(self) -> Domain {
        match self {
            Self::V4 => Domain::IPV4,
            Self::V6 => Domain::IPV6,
        }
    }
}

/// The keeper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Message {
    /// What it was asked.
    Answer { to: u64, answer: Answer },
    /// Unasked, about a place.
    News { place: PlaceId, news: News },
}

/// An answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Answer {
    /// Done; sockets that were asked for are with it.
    Done,
    /// Opened, with the device and inode that say which network it is.
    Attached { identity: (u64, u64) },
    /// How a command ended; null where its time was over.
    Ran(Option<Ran>),
    /// Not done.
    Refused(Fault),
}

/// What has become of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum News {
    /// Its rules are as they should be.
    InPlace,
    /// They are not, and why.
    Failed { said: String },
    /// Its name means another network now, or none.
    Gone,
    /// On the host's network, how these workloads are, and why the rules are not as they should be;
    /// the next such news tells of more.
    Workloads {
        standings: Vec<(Mark, Standing)>,
        failed: Option<String>,
        more: bool,
    },
}

/// As many of these at a time as a message carries.
pub(crate) fn pieces<T: Serialize>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut pieces = vec![Vec::new()];
    let mut left = PIECE;
    for item in items {
        let size = serde_json::to_vec(&item).map_or(0, |text| text.len());
        let full = size > left;
        left = if full { PIECE } else { left }.saturating_sub(size);
        match pieces.last_mut() {
            Some(piece) if !full => piece.push(item),
            _ => pieces.push(vec![item]),
        }
    }
    pieces
}

/// The beginning of a reason, as much of it as goes into a message beside a list.
pub(crate) fn brief(mut reason: String) -> String {
    let end = (0..=REASON).rev().find(|at| reason.is_char_boundary(*at));
    reason.truncate(end.unwrap_or_default());
    reason
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Fault {
    /// There is no network by that name.
    #[error("there is no such network")]
    Missing,
    /// No place goes by that number.
    #[error("the place is gone")]
    NoPlace,
    /// The kernel refused.
    #[error("{}", io::Error::from_raw_os_error(*errno))]
    Kernel { errno: i32 },
    /// Something else, in the keeper's words.
    #[error("{said}")]
    Told { said: String },
}

impl Fault {
    pub(crate) fn told(said: impl Into<String>) -> Self {
        Self::Told {
            said: brief(said.into()),
        }
    }

    /// What was said does not answer what was asked.
    pub(crate) fn unexpected() -> Self {
        Self::told(
            "the keeper's answer does not fit what was asked: this process is out of descriptors, \
             or the keeper is of another build",
        )
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::Kernel { errno },
            None => Self::told(crate::causes::chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests;
