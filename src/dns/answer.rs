//! Answers of our own.

use std::net::IpAddr;
use std::time::Duration;

use super::code::Code;
use super::kind::Kind;
use super::name::Name;
use super::query::{EDNS, Query, Transport};
use super::{HEADER, IN, flag};

/// Where the name of the question stands, as other names refer to it.
const ASKED: u16 = 0xc000 | HEADER as u16;
/// Octets of the longest record of an address.
const RECORD: usize = 28;

/// The addresses of a name of which we are the authority, in the order given; where that name is only
/// the long form of another, by way of that one. Where they do not fit a datagram, none, and that they
/// do not; on a connection as many as fit, since there is no other way to ask for more.
pub fn addresses(
    query: &Query,
    short: Option<&Name>,
    addresses: &[IpAddr],
    life: Duration,
    transport: Transport,
) -> Vec<u8> {
    let life = u32::try_from(life.as_secs()).unwrap_or(u32::MAX);
    let mut message = head(query, Code::OK, flag::AUTHORITATIVE);
    let mut owner = ASKED;
    let mut count = 0u16;
    if let Some(short) = short.filter(|_| !addresses.is_empty()) {
        record(&mut message, ASKED, Kind::CNAME, life, short.wire());
        count += 1;
        let at = message.len() - short.wire().len();
        // The question before it is less than the offset has room for.
        owner = 0xc000 | u16::try_from(at).unwrap_or(u16::MAX);
    }
    let room = query.limit(transport).saturating_sub(RECORD + EDNS);
    for address in addresses {
        if transport == Transport::Tcp && message.len() > room {
            break;
        }
        match address {
            IpAddr::V4(v4) => record(&mut message, owner, Kind::A, life, &v4.octets()),
            IpAddr::V6(v6) => record(&mut message, owner, Kind::AAAA, life, &v6.octets()),
        }
        count = count.saturating_add(1);
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    finish(query, Code::OK, message, transport)
}

/// An answer that holds nothing but its code. `ours` says that we are the authority.
pub fn empty(query: &Query, code: Code, ours: bool) -> Vec<u8> {
    let authority = if ours { flag::AUTHORITATIVE } else { 0 };
    let message = head(query, code, authority);
    finish(query, code, message, Transport::Tcp)
}

fn head(query: &Query, code: Code, flags: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(512);
    message.extend(query.id.to_be_bytes());
    message.extend(query.answered(flags, code).to_be_bytes());
    for count in [1u16, 0, 0, 0] {
        message.extend(count.to_be_bytes());
    }
    query.question.write(&mut message);
    message
}

fn record(message: &mut Vec<u8>, owner: u16, kind: Kind, life: u32, data: &[u8]) {
    message.extend(owner.to_be_bytes());
    message.extend(kind.0.to_be_bytes());
    message.extend(IN.to_be_bytes());
    message.extend(life.to_be_bytes());
    message.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(data);
}

/// Appends what is said of the exchange; of what does not fit then, only that it does not is left.
pub(super) fn finish(
    query: &Query,
    code: Code,
    mut message: Vec<u8>,
    transport: Transport,
) -> Vec<u8> {
    let before = message.len();
    if query.append_edns(code, &mut message) {
        let additionals = u16::from_be_bytes([message[10], message[11]]);
        message[10..12].copy_from_slice(&additionals.saturating_add(1).to_be_bytes());
    }
    if message.len() <= query.limit(transport) {
        return message;
    }
    let edns = message.split_off(before);
    message.truncate(HEADER + query.question.name.wire().len() + 4);
    let flags = u16::from_be_bytes([message[2], message[3]]) | flag::TRUNCATED;
    message[2..4].copy_from_slice(&flags.to_be_bytes());
    let additionals = u16::from(!edns.is_empty());
    for (at, count) in [(6, 0), (8, 0), (10, additionals)] {
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    message.extend(edns);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::hostile::said;
    use crate::dns::{Edns, Question};

    fn asked(name: &str, kind: Kind, edns: Option<u16>) -> Query {
        let question = Question {
            name: Name::of(name).unwrap(),
            kind,
            class: IN,
        };
        let edns = edns.map(|payload| Edns {
            payload,
            version: 0,
            dnssec_ok: true,
        });
        Query {
            edns,
            ..Query::new(7, question)
        }
    }

    fn ips(count: u8) -> Vec<IpAddr> {
        (0..count).map(|n| IpAddr::from([192, 0, 2, n])).collect()
    }

    #[test]
    fn an_answer_says_what_it_was_given() {
        let life = Duration::from_secs(30);
        let short = Name::of("www.example").unwrap();
        for (name, query, short, count, want) in [
            (
                "an address",
                asked("Cart.shop", Kind::A, None),
                None,
                1,
                "NOERROR aa ra rd Cart.shop. A: Cart.shop. 30 A 192.0.2.0",
            ),
            (
                "two by way of another name",
                asked("www.example.shop.mesh.internal", Kind::A, None),
                Some(&short),
                2,
                "NOERROR aa ra rd www.example.shop.mesh.internal. A: \
                 www.example.shop.mesh.internal. 30 CNAME www.example. \
                 www.example. 30 A 192.0.2.0 www.example. 30 A 192.0.2.1",
            ),
            (
                "none",
                asked("cart.shop", Kind::AAAA, Some(100)),
                Some(&short),
                0,
                "NOERROR aa ra rd cart.shop. AAAA: edns 512 do",
            ),
            (
                "too many for a datagram",
                asked("cart.shop", Kind::A, None),
                None,
                40,
                "NOERROR aa ra rd tc cart.shop. A:",
            ),
            (
                "as many as were asked for",
                asked("cart.shop", Kind::A, Some(4096)),
                None,
                80,
                "NOERROR aa ra rd tc cart.shop. A: edns 4096 do",
            ),
        ] {
            let message = addresses(&query, short, &ips(count), life, Transport::Udp);
            let said = said(&message);
            assert_eq!(said.to_string(), want, "{name}");
            assert!(message.len() <= query.limit(Transport::Udp), "{name}");
        }
        let query = asked("cart.shop", Kind::A, None);
        let whole = addresses(&query, None, &ips(200), life, Transport::Tcp);
        assert_eq!(said(&whole).records.len(), 200);
        let query = asked("cart.shop", Kind::A, Some(1232));
        let many = ips(100).repeat(50);
        let most = addresses(&query, Some(&short), &many, life, Transport::Tcp);
        assert!((65_480..=65_535).contains(&most.len()), "{}", most.len());
        let most = said(&most);
        assert!(most.records.len() > 4000 && !most.flags.contains(&"tc"));
    }

    #[test]
    fn a_code_goes_with_its_question() {
        let query = asked("cart.shop", Kind::A, Some(1232));
        for (code, ours, want) in [
            (
                Code::FAILURE,
                false,
                "SERVFAIL ra rd cart.shop. A: edns 1232 do",
            ),
            (
                Code::NO_NAME,
                true,
                "NXDOMAIN aa ra rd cart.shop. A: edns 1232 do",
            ),
        ] {
            let said = said(&empty(&query, code, ours));
            assert_eq!(said.to_string(), want);
        }
    }
}
