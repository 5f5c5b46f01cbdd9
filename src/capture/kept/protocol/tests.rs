use super::*;

fn questions() -> Vec<Verb> {
    let place = 7;
    vec![
        Verb::Hello { version: VERSION },
        Verb::Attach {
            place,
            network: Network::Netns(Arc::from("cart")),
        },
        Verb::Attach {
            place,
            network: Network::Host,
        },
        Verb::Listen { place, port: 15001 },
        Verb::ListenUdp {
            place,
            at: "[::1]:15053".parse().unwrap(),
        },
        Verb::ListenTunnelsUdp { place },
        Verb::CaptureUdp { place },
        Verb::AnswerUdp {
            place,
            from: "[fd99::1]:514".parse().unwrap(),
        },
        Verb::SpeakUdp {
            place,
            family: Family::V4,
        },
        Verb::Datagrams {
            place,
            datagrams: vec![Taken::To("10.200.0.1:514".parse().unwrap()), Taken::At(514)],
            first: true,
            more: false,
        },
        Verb::Dial {
            place,
            family: Family::V6,
            count: 32,
        },
        Verb::Udp {
            place,
            family: Family::V4,
        },
        Verb::Keep {
            place,
            dns: true,
            udp: true,
        },
        Verb::Keep {
            place,
            dns: false,
            udp: false,
        },
        Verb::KeepHost { place, udp: true },
        Verb::Close { place },
        Verb::Release { place },
        Verb::Run {
            place,
            command: vec![Arc::from("true"), Arc::from("\0\"")],
            timeout: Duration::from_millis(1500),
        },
        Verb::Leave { place },
    ]
}

#[test]
fn what_is_said_is_what_is_heard() {
    for verb in questions() {
        let text = serde_json::to_vec(&Question {
            id: 1,
            verb: verb.clone(),
        });
        let back: Question = serde_json::from_slice(&text.unwrap()).unwrap();
        assert_eq!(back.verb, verb);
    }
    let ran = Ran {
        success: false,
        status: "exit status: 1".to_owned(),
        said: "\u{1}".repeat(4 << 10),
    };
    for answer in [
        Answer::Done,
        Answer::Attached {
            identity: (4, u64::MAX),
        },
        Answer::Ran(None),
        Answer::Ran(Some(ran)),
        Answer::Refused(Fault::Kernel { errno: 98 }),
        Answer::Refused(Fault::told("no")),
    ] {
        let text = format!("{answer:?}");
        let said = serde_json::to_vec(&Message::Answer { to: 1, answer }).unwrap();
        assert!(said.len() <= LONGEST, "{}", said.len());
        let Message::Answer { answer: back, .. } = serde_json::from_slice(&said).unwrap() else {
            panic!("{text}")
        };
        assert_eq!(format!("{back:?}"), text);
    }
}

#[test]
fn a_keeper_of_before_understands_who_captures_no_datagrams() {
    let keep = |udp| Verb::Keep {
        place: 1,
        dns: false,
        udp,
    };
    let said = |udp| serde_json::to_string(&keep(udp)).unwrap();
    assert_eq!(said(false), r#"{"keep":{"place":1,"dns":false}}"#);
    assert!(said(true).contains("udp"));
    let keep = |udp| serde_json::to_string(&Verb::KeepHost { place: 1, udp }).unwrap();
    assert_eq!(keep(false), r#"{"keep-host":{"place":1}}"#);
    assert!(keep(true).contains("udp"));
}

#[test]
fn datagrams_are_told_and_read_back() {
    let datagrams = Datagrams {
        destinations: ["10.200.0.1:514", "[fd99::1]:514"]
            .map(|at| at.parse().unwrap())
            .into(),
        ports: [7946, 514].into(),
    };
    assert_eq!(Taken::read(&Taken::all(&datagrams)), datagrams);
}

#[test]
fn a_list_of_any_length_is_told_in_pieces() {
    for (name, count, size) in [
        ("nothing", 0, 0),
        ("one", 1, 10),
        ("many", 10_000, 20),
        ("large ones", 5, PIECE),
    ] {
        let items: Vec<String> = (0..count).map(|n| format!("{n:0size$}")).collect();
        let pieces = pieces(items.clone());
        assert!(!pieces.is_empty(), "{name}");
        assert_eq!(pieces.concat(), items, "{name}");
        for piece in &pieces {
            let length = serde_json::to_vec(piece).unwrap().len();
            assert!(length < LONGEST, "{name}: {length}");
        }
    }
}

#[test]
fn any_reason_fits_beside_any_piece() {
    let standings = (0..0x600).map(|_| (Mark::all().next().unwrap(), Standing::Absent));
    for (name, reason) in [
        ("short", "no".to_owned()),
        ("long", "x".repeat(LONGEST)),
        ("escaped", "\u{1}".repeat(LONGEST)),
        ("cut within a letter", "\u{2026}".repeat(LONGEST)),
    ] {
        let said = brief(reason.clone());
        assert!(!said.is_empty() && reason.starts_with(&said), "{name}");
        for standings in pieces(standings.clone().collect()) {
            let news = News::Workloads {
                standings,
                failed: Some(said.clone()),
                more: true,
            };
            let place = PlaceId::MAX;
            let message = serde_json::to_vec(&Message::News { place, news }).unwrap();
            assert!(message.len() <= LONGEST, "{name}: {}", message.len());
        }
    }
}

#[test]
fn what_is_no_question_is_refused() {
    for (name, said) in [
        ("nothing", ""),
        ("another verb", r#"{"id":1,"verb":{"rules":{"place":1}}}"#),
        (
            "more than is asked for",
            r#"{"id":1,"verb":{"keep":{"place":1,"nft":"x"}}}"#,
        ),
        (
            "more beside it",
            r#"{"id":1,"verb":{"keep":{"place":1}},"x":1}"#,
        ),
        ("no number", r#"{"verb":{"keep":{"place":1}}}"#),
        (
            "a negative place",
            r#"{"id":1,"verb":{"keep":{"place":-1}}}"#,
        ),
        (
            "a port too large",
            r#"{"id":1,"verb":{"listen":{"place":1,"port":65536}}}"#,
        ),
        ("two values", r#"{"id":1,"verb":{"keep":{"place":1}}} {}"#),
        ("cut", r#"{"id":1,"verb":{"keep":{"pla"#),
    ] {
        let heard = serde_json::from_slice::<Question>(said.as_bytes());
        assert!(heard.is_err(), "{name}: {heard:?}");
    }
}
