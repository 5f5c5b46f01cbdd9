//! Hellos as clients write them, whole, in pieces and broken.

use std::sync::Arc;

use proptest::prelude::{any, prop_assert, proptest};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use super::*;
use crate::tls::hbone_client;
use crate::tls::testing::TestCa;
use crate::waypoint::sniff::by_the_byte;

/// What a client writes first.
fn hello(name: &str) -> Vec<u8> {
    let svid = TestCa::new().svid("spiffe://cluster.local/ns/shop/sa/web");
    let mut config = (*hbone_client(&svid, Arc::default()).unwrap()).clone();
    config.enable_sni = true;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut written = Vec::new();
    client.write_tls(&mut written).unwrap();
    written
}

/// The same, each byte in a record of its own.
fn in_small_records(hello: &[u8]) -> Vec<u8> {
    let record = |byte: &u8| [22, 3, 1, 0, 1, *byte];
    hello[5..].iter().flat_map(record).collect()
}

fn known(bytes: &[u8]) -> Option<Hello> {
    read(bytes).known()
}

fn named(name: &str) -> Option<Hello> {
    Some(Hello::Names(name.to_owned()))
}

#[test]
fn a_clients_hello_names_its_server() {
    let written = hello("Cart.shop.example");
    assert_eq!(known(&written), named("cart.shop.example"));
    for end in 0..written.len() {
        assert_eq!(known(&written[..end]), None, "after {end} bytes");
    }
    let more = [&written[..], b"early data"].concat();
    assert_eq!(known(&more), named("cart.shop.example"), "what follows");
    assert_eq!(
        known(&hello("192.0.2.1")),
        Some(Hello::NamesNobody),
        "an address"
    );
    let small = in_small_records(&written);
    assert_eq!(
        known(&small),
        named("cart.shop.example"),
        "in small records"
    );
}

#[test]
fn a_byte_at_a_time_is_judged_where_it_matters() {
    let large = with_extension(16, &[0; 12_000]);
    let small = in_small_records(&with_extension(16, &[0; 2000]));
    for (name, hello, most) in [
        ("a usual one", hello("cart.shop.example"), 8),
        ("a large one", large, 8),
        ("in small records", small, 64),
    ] {
        let (after, judged) = by_the_byte(&hello, read);
        assert_eq!(after, hello.len(), "{name}");
        assert!(judged <= most, "{name}: {judged}");
    }
}

/// A hello with one extension, every length right.
fn with_extension(kind: u16, content: &[u8]) -> Vec<u8> {
    let long = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let extension = [&kind.to_be_bytes()[..], &long(content)].concat();
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &long(&[0x13, 1]),
        &[1, 0],
        &long(&extension),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1][..], &long(&message)].concat()
}

fn asking_for(name: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(name.len()).unwrap().to_be_bytes();
    let [all_high, all_low] = u16::try_from(name.len() + 3).unwrap().to_be_bytes();
    let content = [&[all_high, all_low, 0, high, low][..], name].concat();
    with_extension(0, &content)
}

#[test]
fn what_is_no_name_is_none() {
    for (name, bytes, want) in [
        ("a name", asking_for(b"a.B-c_d"), named("a.b-c_d")),
        ("empty", asking_for(b""), Some(Hello::Unreadable)),
        ("a NUL", asking_for(b"a\0b"), Some(Hello::Unreadable)),
        ("a line break", asking_for(b"a\nb"), Some(Hello::Unreadable)),
        (
            "an escape",
            asking_for(b"a\x1b[1m"),
            Some(Hello::Unreadable),
        ),
        (
            "too long",
            asking_for(&[b'a'; 254]),
            Some(Hello::Unreadable),
        ),
        (
            "another extension",
            with_extension(16, b"\0\0"),
            Some(Hello::NamesNobody),
        ),
        (
            "a short list",
            with_extension(0, b"\0\x09\0"),
            Some(Hello::Unreadable),
        ),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\n".to_vec(),
            Some(Hello::Unreadable),
        ),
        (
            "an alert",
            vec![21, 3, 1, 0, 2, 1, 0],
            Some(Hello::Unreadable),
        ),
        (
            "a server's",
            vec![22, 3, 1, 0, 1, 2],
            Some(Hello::Unreadable),
        ),
        (
            "an empty record",
            vec![22, 3, 1, 0, 0],
            Some(Hello::Unreadable),
        ),
        (
            "too large",
            vec![22, 3, 1, 0, 4, 1, 0, 0x40, 1],
            Some(Hello::Unreadable),
        ),
        ("nothing", vec![], None),
    ] {
        assert_eq!(known(&bytes), want, "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(at in 0usize..600, with: u8, cut in 0usize..600) {
        let mut written = asking_for(b"cart.shop.example");
        let length = written.len();
        written[at % length] = with;
        let _any = read(&written[..cut % (length + 1)]);
        if let Some(Hello::Names(name)) = known(&written) {
            prop_assert!(name.len() <= LONGEST_NAME && !name.contains(char::is_control));
        }
    }

    #[test]
    fn nor_do_any(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _any = read(&[&[22, 3, 1, 0, 60][..], &bytes].concat());
    }
}
