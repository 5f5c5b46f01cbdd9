//! Changes what the maps of cgroups hold, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::iter::once;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, recv, sendto};

use super::{
    DATA, ELEMENT, ELEMENTS, ERROR, Held, KEY, MESSAGE, OF_SET, OF_TABLE, REQUEST, VALUE,
    attribute, message, messages, netfilter, text, value,
};
use crate::capture::netns::Netns;
use crate::capture::ruleset::host::{Mark, Turnover};
use crate::capture::ruleset::{Family, TABLE};

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h), to which a batch is addressed.
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// With `NFT_MSG_NEWSETELEM` and `NFT_MSG_DELSETELEM` (linux/netfilter/nf_tables.h).
const NEW_ELEMENTS: u16 = (NFTABLES << 8) | 12;
const DELETE_ELEMENTS: u16 = (NFTABLES << 8) | 14;
/// Of linux/netlink.h: a request that is answered when it is done; one that makes something.
const ANSWERED: u16 = 4;
const CREATE: u16 = 0x400;
/// An attribute that holds others.
const NESTED: u16 = 0x8000;
/// Elements of a message at most: their list has less than 64 KiB.
const ELEMENTS_MOST: usize = 1000;

/// Takes out of the maps what has gone and puts in what has come, all of it or nothing.
///
/// # Errors
/// When the namespace may not be entered, or the kernel refuses: the maps are not what they were thought
/// to be, for one.
pub(in crate::capture) fn change(ns: &Netns, turnovers: &[Turnover]) -> io::Result<()> {
    let socket = netfilter(ns)?;
    let (batch, answers) = batch(turnovers);
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &batch, SendFlags::empty(), &kernel)?;
    Ok(done(&socket, answers)?)
}

/// Whether the kernel now holds what it held `before`, but for these changes.
pub(in crate::capture) fn is_after(before: &Held, now: &Held, turnovers: &[Turnover]) -> bool {
    let sets: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    sets.into_iter().all(|set| {
        let (Some(before), Some(now)) = (before.get(set), now.get(set)) else {
            return false;
        };
        let Some(turnover) = turnovers.iter().find(|t| t.map == *set) else {
            return before == now;
        };
        let mut wanted = cgroups(before);
        wanted.retain(|id, _| !turnover.gone.contains(id));
        let come = turnover.come.iter();
        wanted.extend(come.map(|(id, mark)| (*id, mark.bits())));
        cgroups(now) == wanted && now.len() == wanted.len()
    })
}

/// Marks by the numbers of cgroups.
fn cgroups(elements: &BTreeSet<Vec<u8>>) -> BTreeMap<u64, u32> {
    let pair = |element: &Vec<u8>| {
        let id = value(KEY, element)?.try_into().ok()?;
        let mark = value(DATA, element)?.try_into().ok()?;
        Some((u64::from_ne_bytes(id), u32::from_ne_bytes(mark)))
    };
    elements.iter().filter_map(pair).collect()
}

/// All messages of the transaction, and how many of them are answered.
fn batch(turnovers: &[Turnover]) -> (Vec<u8>, usize) {
    let mut changes = Vec::new();
    for Turnover { map, come, gone } in turnovers {
        let gone: Vec<_> = gone.iter().map(|id| element(*id, None)).collect();
        let come = come.iter().map(|(id, mark)| element(*id, Some(*mark)));
        let come: Vec<_> = come.collect();
        for some in gone.chunks(ELEMENTS_MOST) {
            changes.push(changing(DELETE_ELEMENTS, REQUEST | ANSWERED, map, some));
        }
        for some in come.chunks(ELEMENTS_MOST) {
            changes.push(changing(
                NEW_ELEMENTS,
                REQUEST | ANSWERED | CREATE,
                map,
                some,
            ));
        }
    }
    let answers = changes.len();
    let [begin, end] = [BEGIN, END].map(|kind| message(kind, REQUEST, 0, NFTABLES, &[]));
    let all = once(begin).chain(changes).chain(once(end));
    (all.flatten().collect(), answers)
}

fn changing(kind: u16, flags: u16, map: &str, elements: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        text(OF_TABLE, TABLE),
        text(OF_SET, map),
        attribute(ELEMENTS | NESTED, &elements.concat()),
    ];
    message(kind, flags, Family::Inet.number(), 0, &body.concat())
}

