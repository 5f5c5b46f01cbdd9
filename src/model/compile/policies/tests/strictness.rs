//! `spec/labels-and-policy.md` §4: every row of its table, and its formula for every mode.

use super::shorthand::{Asked, Judge, mesh};
use crate::model::declaration::MtlsMode;
use crate::model::policy::{Clause, Match, Policy, Rule};

const SHARED: &str = "istio-system/istio_converted_static_strict";
const OWN: &str = "shop/converted_peer_authentication_w";

/// The policies listed on `cart-1`.
fn listed(judge: &Judge) -> Vec<String> {
    let keys = judge.workload("cart-1").authorization_policies.iter();
    keys.map(ToString::to_string).collect()
}

/// Its rules, as in the table: the fields of each, whatever clauses they stand in.
fn rules(policy: &Policy) -> String {
    let clause = |clause: &Clause| joined(clause.matches.iter().map(fields), " or ");
    let rule = |rule: &Rule| joined(rule.clauses.iter().map(clause), " ");
    joined(policy.rules.iter().map(rule), " ∨ ").replace("peer≠*", "plaintext")
}

fn fields(of: &Match) -> String {
    let ports = &of.destination_ports;
    let peers = of.principals.not.iter().map(|peer| format!("peer≠{peer}"));
    let only = ports.any.iter().map(|port| format!("port={port}"));
    let but = ports.not.iter().map(|port| format!("port≠{port}"));
    joined(peers.chain(only).chain(but), " ")
}

fn joined(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}

/// Refused to a plain connection; never anything to a tunnelled one.
fn refused(judge: &Judge, port: u16) -> bool {
    let asked = |peer: &str| Asked::read(&format!("{peer} port {port}"));
    assert_eq!(
        judge.verdict(&asked("X")),
        "in",
        "a tunnel is never refused"
    );
    judge.verdict(&asked("-")) != "in"
}

