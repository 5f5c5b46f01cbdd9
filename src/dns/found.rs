//! What an answer says of the addresses of a name, for whoever does not pass it on but goes there.

use std::net::IpAddr;
use std::time::Duration;

use super::HEADER;
use super::kind::Kind;
use super::name::Name;
use super::query::Question;
use super::reader::Reader;
use super::received::Received;

/// Names that a name may stand for, one after another.
const ALIASES: usize = 16;

/// A record that is on the way from a name to its addresses; names in small letters, for comparing.
struct Step {
    owner: Name,
    life: Duration,
    to: To,
}

enum To {
    Address(IpAddr),
    Alias(Name),
}

impl Received {
    /// The addresses that it gives for what was asked, by way of aliases, in its order, and how long all
    /// that led to them counts; `None` where it gives none.
    pub fn addresses(&self) -> Option<(Vec<IpAddr>, Duration)> {
        let (asked, steps) = self.steps()?;
        let (mut owner, mut life) = (asked, Duration::MAX);
        for _ in 0..ALIASES {
            let of_owner = || steps.iter().filter(|step| step.owner == owner);
            let addresses = of_owner().filter_map(|step| match step.to {
                To::Address(address) => Some((address, step.life)),
                To::Alias(_) => None,
            });
            let (addresses, lives): (Vec<_>, Vec<_>) = addresses.unzip();
            if let Some(shortest) = lives.into_iter().min() {
                return Some((addresses, life.min(shortest)));
            }
            let (next, shortest) = of_owner().find_map(|step| match &step.to {
                To::Alias(name) => Some((name.clone(), step.life)),
                To::Address(_) => None,
            })?;
            (owner, life) = (next, life.min(shortest));
        }
        None
    }

    /// The name that was asked for, and of the answers those that are of the kind asked for or aliases.
    fn steps(&self) -> Option<(Name, Vec<Step>)> {
        let count = Reader::at(self.message(), 6).number()?;
        let mut reader = Reader::at(self.message(), HEADER);
        let asked = Question::read(&mut reader)?;
        let mut steps = Vec::new();
        for _ in 0..count {
            let owner = reader.name()?.folded();
            let (kind, class, life) = (Kind(reader.number()?), reader.number()?, reader.long()?);
            let length = usize::from(reader.number()?);
            let mut data = reader.clone();
            let octets = reader.take(length)?;
            let to = match kind {
                _ if class != asked.class => None,
                Kind::CNAME => data.name().map(|name| To::Alias(name.folded())),
                _ if kind != asked.kind => None,
                Kind::A => <[u8; 4]>::try_from(octets)
                    .ok()
                    .map(|a| To::Address(a.into())),
                Kind::AAAA => <[u8; 16]>::try_from(octets)
                    .ok()
                    .map(|a| To::Address(a.into())),
                _ => None,
            };
            let life = Duration::from_secs(life.into());
            steps.extend(to.map(|to| Step { owner, life, to }));
        }
        Some((asked.name.folded(), steps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::hostile::{answered, record};
    use crate::dns::{Heard, IN, Query, ask, hear};

    const ASKED: &str = "api.example";

    fn a(owner: &str, last: u8, life: u32) -> Vec<u8> {
        record(owner, 1, life, &[192, 0, 2, last])
    }

    fn alias(owner: &str, to: &str, life: u32) -> Vec<u8> {
        record(owner, 5, life, Name::of(to).unwrap().wire())
    }

    fn found(kind: Kind, records: &[Vec<u8>]) -> Option<(String, u64)> {
        let question = Question {
            name: Name::of(ASKED).unwrap(),
            kind,
            class: IN,
        };
        let query = Query::new(7, question);
        let count = u16::try_from(records.len()).unwrap();
        let message = answered(&ask(7, &query, false), 0, [count, 0, 0], &records.concat());
        let Heard::Answer(received) = hear(message, 7, &query.question) else {
            panic!("an answer");
        };
        let (addresses, life) = received.addresses()?;
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        Some((addresses.join(" "), life.as_secs()))
    }

    #[test]
    fn addresses_are_found_by_way_of_aliases() {
        let v6 = record(ASKED, 28, 30, &[0x20; 16]);
        let longer = record(ASKED, 1, 30, &[1; 5]);
        let chain = |length: usize| {
            let name = |n: usize| match n {
                0 => ASKED.to_owned(),
                n => format!("n{n}.example"),
            };
            let aliases = (0..length).map(|n| alias(&name(n), &name(n + 1), 50));
            aliases.chain([a(&name(length), 1, 60)]).collect::<Vec<_>>()
        };
        for (name, records, want) in [
            ("one", vec![a(ASKED, 1, 30)], Some(("192.0.2.1", 30))),
            (
                "several, in their order, and the shortest life",
                vec![a(ASKED, 2, 60), a("API.example", 1, 20)],
                Some(("192.0.2.2 192.0.2.1", 20)),
            ),
            (
                "by way of aliases, in any order",
                vec![
                    a("c.example", 3, 50),
                    alias("b.example", "c.example", 40),
                    alias(ASKED, "B.example", 70),
                ],
                Some(("192.0.2.3", 40)),
            ),
            ("another's", vec![a("evil.example", 9, 30)], None),
            ("of another kind", vec![v6], None),
            ("that is none", vec![longer], None),
            ("an alias of itself", vec![alias(ASKED, ASKED, 5)], None),
            ("nothing", vec![], None),
            (
                "as many aliases as are followed",
                chain(15),
                Some(("192.0.2.1", 50)),
            ),
            ("one more", chain(16), None),
        ] {
            let found = found(Kind::A, &records);
            let found = found.as_ref().map(|(all, life)| (&**all, *life));
            assert_eq!(found, want, "{name}");
        }
        let v6 = found(Kind::AAAA, &[record(ASKED, 28, 30, &[0x20; 16])]);
        assert_eq!(v6.map(|(_, life)| life), Some(30));
    }
}
