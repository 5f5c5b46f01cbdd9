//! DNS messages, as far as asking for the addresses of a name takes (RFC 1035 §4, RFC 3596).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{Found, LookupError};

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
const CNAME: u16 = 5;
/// Names that a name may stand for, one after another.
const ALIASES: usize = 16;
/// References within one name: a name has no more labels, so more only cost time.
const JUMPS: usize = LONGEST_NAME / 2;
/// Octets of a name with their lengths (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 255;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
}

impl Kind {
    fn code(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 28,
        }
    }
}

/// A question by its number.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend(id.to_be_bytes());
    // One question, recursion desired.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok();
        message.push(length.filter(|length| (1..=63).contains(length))?);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.code().to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    (message.len() - HEADER - 4 <= LONGEST_NAME).then_some(message)
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Of the name.
    Answer(Result<Found, LookupError>),
    /// It did not fit.
    Truncated,
    /// Of something else: it is of somebody else, or late.
    Other,
}

/// Reads the answer to a question.
pub(super) fn answer(message: &[u8], id: u16, name: &str, kind: Kind) -> Said {
    let mut reader = Reader { message, at: 0 };
    let Some(head) = reader.head() else {
        return Said::Other;
    };
    if head.id != id || !head.response || head.questions != 1 {
        return Said::Other;
    }
    let asked = reader.name().zip(reader.number()).zip(reader.number());
    let Some(((asked, of), class)) = asked else {
        return Said::Other;
    };
    if !asked.eq_ignore_ascii_case(name) || of != kind.code() || class != CLASS_IN {
        return Said::Other;
    }
    if head.truncated {
        return Said::Truncated;
    }
    Said::Answer(match head.code {
        0 => reader
            .records(head.answers)
            .map_or(Err(LookupError::Unreadable), |records| {
                addresses(name, kind, &records)
            }),
        3 => Err(LookupError::NoAddress),
        _ => Err(LookupError::Unanswered),
    })
}

/// The addresses of a name, or of what it is an alias of.
fn addresses(name: &str, kind: Kind, records: &[Record]) -> Result<Found, LookupError> {
    let (mut owner, mut life) = (name.to_owned(), Duration::MAX);
    for _ in 0..ALIASES {
        let of_owner = || {
            records
                .iter()
                .filter(|r| r.owner.eq_ignore_ascii_case(&owner))
        };
        let found = of_owner().filter_map(|record| match (kind, &record.data) {
            (Kind::V4, Data::Address(a @ IpAddr::V4(_)))
            | (Kind::V6, Data::Address(a @ IpAddr::V6(_))) => Some((*a, record.life)),
            _ => None,
        });
        let (addresses, lives): (Vec<_>, Vec<_>) = found.unzip();
        if let Some(shortest) = lives.into_iter().min() {
            let life = life.min(shortest);
            return Ok(Found { addresses, life });
        }
        let alias = of_owner().find_map(|record| match &record.data {
            Data::Alias(to) => Some((to.clone(), record.life)),
            _ => None,
        });
        let (to, shortest) = alias.ok_or(LookupError::NoAddress)?;
        (owner, life) = (to, life.min(shortest));
    }
    Err(LookupError::NoAddress)
}

struct Head {
    id: u16,
    response: bool,
    truncated: bool,
    code: u8,
    questions: u16,
    answers: u16,
}

struct Record {
    owner: String,
    life: Duration,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(String),
    Other,
}

