//! What a rule makes of addresses, known or not.

use super::*;

/// `10.1.0.0/16`, or `!10.1.0.0/16` for any other.
fn policy(effect: Effect, from: &str) -> Policy {
    let (net, not) = (from.trim_start_matches('!'), from.starts_with('!'));
    let nets = vec![net.parse().unwrap()];
    let source_ips = match not {
        true => Values {
            any: Vec::new(),
            not: nets,
        },
        false => Values {
            any: nets,
            not: Vec::new(),
        },
    };
    let matches = vec![Match {
        source_ips,
        destination_ports: Values {
            any: vec![8080],
            not: Vec::new(),
        },
        ..Match::default()
    }];
    Policy {
        key: Policy::key_of("shop", "near"),
        namespace: "shop".into(),
        name: "near".into(),
        scope: Scope::Listed,
        effect,
        dry_run: false,
        rules: vec![Rule {
            line: 1,
            clauses: vec![Clause { matches }],
        }],
        origin: None,
        unreadable: None,
    }
}

#[test]
fn what_is_asked_of_an_unknown_address_lets_nobody_in() {
    use Effect::{Allow, Deny};
    for (effect, from, source, port, matches) in [
        (Allow, "10.1.0.0/16", Some("10.1.0.9"), 8080, true),
        (Allow, "10.1.0.0/16", Some("10.2.0.9"), 8080, false),
        (Allow, "!10.1.0.0/16", Some("10.2.0.9"), 8080, true),
        (Allow, "10.1.0.0/16", None, 8080, false),
        (Allow, "!10.1.0.0/16", None, 8080, false),
        (Deny, "10.1.0.0/16", Some("10.2.0.9"), 8080, false),
        (Deny, "10.1.0.0/16", None, 8080, true),
        (Deny, "!10.1.0.0/16", None, 8080, true),
        // Of what is known the rest must hold as well.
        (Deny, "10.1.0.0/16", None, 9090, false),
    ] {
        let source = source.map(|ip| ip.parse().unwrap());
        let to = SocketAddr::from(([10, 1, 0, 1], port));
        let request = Request::new(None, source, to);
        let matched = policy(effect, from).matching(&request);
        assert_eq!(
            matched.is_some(),
            matches,
            "{effect:?} {from} {source:?} {port}"
        );
    }
}