fn element(id: u64, mark: Option<Mark>) -> Vec<u8> {
    let part = |part: u16, of: &[u8]| attribute(part | NESTED, &attribute(VALUE, of));
    let mut parts = part(KEY, &id.to_ne_bytes());
    if let Some(mark) = mark {
        parts.extend(part(DATA, &mark.bits().to_ne_bytes()));
    }
    attribute(ELEMENT | NESTED, &parts)
}

/// Reads what has become of a batch. The kernel has answered by the time that it has been sent.
fn done(socket: &OwnedFd, answers: usize) -> Result<(), Errno> {
    let mut buffer = vec![0; MESSAGE];
    let mut heard = 0;
    while heard < answers {
        let (_room, length) = match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => return Err(Errno::PROTO),
            other => other?,
        };
        let bytes = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
        for message in messages(bytes).filter(|message| message.kind == ERROR) {
            message.done()?;
            heard += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(bits: u32) -> Mark {
        Mark::of(bits).unwrap()
    }

    fn turnover(map: &str, come: &[(u64, u32)], gone: &[u64]) -> Turnover {
        Turnover {
            map: map.to_owned(),
            come: come.iter().map(|(id, bits)| (*id, mark(*bits))).collect(),
            gone: gone.iter().copied().collect(),
        }
    }

    #[test]
    fn a_batch_holds_each_change_once_and_what_has_gone_first() {
        let many: Vec<(u64, u32)> = (0..2500).map(|id| (id, 0x601)).collect();
        for (name, turnovers, want) in [
            ("nothing", vec![], vec![]),
            (
                "one level",
                vec![turnover("units_2", &[(7, 0x601)], &[1, 2])],
                vec![(DELETE_ELEMENTS, 2), (NEW_ELEMENTS, 1)],
            ),
            (
                "two",
                vec![
                    turnover("units_1", &[(7, 0x601)], &[]),
                    turnover("units_2", &[], &[9]),
                ],
                vec![(NEW_ELEMENTS, 1), (DELETE_ELEMENTS, 1)],
            ),
            (
                "more than a message holds",
                vec![turnover("units_2", &many, &[])],
                vec![
                    (NEW_ELEMENTS, 1000),
                    (NEW_ELEMENTS, 1000),
                    (NEW_ELEMENTS, 500),
                ],
            ),
        ] {
            let (bytes, answers) = batch(&turnovers);
            let all: Vec<_> = messages(&bytes)
                .map(|message| (message.kind, message.elements().count()))
                .collect();
            let [(BEGIN, 0), changes @ .., (END, 0)] = &all[..] else {
                panic!("{name}: {all:?}");
            };
            assert_eq!((changes, answers), (&want[..], want.len()), "{name}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let (bytes, _answers) =
            batch(&[turnover("units_2", &[(7, 0x601), (u64::MAX, 0xfff)], &[])]);
        let all = messages(&bytes).flat_map(|m| m.elements().collect::<Vec<_>>());
        let all = all.map(<[u8]>::to_vec).collect();
        assert_eq!(cgroups(&all), [(7, 0x601), (u64::MAX, 0xfff)].into());
    }

    #[test]
    fn what_others_have_changed_meanwhile_is_seen() {
        let elements = |pairs: &[(u64, u32)]| -> BTreeSet<Vec<u8>> {
            let parts = |(id, bits): &(u64, u32)| element(*id, Some(mark(*bits))).split_off(4);
            pairs.iter().map(parts).collect()
        };
        let held = |units: &[(u64, u32)], users: &[(u64, u32)]| -> Held {
            let sets = [("units_2", units), ("users", users)];
            let sets = sets.map(|(name, pairs)| (name.to_owned(), elements(pairs)));
            sets.into_iter().collect()
        };
        let before = held(&[(1, 0x601), (2, 0x602)], &[(5, 0x605)]);
        let done = [turnover("units_2", &[(3, 0x603)], &[1])];
        for (name, now, want) in [
            (
                "that alone",
                held(&[(2, 0x602), (3, 0x603)], &[(5, 0x605)]),
                true,
            ),
            ("nothing", before.clone(), false),
            (
                "one more",
                held(&[(2, 0x602), (3, 0x603), (4, 0x604)], &[(5, 0x605)]),
                false,
            ),
            ("one less", held(&[(3, 0x603)], &[(5, 0x605)]), false),
            (
                "another mark",
                held(&[(2, 0x604), (3, 0x603)], &[(5, 0x605)]),
                false,
            ),
            ("another set", held(&[(2, 0x602), (3, 0x603)], &[]), false),
            ("no such set", Held::new(), false),
        ] {
            assert_eq!(is_after(&before, &now, &done), want, "{name}");
        }
    }
}