/// Reads on from a place in a message.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn head(&mut self) -> Option<Head> {
        let (id, flags) = (self.number()?, self.number()?.to_be_bytes());
        let (questions, answers) = (self.number()?, self.number()?);
        self.take(4)?;
        Some(Head {
            id,
            response: flags[0] & 0x80 != 0,
            truncated: flags[0] & 0x02 != 0,
            code: flags[1] & 0x0f,
            questions,
            answers,
        })
    }

    /// A name, of which the rest may stand earlier in the message. What is no host name comes out as
    /// something that is equal to none.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut end, mut jumps) = (self.at, None, 0);
        loop {
            let length = usize::from(*self.message.get(at)?);
            match length & 0xc0 {
                0x00 if length == 0 => {
                    self.at = end.unwrap_or(at + 1);
                    return Some(name);
                }
                0x00 => {
                    let label = self.message.get(at + 1..at + 1 + length)?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&String::from_utf8_lossy(label));
                    at += 1 + length;
                }
                0xc0 => {
                    let low = usize::from(*self.message.get(at + 1)?);
                    end.get_or_insert(at + 2);
                    let to = (length & 0x3f) << 8 | low;
                    jumps += 1;
                    // Only ever back, so that it ends.
                    at = Some(to).filter(|to| *to < at && jumps <= JUMPS)?;
                }
                _ => return None,
            }
            if name.len() > LONGEST_NAME {
                return None;
            }
        }
    }

    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        (0..count).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.number()?, self.number()?);
        let life = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let length = usize::from(self.number()?);
        let start = self.at;
        let data = self.take(length)?;
        let address = |data: &[u8]| match (kind, data.len()) {
            (1, 4) => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?))),
            (28, 16) => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?))),
            _ => None,
        };
        let alias = |message| Reader { message, at: start }.name();
        let data = match (class, kind) {
            (CLASS_IN, 1 | 28) => address(data).map(Data::Address),
            (CLASS_IN, CNAME) => alias(self.message).map(Data::Alias),
            _ => Some(Data::Other),
        };
        Some(Record {
            owner,
            life: Duration::from_secs(life.into()),
            data: data?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::testing::{Reply, reply};
    use proptest::prelude::*;

    fn found(addresses: &[&str], life: u64) -> Said {
        Said::Answer(Ok(Found {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            life: Duration::from_secs(life),
        }))
    }

    #[test]
    fn answers_are_read() {
        let asked = question(7, "api.example", Kind::V4).unwrap();
        let records = |text: &str| reply(&asked, &Reply::records(text));
        let none = || Said::Answer(Err(LookupError::NoAddress));
        let mut other_name = records("api.example A 192.0.2.1 30");
        other_name[13] = b'x';
        let mut truncated = records("api.example A 192.0.2.1 30");
        truncated[2] |= 2;
        let mut cut = records("api.example A 192.0.2.1 30");
        cut.pop();
        for (name, message, want) in [
            (
                "one",
                records("api.example A 192.0.2.1 30"),
                found(&["192.0.2.1"], 30),
            ),
            (
                "several, in their order, and the shortest life",
                records("api.example A 192.0.2.2 60; API.example A 192.0.2.1 20"),
                found(&["192.0.2.2", "192.0.2.1"], 20),
            ),
            (
                "by way of aliases, in any order",
                records(
                    "c.example A 192.0.2.3 50; b.example CNAME c.example 40; api.example CNAME b.example 70",
                ),
                found(&["192.0.2.3"], 40),
            ),
            ("another's", records("evil.example A 192.0.2.9 30"), none()),
            (
                "of another kind",
                records("api.example AAAA 2001:db8::1 30"),
                none(),
            ),
            (
                "an alias of itself",
                records("api.example CNAME api.example 5"),
                none(),
            ),
            ("nothing", records(""), none()),
            ("no such name", reply(&asked, &Reply::Code(3)), none()),
            (
                "a server that fails",
                reply(&asked, &Reply::Code(2)),
                Said::Answer(Err(LookupError::Unanswered)),
            ),
            ("to another question", other_name, Said::Other),
            ("too large", truncated, Said::Truncated),
            ("cut short", cut, Said::Answer(Err(LookupError::Unreadable))),
            ("the question itself", asked.clone(), Said::Other),
        ] {
            assert_eq!(answer(&message, 7, "api.example", Kind::V4), want, "{name}");
        }
        let right = records("api.example A 192.0.2.1 30");
        assert_eq!(answer(&right, 8, "api.example", Kind::V4), Said::Other);
        assert_eq!(answer(&right, 7, "api.example", Kind::V6), Said::Other);
    }

    /// `spec/reliability.md` §2 row 36: otherwise every record would cost as much as all before it.
    #[test]
    fn names_that_refer_to_each_other_are_followed_only_so_far() {
        let asked = question(7, "api.example", Kind::V4).unwrap();
        for (references, read) in [(100, true), (200, false)] {
            let mut message = reply(&asked, &Reply::records(""));
            let mut last = HEADER;
            for _ in 0..references {
                let at = message.len();
                message.extend((0xc000 | u16::try_from(last).unwrap()).to_be_bytes());
                message.extend([0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
                last = at;
            }
            message[7] = references;
            let said = answer(&message, 7, "api.example", Kind::V4);
            let unreadable = said == Said::Answer(Err(LookupError::Unreadable));
            assert_eq!(unreadable, !read, "{references}");
        }
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let long = format!("{}.example", "a".repeat(64));
        let longest = ["a".repeat(63).as_str(); 4].join(".");
        for name in ["", "a..b", "a.", &long, &longest] {
            assert_eq!(question(1, name, Kind::V4), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(
            tail in prop::collection::vec(any::<u8>(), 0..200),
            counts in any::<u16>(),
        ) {
            let mut message = question(7, "api.example", Kind::V4).unwrap();
            message[2] |= 0x80;
            message[6..8].copy_from_slice(&counts.to_be_bytes());
            message.extend(tail);
            let _said = answer(&message, 7, "api.example", Kind::V4);
        }
    }
}
