//! Reads whether our table is there and what its sets and maps hold, from the kernel itself. `nft` looks
//! each cgroup's name up in the whole tree, which takes it a minute for a thousand of them (tried,
//! 1.0.6), and drift must be seen within a second.
//!
//! [`change`] changes the maps of cgroups in the same way: a cgroup that has gone cannot be named, and one
//! that goes while `nft` looks up a thousand would spoil the transaction.

pub(super) mod change;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

use super::netns::Netns;
use super::ruleset::host::{Mark, by_marks, units};
use super::ruleset::{Cgroup, Family, TABLE};

/// Of linux/netlink.h.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const REQUEST_DUMP: u16 = 0x301;
const INTERRUPTED: u16 = 0x10;
/// `NFNL_SUBSYS_NFTABLES` with `NFT_MSG_GETTABLE` and `NFT_MSG_GETSETELEM`
/// (linux/netfilter/nf_tables.h).
const GET_TABLE: u16 = (10 << 8) | 1;
const GET_ELEMENTS: u16 = (10 << 8) | 13;
/// `NFTA_TABLE_NAME`.
const NAME: u16 = 1;
/// `NFTA_SET_ELEM_LIST_TABLE`, `_SET`, `_ELEMENTS` and, within the last, `NFTA_LIST_ELEM`.
const OF_TABLE: u16 = 1;
const OF_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
/// `NFTA_SET_ELEM_KEY` of an element and `NFTA_SET_ELEM_DATA`, and `NFTA_DATA_VALUE` of either.
const KEY: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
/// Bits of an attribute's type that say how its content is laid out.
const LAYOUT: u16 = 0xc000;
/// Length of a message's header, and with that of netfilter.
const HEADER: usize = 16;
const NETFILTER: usize = 20;
/// More than the kernel puts into one message of a dump.
const MESSAGE: usize = 64 << 10;
/// How often a listing that a change cut across is begun again.
const ATTEMPTS: usize = 10;

/// Elements as the kernel encodes them, by the name of their set.
pub(super) type Held = BTreeMap<String, BTreeSet<Vec<u8>>>;

fn netfilter(ns: &Netns) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::RAW;
    let protocol = Some(netlink::NETFILTER);
    Ok(ns.within(|| socket_with(AddressFamily::NETLINK, kind, flags, protocol))??)
}

/// Whether our table is there, whatever it holds.
///
/// # Errors
/// When the namespace may not be entered, or the kernel does not say.
pub(super) fn is_table_there(ns: &Netns) -> io::Result<bool> {
    let socket = netfilter(ns)?;
    ask(
        &socket,
        GET_TABLE,
        REQUEST,
        Family::Inet,
        &text(NAME, TABLE),
    )?;
    let mut buffer = vec![0; MESSAGE];
    let (_room, length) = recv(&socket, &mut *buffer, RecvFlags::empty())?;
    let bytes = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
    let error = messages(bytes).find(|message| message.kind == ERROR);
    match error.map(|message| message.error()) {
        None => Ok(true),
        Some(Errno::NOENT) => Ok(false),
        Some(e) => Err(e.into()),
    }
}

