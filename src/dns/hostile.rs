//! Messages for tests, broken ones among them: written out by hand, and as servers write them.

use proptest::prelude::*;

use super::Name;
use super::query::Question;
use super::reader::Reader;
use super::shown::{Shown, shown};

/// Reads a message that is in order.
pub(crate) fn said(message: &[u8]) -> Shown {
    shown(message).expect("a message in order, and nothing behind it")
}

/// Octets in hexadecimal, with texts in quotes between them.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, part) in text.split('"').enumerate() {
        if number % 2 == 1 {
            bytes.extend(part.as_bytes());
            continue;
        }
        let digits: Vec<char> = part.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        bytes.extend(pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()));
    }
    bytes
}

/// A record as a server writes it, with its owner's name written out.
pub(crate) fn record(owner: &str, kind: u16, life: u32, data: &[u8]) -> Vec<u8> {
    let mut record = Name::of(owner).unwrap().wire().to_vec();
    record.extend(kind.to_be_bytes());
    record.extend(1u16.to_be_bytes());
    record.extend(life.to_be_bytes());
    record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend(data);
    record
}

/// The answer of a server to a question that was sent to it.
pub(crate) fn answered(asked: &[u8], code: u8, counts: [u16; 3], records: &[u8]) -> Vec<u8> {
    let mut reader = Reader::at(asked, 12);
    Question::read(&mut reader).unwrap();
    let mut message = asked[..reader.offset()].to_vec();
    message[2] = 0x80 | asked[2] & 1;
    message[3] = 0x80 | code;
    for (at, count) in [6, 8, 10].into_iter().zip(counts) {
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    message.extend(records);
    message
}

/// A name of 193 octets, to which no other of these may refer and stay a name.
pub(crate) fn long() -> Name {
    Name::of(&["a".repeat(63).as_str(); 3].join(".")).unwrap()
}

/// What stands at an offset of a message in place of a name and is none, in a message whose question is
/// of [`long`]: loops, references that do not lead back, and names of more than 255 octets.
pub(crate) fn no_name(at: usize) -> impl Strategy<Value = Vec<u8>> {
    let to = |offset: usize| (0xc000 | u16::try_from(offset).unwrap()).to_be_bytes();
    let label = |lengths: std::ops::RangeInclusive<usize>| {
        let octets = prop::collection::vec(any::<u8>(), lengths);
        octets.prop_map(|octets| [&[u8::try_from(octets.len()).unwrap()], &*octets].concat())
    };
    let labels = |lengths, count: std::ops::Range<usize>| {
        prop::collection::vec(label(lengths), count).prop_map(|labels| labels.concat())
    };
    let then = |end: Vec<u8>| move |labels: Vec<u8>| [labels, end.clone()].concat();
    prop_oneof![
        Just(to(at).to_vec()),
        labels(1..=63, 1..5).prop_map(then(to(at).to_vec())),
        (1usize..300).prop_map(move |ahead| to(at + ahead).to_vec()),
        (0usize..12).prop_map(move |header| to(header).to_vec()),
        labels(63..=63, 4..6).prop_map(then(vec![0])),
        labels(1..=1, 128..140).prop_map(then(vec![0])),
        labels(62..=63, 1..3).prop_map(then(to(12).to_vec())),
        labels(0..=0, 0..1).prop_map(|_| vec![0x40, 0]),
    ]
}
