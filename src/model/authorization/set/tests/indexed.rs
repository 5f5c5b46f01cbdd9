//! Rules that are found say what rules say that are gone through one by one.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const SOURCES: [&str; 8] = [
    "principals=cluster.local/ns/shop/sa/web",
    "principals=cluster.local/ns/shop/*",
    "principals=cluster.local/ns/other/sa/web",
    "principals=cluster.local/ns/shop/sa/web|*",
    "principals=*/web",
    "not-principals=cluster.local/ns/shop/sa/web",
    "namespaces=shop",
    "",
];
const OPERATIONS: [&str; 10] = [
    "paths=/a",
    "paths=/a*",
    "paths=/a/b|/b",
    "paths=/a/b|*.txt",
    "paths=/a/{*}",
    "paths=/{**}/b",
    "not-paths=/a*",
    "paths=/a* not-paths=/a/b",
    "methods=GET",
    "",
];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/b", "/a.txt", ""];

fn policies() -> impl Strategy<Value = Vec<Vec<String>>> {
    let rule = (select(&SOURCES[..]), select(&OPERATIONS[..]));
    let rule = rule.prop_map(|(from, to)| format!("{from} {to}"));
    vec(vec(rule, 0..6), 0..5)
}

/// The first of all rules, one after the other.
fn plainly(policies: &[Arc<Authorization>], asked: &Asked<'_>) -> Option<Cause> {
    policies.iter().find_map(|policy| matched(policy, asked))
}

proptest! {
    #[test]
    fn the_index_leaves_nothing_out(
        written in policies(),
        path in of(select(&PATHS[..])),
        account in of(select(&["web", "bat"][..])),
        action in select(&[Action::Allow, Action::Deny][..]),
    ) {
        let named = written.iter().enumerate().map(|(n, rules)| {
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            policy(&n.to_string(), action.clone(), &rules)
        });
        let policies: Vec<_> = named.collect();
        let peer = account.map(|account| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/{account}");
            Peer::new(&id.parse::<SpiffeId>().unwrap()).unwrap()
        });
        let headers = HeaderMap::new();
        let asked = Asked {
            peer: peer.as_ref(),
            source: IpAddr::from([10, 77, 1, 11]),
            remote: IpAddr::from([10, 77, 1, 11]),
            destination: SocketAddr::from(([10, 96, 0, 20], 80)),
            server_name: None,
            http: path.map(|path| Http {
                method: "GET",
                path,
                target: path,
                authority: "echo",
                scheme: "http",
                headers: &headers,
                token: None,
            }),
        };
        let found = Indexed::new(policies.clone()).first(&asked);
        prop_assert_eq!(found, plainly(&policies, &asked));
    }
}