#[test]
#[rustfmt::skip]
fn table() {
    let (all, nothing) = ([true; 3], [false; 3]);
    let [on_8080, on_9090] = [[true, false, false], [false, true, false]];
    let [but_8080, but_9090] = [[false, true, true], [true, false, true]];
    for (name, policies, own, on) in [
        ("disable", &["DISABLE"][..], "", nothing),
        ("permissive", &["PERMISSIVE"], "", nothing),
        ("strict", &["STRICT"], "shared", all),
        ("strict-workload", &["STRICT app=cart name=w"], "shared", all),
        ("strict-and-strict-port", &["STRICT app=cart name=w 8080=STRICT"], "shared", all),
        ("strict-and-permissive-port", &["STRICT app=cart name=w 9090=PERMISSIVE"],
            "plaintext port≠9090", but_9090),
        ("strict-and-disable-port", &["STRICT app=cart name=w 9090=DISABLE"], "plaintext port≠9090", but_9090),
        ("strict-port-strict-and-permissive", &["STRICT app=cart name=w 9090=STRICT 8080=PERMISSIVE"],
            "plaintext port≠8080", but_8080),
        ("disable-port-strict", &["DISABLE app=cart name=w 9090=STRICT"], "plaintext port=9090", on_9090),
        ("permissive-port-strict", &["PERMISSIVE app=cart name=w 9090=STRICT"], "plaintext port=9090", on_9090),
        ("permissive-port-strict-and-permissive", &["PERMISSIVE app=cart name=w 9090=STRICT 8080=PERMISSIVE"],
            "plaintext port=9090", on_9090),
        ("unset-port-strict", &["UNSET app=cart name=w 8080=STRICT"], "plaintext port=8080", on_8080),
        ("permissive-root-permissive-namespace-strict-workload-ports",
            &["PERMISSIVE ns=istio-system", "PERMISSIVE", "app=cart name=w 8080=STRICT 9090=STRICT"],
            "plaintext port=8080 ∨ plaintext port=9090", [true, true, false]),
        ("permissive-root-permissive-workload",
            &["PERMISSIVE ns=istio-system", "app=cart name=w 9090=PERMISSIVE"],
            "", nothing),
        ("permissive-root-strict-namespace-permissive-workload",
            &["PERMISSIVE ns=istio-system", "STRICT", "app=cart name=w 9090=PERMISSIVE"],
            "plaintext port≠9090", but_9090),
        ("permissive-root-unset-namespace-mixed-workload-ports",
            &["PERMISSIVE ns=istio-system", "UNSET", "app=cart name=w 9090=STRICT 8080=PERMISSIVE"],
            "plaintext port=9090", on_9090),
        ("strict-root-permissive-namespace-strict-workload",
            &["STRICT ns=istio-system", "PERMISSIVE", "app=cart name=w 9090=STRICT"],
            "plaintext port=9090", on_9090),
        ("strict-root-permissive-workload", &["STRICT ns=istio-system", "app=cart name=w 9090=PERMISSIVE"],
            "plaintext port≠9090", but_9090),
        ("strict-root-unset-workload-port-strict-and-permissive",
            &["STRICT ns=istio-system", "app=cart name=w 9090=PERMISSIVE 8080=STRICT"],
            "plaintext port≠9090", but_9090),
        ("permissive workload under strict",
            &["STRICT ns=istio-system", "STRICT", "PERMISSIVE app=cart name=w"],
            "", nothing),
        ("[Q] strict root, unset namespace",
            &["STRICT ns=istio-system", "UNSET", "app=cart name=w 9090=PERMISSIVE"],
            "plaintext port≠9090", but_9090),
        ("[Q] strict port under a permissive workload",
            &["STRICT ns=istio-system", "PERMISSIVE app=cart name=w 9090=STRICT"],
            "plaintext port=9090", on_9090),
        ("[Q] and an unset namespace",
            &["STRICT ns=istio-system", "UNSET", "PERMISSIVE app=cart name=w 9090=STRICT"],
            "plaintext port=9090", on_9090),
        ("[Q] exception of a strict namespace", &["STRICT", "app=cart name=w 9090=DISABLE"],
            "plaintext port≠9090", but_9090),
        ("two exceptions", &["STRICT app=cart name=w 8080=DISABLE 9090=PERMISSIVE"],
            "plaintext port≠8080 port≠9090", [false, false, true]),
    ] {
        let judge = Judge::new(mesh(policies));
        assert_eq!([8080, 9090, 80].map(|port| refused(&judge, port)), on, "{name}");
        let want = match own { "" => None, "shared" => Some(SHARED), _ => Some(OWN) };
        assert_eq!(listed(&judge), Vec::from_iter(want), "{name}");
        let attached = judge.compiled.policies.iter().find(|p| Some(&*p.key) == want);
        let own = own.replace("shared", "plaintext");
        assert_eq!(attached.map_or(String::new(), |p| rules(p)), own, "{name}");
    }
}

/// Which of several policies of one level count, and what a level is.
#[test]
#[rustfmt::skip]
fn levels() {
    for (name, policies, on) in [
        ("the oldest of the mesh", &["PERMISSIVE ns=istio-system name=b", "STRICT ns=istio-system name=a"][..],
            [false; 3]),
        ("the oldest of the namespace", &["STRICT name=b", "PERMISSIVE name=a"], [true; 3]),
        ("the oldest of the workload", &["STRICT app=cart name=b", "PERMISSIVE app=cart name=a"], [true; 3]),
        ("the oldest even if unset", &["UNSET name=b", "STRICT name=a"], [false; 3]),
        ("an unset one hides a workload's other", &["UNSET app=cart name=b", "STRICT app=cart name=a"],
            [false; 3]),
        ("a loser's ports do not count",
            &["PERMISSIVE app=cart name=b", "PERMISSIVE app=cart name=a 8080=STRICT"],
            [false; 3]),
        ("nor its exceptions", &["STRICT app=cart name=b", "STRICT app=cart name=a 8080=PERMISSIVE"],
            [true; 3]),
        ("selector in root", &["STRICT ns=istio-system app=cart 8080=STRICT"], [false; 3]),
        ("and it beats no older one",
            &["PERMISSIVE ns=istio-system app=cart name=b", "STRICT ns=istio-system name=a"],
            [true; 3]),
        ("another's selector", &["STRICT app=web"], [false; 3]),
        ("another namespace", &["STRICT ns=infra", "STRICT ns=infra app=cart name=b"], [false; 3]),
        ("all labels", &["STRICT app=cart version=v1"], [false; 3]),
        ("an unset port is as the rest", &["STRICT app=cart 8080=UNSET"], [true; 3]),
    ] {
        let judge = Judge::new(mesh(policies));
        assert_eq!([8080, 9090, 80].map(|port| refused(&judge, port)), on, "{name}");
    }
}