/// What the sets of our table of a family hold; `None` when one is not there.
///
/// # Errors
/// When the namespace may not be entered, or the kernel does not say.
pub(super) fn held<'a>(
    ns: &Netns,
    family: Family,
    sets: impl IntoIterator<Item = &'a str>,
) -> io::Result<Option<Held>> {
    let socket = netfilter(ns)?;
    let mut held = Held::new();
    for set in sets {
        match whole(&socket, family, set) {
            Ok(elements) => held.insert(set.to_owned(), elements),
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
    }
    Ok(Some(held))
}

/// The marks that the maps of our table give, whoever has filled them; none where there is no table.
///
/// # Errors
/// As [`held`].
pub(super) fn marks(ns: &Netns) -> io::Result<BTreeSet<Mark>> {
    let socket = netfilter(ns)?;
    let mut marks = BTreeSet::new();
    for mut maps in by_marks() {
        let given = maps.try_for_each(|map| {
            let elements = whole(&socket, Family::Inet, &map)?;
            marks.extend(elements.iter().filter_map(|element| mark_of(element)));
            Ok(())
        });
        match given {
            // One that is not there is the last of its kind.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(marks)
}

/// Whether our map of cgroups at its level has this one.
///
/// # Errors
/// As [`held`].
pub(super) fn knows(ns: &Netns, cgroup: &Cgroup) -> io::Result<bool> {
    let map = units(&cgroup.path);
    let held = held(ns, Family::Inet, [&*map])?;
    let elements = held
        .into_iter()
        .flat_map(|held| held.into_values().flatten());
    let key = cgroup.id.to_ne_bytes();
    Ok(elements
        .into_iter()
        .any(|element| value(KEY, &element) == Some(&key[..])))
}

/// The keys of elements as the kernel encodes them.
pub(super) fn keys(elements: &BTreeSet<Vec<u8>>) -> impl Iterator<Item = &[u8]> {
    elements.iter().filter_map(|element| value(KEY, element))
}

/// The value of an element's key, or of what it is mapped to.
fn value(part: u16, element: &[u8]) -> Option<&[u8]> {
    let of = |kind: u16, bytes| attributes(bytes).find_map(|(k, v)| (k == kind).then_some(v));
    of(VALUE, of(part, element)?)
}

fn mark_of(element: &[u8]) -> Option<Mark> {
    let value = value(DATA, element)?;
    Mark::try_from(u32::from_ne_bytes(value.try_into().ok()?)).ok()
}

fn whole(socket: &OwnedFd, family: Family, set: &str) -> Result<BTreeSet<Vec<u8>>, Errno> {
    for _attempt in 1..ATTEMPTS {
        match dump(socket, family, set) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
    dump(socket, family, set)
}

fn dump(socket: &OwnedFd, family: Family, set: &str) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let of = [text(OF_TABLE, TABLE), text(OF_SET, set)].concat();
    ask(socket, GET_ELEMENTS, REQUEST_DUMP, family, &of)?;
    let mut elements = BTreeSet::new();
    let mut buffer = vec![0; MESSAGE];
    let mut outcome = Ok(());
    loop {
        let (_room, length) = recv(socket, &mut *buffer, RecvFlags::empty())?;
        let bytes = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
        for message in messages(bytes) {
            match message.kind {
                ERROR => return Err(message.error()),
                // All of it is taken off the socket, whatever it was worth.
                DONE => return outcome.map(|()| elements),
                _ if message.flags & INTERRUPTED != 0 => outcome = Err(Errno::INTR),
                _ => elements.extend(message.elements().map(<[u8]>::to_vec)),
            }
        }
    }
}

fn ask(socket: &OwnedFd, kind: u16, flags: u16, family: Family, body: &[u8]) -> Result<(), Errno> {
    let kernel = SocketAddrNetlink::new(0, 0);
    let request = message(kind, flags, family.number(), 0, body);
    sendto(socket, &request, SendFlags::empty(), &kernel)?;
    Ok(())
}

/// A message for netfilter, of a family, and of a subsystem where it begins or ends a batch.
fn message(kind: u16, flags: u16, family: u8, subsystem: u16, body: &[u8]) -> Vec<u8> {
    let length = (NETFILTER + body.len()) as u32;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(subsystem.to_be_bytes());
    message.extend(body);
    message
}

/// An attribute that is a text, with the zero it ends in.
fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// An attribute, filled up to four bytes.
fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    let length = 4 + content.len();
    let mut bytes = Vec::new();
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(content);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

#[derive(Debug)]
struct Message<'a> {
    kind: u16,
    flags: u16,
    /// What follows its header.
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// What has become of a request.
    fn done(&self) -> Result<(), Errno> {
        match self.body.first_chunk() {
            Some([0, 0, 0, 0]) => Ok(()),
            _ => Err(self.error()),
        }
    }

    fn error(&self) -> Errno {
        let code = self
            .body
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code));
        match code {
            Some(code @ -4095..=-1) => Errno::from_raw_os_error(-code),
            _ => Errno::PROTO,
        }
    }

    fn elements(&self) -> impl Iterator<Item = &'a [u8]> {
        let body = self.body.get(NETFILTER - HEADER..).unwrap_or_default();
        let lists = attributes(body).filter(|(kind, _)| *kind == ELEMENTS);
        let elements = lists.flat_map(|(_, list)| attributes(list));
        elements.filter_map(|(kind, element)| (kind == ELEMENT).then_some(element))
    }
}

fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let half = |at: usize| Some(u16::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let message = Message {
            kind: half(4)?,
            flags: half(6)?,
            body: rest.get(HEADER..length)?,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let half = |at: usize| Some(u16::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let length = usize::from(half(0)?);
        let kind = half(2)? & !LAYOUT;
        let content = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a listing with these elements, of four bytes each.
    fn listing(elements: &[[u8; 4]]) -> Vec<u8> {
        let header =
            |length: usize, kind: u16| [(length as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        let of = |element: &[u8; 4]| [header(8, ELEMENT), element.to_vec()].concat();
        let list: Vec<_> = elements.iter().flat_map(of).collect();
        let mut body = text(OF_SET, "users");
        body.extend(header(4 + list.len(), ELEMENTS | 0x8000));
        body.extend(list);
        message(GET_ELEMENTS, REQUEST_DUMP, Family::Inet.number(), 0, &body)
    }

    #[test]
    fn elements_are_found_in_all_messages() {
        let bytes = [
            listing(&[[1, 0, 0, 0], [2, 0, 0, 0]]),
            listing(&[]),
            listing(&[[3; 4]]),
        ];
        let bytes = bytes.concat();
        let found: Vec<_> = messages(&bytes)
            .flat_map(|m| m.elements().collect::<Vec<_>>())
            .collect();
        assert_eq!(found, [&[1, 0, 0, 0], &[2, 0, 0, 0], &[3; 4]]);
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_ends_there() {
        let bytes = listing(&[[1; 4], [2; 4]]);
        for end in 0..bytes.len() {
            let count = messages(&bytes[..end]).map(|m| m.elements().count());
            assert!(count.sum::<usize>() <= 2, "cut at {end}");
        }
        for length in [0_u32, 1, 15, 16, 19, 20, 21, u32::MAX] {
            let mut bytes = listing(&[[1; 4]]);
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let found = messages(&bytes).take(100).map(|m| m.elements().count());
            assert!(found.sum::<usize>() <= 1, "{length}");
        }
    }

    #[test]
    fn an_error_says_which() {
        for (body, want) in [
            ((-2_i32).to_ne_bytes(), Errno::NOENT),
            (0_i32.to_ne_bytes(), Errno::PROTO),
            (i32::MIN.to_ne_bytes(), Errno::PROTO),
        ] {
            let message = Message {
                kind: ERROR,
                flags: 0,
                body: &body,
            };
            assert_eq!(message.error(), want);
        }
    }
}
