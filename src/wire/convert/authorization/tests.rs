//! Policies to bytes and back, and what is no policy.

use proptest::prelude::*;

use super::*;
use crate::wire::convert::arbitrary;

proptest! {
    #[test]
    fn a_policy_comes_back_as_it_went(policy in arbitrary::policy()) {
        let bytes = encode_policy(&policy);
        prop_assert_eq!(decode_policy(&policy.key, &bytes).unwrap(), policy);
    }
}

fn authorization() -> proto::Authorization {
    proto::Authorization {
        name: "p".to_owned(),
        namespace: "shop".to_owned(),
        scope: 2,
        action: 1,
        rules: Vec::new(),
        dry_run: false,
        extensions: Vec::new(),
    }
}

fn one_match(edit: impl FnOnce(&mut proto::Match)) -> proto::Authorization {
    let mut only = proto::Match::default();
    edit(&mut only);
    let clause = proto::Clause {
        matches: vec![only],
    };
    proto::Authorization {
        rules: vec![proto::Rule {
            clauses: vec![clause],
        }],
        ..authorization()
    }
}

fn address(address: &[u8], length: u32) -> proto::Address {
    proto::Address {
        address: address.to_vec(),
        length,
    }
}

/// Everything that a stock proxy drops or bends in silence (§2.5).
#[test]
fn what_is_not_wholly_understood_is_refused_and_closes() {
    let unset = |edit: fn(&mut proto::Authorization)| {
        let mut policy = authorization();
        edit(&mut policy);
        policy
    };
    let string = || proto::StringMatch { match_type: None };
    for (name, policy, want) in [
        (
            "an address of three bytes",
            one_match(|m| m.source_ips = vec![address(&[10, 1, 2], 24)]),
            "rules.source_ips: an address of 3 bytes",
        ),
        (
            "a prefix longer than its address",
            one_match(|m| m.not_destination_ips = vec![address(&[10, 1, 2, 3], 33)]),
            "rules.destination_ips: prefix length 33",
        ),
        (
            "a prefix longer than any",
            one_match(|m| m.source_ips = vec![address(&[0; 16], 260)]),
            "prefix length 260",
        ),
        (
            "a text match of nothing",
            one_match(|m| m.principals = vec![string()]),
            "rules.principals: is missing",
        ),
        (
            "a port above all",
            one_match(|m| m.destination_ports = vec![65_979]),
            "rules.destination_ports: port 65979",
        ),
        (
            "a service account without a name",
            one_match(|m| m.service_accounts = vec![proto::ServiceAccountMatch::default()]),
            "rules.service_accounts: is missing",
        ),
        ("no name", unset(|p| p.name.clear()), "name: is missing"),
        (
            "no namespace",
            unset(|p| p.namespace.clear()),
            "namespace: is missing",
        ),
        (
            "another name",
            unset(|p| p.name = "q".to_owned()),
            "names itself `shop/q`",
        ),
        (
            "an unknown scope",
            unset(|p| p.scope = 3),
            "scope: unknown value 3",
        ),
        (
            "an unknown action",
            unset(|p| p.action = 2),
            "action: unknown value 2",
        ),
    ] {
        let bytes = policy.encode_to_vec();
        let refused = decode_policy("shop/p", &bytes).unwrap_err();
        assert!(refused.to_string().contains(want), "{name}: {refused}");
        let closed = closed_policy("shop/p", &bytes, &refused);
        let denies_all = closed.rules == [Rule::default()] && closed.effect == Effect::Deny;
        assert!(denies_all && &*closed.key == "shop/p", "{name}");
        assert!(closed.unreadable.is_some(), "{name}");
    }
}

#[test]
fn what_cannot_be_read_closes_as_far_as_it_is_seen_to_reach() {
    let unknown = |namespace: &str, scope, dry_run| {
        let policy = proto::Authorization {
            namespace: namespace.to_owned(),
            scope,
            dry_run,
            ..proto::Authorization::default()
        };
        policy.encode_to_vec()
    };
    for (name, bytes, scope, dry_run) in [
        ("the mesh's", unknown("shop", 0, false), Scope::Mesh, false),
        (
            "a namespace's",
            unknown("shop", 1, false),
            Scope::Namespace,
            false,
        ),
        (
            "a namespace's without a name",
            unknown("", 1, false),
            Scope::Mesh,
            false,
        ),
        ("listed", unknown("shop", 2, false), Scope::Listed, false),
        (
            "a later version's",
            unknown("shop", 3, false),
            Scope::Mesh,
            false,
        ),
        ("only tried", unknown("shop", 0, true), Scope::Mesh, true),
        ("no protobuf", vec![0xff], Scope::Mesh, false),
    ] {
        let refused = decode_policy("shop/p", &bytes).unwrap_err();
        let closed = closed_policy("shop/p", &bytes, &refused);
        assert_eq!((closed.scope, closed.dry_run), (scope, dry_run), "{name}");
    }
}

#[test]
fn a_stock_control_plane_says_no_origin() {
    let bytes = authorization().encode_to_vec();
    let policy = decode_policy("shop/p", &bytes).unwrap();
    assert_eq!((policy.origin, policy.unreadable), (None, None));
}