/// A policy of the root namespace is the mesh's, for workloads of the root namespace as well.
#[test]
fn root_namespace() {
    for (name, policies, want) in [
        ("mesh level", &["STRICT ns=istio-system"][..], SHARED),
        (
            "selector ignored",
            &["STRICT ns=istio-system app=cart"],
            "in",
        ),
        (
            "the oldest",
            &[
                "PERMISSIVE ns=istio-system",
                "STRICT ns=istio-system name=a",
            ],
            "in",
        ),
    ] {
        let judge = Judge::new(mesh(policies));
        assert_eq!(judge.verdict(&Asked::read("- on root-1")), want, "{name}");
    }
}

/// The age of policies is where they are written, not where they stand in a list.
#[test]
fn oldest_by_origin() {
    let mut mesh = mesh(&[
        "PERMISSIVE app=cart name=b",
        "STRICT app=cart name=a",
        "STRICT name=n",
        "PERMISSIVE name=m",
    ]);
    mesh.peer_authentications.reverse();
    assert!(!refused(&Judge::new(mesh), 8080));
}

const MODES: [MtlsMode; 4] = [
    MtlsMode::Unset,
    MtlsMode::Disable,
    MtlsMode::Permissive,
    MtlsMode::Strict,
];

/// A level's policy: absent, or of each mode.
fn given() -> impl Iterator<Item = Option<MtlsMode>> + Clone {
    MODES.into_iter().map(Some).chain([None])
}

/// §4.1 in one line.
fn effective(narrow_to_wide: &[Option<MtlsMode>]) -> MtlsMode {
    let set = |mode: &&Option<MtlsMode>| !matches!(mode, None | Some(MtlsMode::Unset));
    narrow_to_wide
        .iter()
        .find(set)
        .copied()
        .flatten()
        .unwrap_or(MtlsMode::Permissive)
}

#[test]
fn every_mode_everywhere() {
    let text = |mode: MtlsMode| format!("{mode:?}").to_uppercase();
    let mut compiled = 0;
    for m in given() {
        for n in given() {
            for w in given() {
                let ports: Vec<_> = given().flat_map(|a| given().map(move |b| [a, b])).collect();
                for [a, b] in if w.is_some() {
                    &ports[..]
                } else {
                    &[[None; 2]]
                } {
                    let wider = [
                        m.map(|m| format!("{} ns=istio-system", text(m))),
                        n.map(text),
                    ];
                    let mut policies: Vec<String> = wider.into_iter().flatten().collect();
                    if let Some(w) = w {
                        let port = |port, mode: &Option<_>| {
                            mode.map(|mode| format!(" {port}={}", text(mode)))
                        };
                        let ports = [port(8080, a), port(9090, b)].into_iter().flatten();
                        policies.push(format!(
                            "{} app=cart name=w{}",
                            text(w),
                            ports.collect::<String>()
                        ));
                    }
                    let policies: Vec<&str> = policies.iter().map(String::as_str).collect();
                    one_case(&policies, [*a, *b, None], [w, n, m]);
                    compiled += 1;
                }
            }
        }
    }
    assert_eq!(compiled, 25 * (4 * 25 + 1));
}

fn one_case(policies: &[&str], ports: [Option<MtlsMode>; 3], [w, n, m]: [Option<MtlsMode>; 3]) {
    let strict = ports.map(|port| effective(&[port, w, n, m]) == MtlsMode::Strict);
    let judge = Judge::new(mesh(policies));
    let refused = [8080, 9090, 80].map(|port| refused(&judge, port));
    assert_eq!(refused, strict, "{policies:?}");
    let want = match strict {
        [true, true, true] => Some(SHARED),
        [false, false, false] => None,
        _ => Some(OWN),
    };
    assert_eq!(listed(&judge), Vec::from_iter(want), "{policies:?}");
}
