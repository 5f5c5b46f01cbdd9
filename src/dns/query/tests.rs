use super::*;
use crate::dns::hostile::{bytes, long, no_name, said};
use proptest::prelude::*;

/// The header of a plain question, and the question.
const HEAD: &str = r#"1234 0100 0001 0000 0000 0000"#;
const ASKED: &str = r#"04"cart"04"shop"00 0001 0001"#;
/// EDNS of version 0, 1232 octets.
const OPT: &str = "00 0029 04d0 00000000 0000";

/// What is sent back for a message that is no question: `read` where it is one.
fn outcome(message: &[u8]) -> String {
    match Query::read(message) {
        Ok(_) => "read".to_owned(),
        Err(Unfit::Silence) => "silence".to_owned(),
        Err(unfit) => {
            let said = said(&unfit.reply().unwrap());
            assert_eq!(said.id, u16::from_be_bytes([message[0], message[1]]));
            said.to_string()
        }
    }
}

#[test]
fn a_question_is_read_whole() {
    for (name, text, want) in [
        ("plain", format!("{HEAD} {ASKED}"), "cart.shop. A 1 None"),
        (
            "in large letters",
            format!(r#"{HEAD} 04"CART"04"Shop"00 001c 0001"#),
            "CART.Shop. AAAA 1 None",
        ),
        ("of the root", format!("{HEAD} 00 0002 0001"), ". NS 1 None"),
        (
            "of another class",
            format!(r#"{HEAD} 04"cart"00 0010 0003"#),
            "cart. TXT 3 None",
        ),
        (
            "with signatures",
            format!("1234 0110 0001 0000 0000 0001 {ASKED} 00 0029 1000 00008000 0000"),
            "cart.shop. A 1 Some((4096, true))",
        ),
        (
            "with options",
            format!(
                "1234 0100 0001 0000 0000 0001 {ASKED} 00 0029 0200 00000000 0008 000a 0004 01020304"
            ),
            "cart.shop. A 1 Some((512, false))",
        ),
        (
            "with EDNS before another record",
            format!("1234 0100 0001 0000 0000 0002 {ASKED} {OPT} 00 00fa 00ff 00000000 0001 00"),
            "cart.shop. A 1 Some((1232, false))",
        ),
        (
            "and a tail that is none of ours",
            format!("{HEAD} {ASKED} ffff"),
            "cart.shop. A 1 None",
        ),
    ] {
        let query = Query::read(&bytes(&text)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let Question {
            name: of,
            kind,
            class,
        } = &query.question;
        let edns = query.edns.map(|edns| (edns.payload, edns.dnssec_ok));
        assert_eq!(format!("{of} {kind} {class} {edns:?}"), want, "{name}");
    }
}

#[test]
fn what_is_no_question_is_refused_or_passed_over() {
    let long = "aa".repeat(63);
    let label = format!("3f {long}");
    let four = [label.as_str(); 4].join(" ");
    let rows = [
        ("nothing", String::new(), "silence"),
        ("one octet", "12".to_owned(), "silence"),
        ("half a header", "1234 0100 0001".to_owned(), "silence"),
        (
            "a header less an octet",
            "1234 0100 0001 0000 0000 00".to_owned(),
            "silence",
        ),
        ("noise", r#""GET / HTTP""#.to_owned(), "silence"),
        (
            "a web request",
            r#""GET / HTTP/1.1""#.to_owned(),
            "NOTIMP ra",
        ),
        ("a header alone", HEAD.to_owned(), "FORMERR ra rd"),
        (
            "no question",
            "1234 0000 0000 0000 0000 0000".to_owned(),
            "FORMERR ra",
        ),
        (
            "no question, with EDNS",
            format!("1234 0000 0000 0000 0000 0001 {OPT}"),
            "FORMERR ra",
        ),
        (
            "two questions",
            format!("1234 0100 0002 0000 0000 0000 {ASKED} {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "65,535 questions",
            format!("1234 0100 ffff 0000 0000 0000 {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "two that are one",
            format!("1234 0100 0002 0000 0000 0000 {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "an answer",
            format!("1234 8180 0001 0000 0000 0000 {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "an answer that is a header",
            "1234 8000 0000 0000 0000 0000".to_owned(),
            "FORMERR ra",
        ),
        (
            "an answer of another kind",
            format!("1234 a800 0001 0000 0000 0000 {ASKED}"),
            "FORMERR ra",
        ),
        (
            "a complaint",
            format!("1234 8181 0001 0000 0000 0000 {ASKED}"),
            "silence",
        ),
        (
            "a complaint without a question",
            "1234 8001 0000 0000 0000 0000".to_owned(),
            "silence",
        ),
        (
            "an inverse question",
            format!("1234 0900 0001 0000 0000 0000 {ASKED}"),
            "NOTIMP ra rd",
        ),
        (
            "a status request",
            format!("1234 1000 0001 0000 0000 0000 {ASKED}"),
            "NOTIMP ra",
        ),
        (
            "a notice",
            format!("1234 2000 0001 0000 0000 0000 {ASKED}"),
            "NOTIMP ra",
        ),
        (
            "an update",
            format!("1234 2800 0001 0000 0000 0000 {ASKED}"),
            "NOTIMP ra",
        ),
        (
            "a stateful operation",
            "1234 3000 0000 0000 0000 0000".to_owned(),
            "NOTIMP ra",
        ),
        (
            "an operation of no meaning",
            "1234 7800 0000 0000 0000 0000".to_owned(),
            "NOTIMP ra",
        ),
        (
            "a name without an end",
            format!(r#"{HEAD} 04"cart""#),
            "FORMERR ra rd",
        ),
        (
            "a name and nothing else",
            format!(r#"{HEAD} 04"cart"00"#),
            "FORMERR ra rd",
        ),
        (
            "a name and half a kind",
            format!(r#"{HEAD} 04"cart"00 00"#),
            "FORMERR ra rd",
        ),
        (
            "no class",
            format!(r#"{HEAD} 04"cart"00 0001"#),
            "FORMERR ra rd",
        ),
        (
            "half a class",
            format!(r#"{HEAD} 04"cart"00 0001 00"#),
            "FORMERR ra rd",
        ),
        (
            "a label that is longer than the message",
            format!(r#"{HEAD} 3f"cart"00 0001 0001"#),
            "FORMERR ra rd",
        ),
        (
            "a label of 63 octets cut by one",
            format!("{HEAD} 3f {}", "aa".repeat(62)),
            "FORMERR ra rd",
        ),
        (
            "a label of 64 octets",
            format!("{HEAD} 40 {} 00 0001 0001", "aa".repeat(64)),
            "FORMERR ra rd",
        ),
        (
            "a label of a reserved form",
            format!("{HEAD} 80 {} 00 0001 0001", "aa".repeat(64)),
            "FORMERR ra rd",
        ),
        (
            "a bit label",
            format!("{HEAD} 41 08 ff 00 0001 0001"),
            "FORMERR ra rd",
        ),
        (
            "a name of 257 octets",
            format!("{HEAD} {four} 00 0001 0001"),
            "FORMERR ra rd",
        ),
        (
            "a name of 256 octets",
            format!(
                "{HEAD} {label} {label} {label} 3e {} 00 0001 0001",
                "aa".repeat(62)
            ),
            "FORMERR ra rd",
        ),
        (
            "a name of 255 octets",
            format!(
                "{HEAD} {label} {label} {label} 3d {} 00 0001 0001",
                "aa".repeat(61)
            ),
            "read",
        ),
        (
            "128 labels",
            format!("{HEAD} {} 00 0001 0001", "0161".repeat(128)),
            "FORMERR ra rd",
        ),
        (
            "127 labels",
            format!("{HEAD} {} 00 0001 0001", "0161".repeat(127)),
            "read",
        ),
        (
            "a name that is itself",
            format!("{HEAD} c00c 0001 0001"),
            "FORMERR ra rd",
        ),
        (
            "a name within the header",
            format!("{HEAD} c000 0001 0001"),
            "FORMERR ra rd",
        ),
        (
            "a name within the counts",
            format!("{HEAD} c004 0001 0001"),
            "FORMERR ra rd",
        ),
        (
            "a name further on",
            format!(r#"{HEAD} c012 0001 0001 04"cart"00"#),
            "FORMERR ra rd",
        ),
        (
            "a name beyond the end",
            format!("{HEAD} ffff 0001 0001"),
            "FORMERR ra rd",
        ),
        ("half a reference", format!("{HEAD} c0"), "FORMERR ra rd"),
        (
            "a label, then itself",
            format!(r#"{HEAD} 04"cart"c00c 0001 0001"#),
            "FORMERR ra rd",
        ),
        (
            "two that refer to each other",
            format!("{HEAD} c00e c00c 0001 0001"),
            "FORMERR ra rd",
        ),
        (
            "a record that is missing",
            format!("1234 0100 0001 0001 0000 0000 {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "65,535 records that are missing",
            format!("1234 0100 0001 ffff ffff ffff {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "a record without data",
            format!("1234 0100 0001 0001 0000 0000 {ASKED} c00c 0001 0001 00000000"),
            "FORMERR ra rd",
        ),
        (
            "a record cut short",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} c00c 0001 0001 00000000 0004 7f00"),
            "FORMERR ra rd",
        ),
        (
            "a record of 65,535 octets",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} c00c 0001 0001 00000000 ffff"),
            "FORMERR ra rd",
        ),
        (
            "a record whose name is itself",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} c01b 0001 0001 00000000 0000"),
            "FORMERR ra rd",
        ),
        (
            "a record whose name never ends",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} 0161 c01b 0001 0001 00000000 0000"),
            "FORMERR ra rd",
        ),
        (
            "EDNS twice",
            format!("1234 0100 0001 0000 0000 0002 {ASKED} {OPT} {OPT}"),
            "FORMERR ra rd",
        ),
        (
            "EDNS among the answers",
            format!("1234 0100 0001 0001 0000 0000 {ASKED} {OPT}"),
            "FORMERR ra rd",
        ),
        (
            "EDNS among the authorities",
            format!("1234 0100 0001 0000 0001 0000 {ASKED} {OPT}"),
            "FORMERR ra rd",
        ),
        (
            "EDNS of a name",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} c00c 0029 04d0 00000000 0000"),
            "FORMERR ra rd",
        ),
        (
            "EDNS cut short",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} 00 0029 04d0 0000"),
            "FORMERR ra rd",
        ),
        (
            "EDNS with options cut short",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} 00 0029 04d0 00000000 0008 000a"),
            "FORMERR ra rd",
        ),
        (
            "EDNS that is not there",
            format!("1234 0100 0001 0000 0000 0001 {ASKED}"),
            "FORMERR ra rd",
        ),
        (
            "EDNS of version 1",
            format!("1234 0100 0001 0000 0000 0001 {ASKED} 00 0029 04d0 00010000 0000"),
            "BADVERS ra rd edns 1232",
        ),
        (
            "EDNS of version 255",
            format!("1234 0000 0001 0000 0000 0001 {ASKED} 00 0029 0000 00ff8000 0000"),
            "BADVERS ra edns 1232",
        ),
        (
            "EDNS that takes nothing",
            format!("1234 0000 0001 0000 0000 0001 {ASKED} 00 0029 0000 00000000 0000"),
            "read",
        ),
        (
            "reserved flags",
            format!("1234 0040 0001 0000 0000 0000 {ASKED}"),
            "read",
        ),
        (
            "a code in a question",
            format!("1234 000f 0001 0000 0000 0000 {ASKED}"),
            "read",
        ),
        (
            "a question that says it does not fit",
            format!("1234 0200 0001 0000 0000 0000 {ASKED}"),
            "read",
        ),
        (
            "a name of any octets",
            format!("{HEAD} 05 00ff2e0a5c 00 0001 0001"),
            "read",
        ),
    ];
    assert!(rows.len() >= 60, "{} are few", rows.len());
    for (name, text, want) in rows {
        assert_eq!(outcome(&bytes(&text)), want, "{name}");
    }
}

#[test]
fn every_message_that_is_cut_is_refused() {
    let whole = bytes(&format!("1234 0100 0001 0000 0000 0001 {ASKED} {OPT}"));
    assert_eq!(outcome(&whole), "read");
    for end in 0..whole.len() {
        let want = if end < HEADER {
            "silence"
        } else {
            "FORMERR ra rd"
        };
        assert_eq!(outcome(&whole[..end]), want, "cut at {end}");
    }
}

#[test]
fn no_more_is_sent_than_is_taken() {
    for (name, payload, udp) in [
        ("who says nothing", None, 512),
        ("less than anybody must take", Some(100), 512),
        ("some", Some(900), 900),
        ("more than crosses any path", Some(4096), 1232),
    ] {
        let mut query = Query::read(&bytes(&format!("{HEAD} {ASKED}"))).unwrap();
        query.edns = payload.map(|payload| Edns {
            payload,
            version: 0,
            dnssec_ok: false,
        });
        assert_eq!(query.limit(Transport::Udp), udp, "{name}");
        assert_eq!(query.limit(Transport::Tcp), 65_535, "{name}");
    }
}

#[test]
fn a_server_is_asked_what_we_were_asked() {
    let flags = format!("1234 0110 0001 0000 0000 0001 {ASKED} 00 0029 0200 00008000 0000");
    let query = Query::read(&bytes(&flags)).unwrap();
    for (edns, want) in [
        (
            true,
            format!("0007 0130 0001 0000 0000 0001 {ASKED} 00 0029 04d0 00008000 0000"),
        ),
        (false, format!("0007 0130 0001 0000 0000 0000 {ASKED}")),
    ] {
        assert_eq!(ask(7, &query, edns), bytes(&want));
    }
}

proptest! {
    #[test]
    fn any_message_is_read_or_refused(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let _outcome = Query::read(&tail).map_err(Unfit::reply);
        let mut message = bytes("1234 0100 0001 0000 0000 0001");
        message.extend(tail);
        let _outcome = Query::read(&message).map_err(Unfit::reply);
    }

    #[test]
    fn no_question_with_a_name_that_is_none_is_read(
        asked in no_name(HEADER),
        owner in no_name(HEADER + 193 + 4),
    ) {
        let head = |more: u8| [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, more];
        let rest = [0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
        let question = [long().wire(), &[0, 1, 0, 1]].concat();
        for message in [
            [&head(0), &*asked, &[0, 1, 0, 1]].concat(),
            [&head(1), &*question, &owner, &rest].concat(),
        ] {
            prop_assert_eq!(outcome(&message), "FORMERR ra rd");
        }
    }
}
