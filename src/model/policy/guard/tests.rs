//! Which policies hold for a workload, and what several of them come to.

use super::*;
use crate::model::declaration::Origin;
use crate::model::policy::{Clause, Match, Pattern, Rule, Values};
use crate::model::testing::workload;

/// `+` allows and `-` denies, `?` before it only tries; then the key; then whom: `*` everybody, a
/// name the service account, nothing nobody.
fn policy(text: &str, scope: Scope) -> Arc<Policy> {
    let (dry_run, text) = match text.strip_prefix('?') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (head, whom) = text.split_once(' ').unwrap_or((text, ""));
    let (sign, key) = head.split_at(1);
    let (namespace, name) = key.split_once('/').unwrap();
    let clauses = match whom {
        "*" => Vec::new(),
        account => vec![Clause {
            matches: vec![Match {
                principals: Values {
                    any: vec![Pattern::Suffix(Arc::from(format!("/sa/{account}")))],
                    not: Vec::new(),
                },
                ..Match::default()
            }],
        }],
    };
    let rule = Rule { line: 7, clauses };
    Arc::new(Policy {
        key: Arc::from(key),
        namespace: Arc::from(namespace),
        name: Arc::from(name),
        scope,
        effect: if sign == "+" {
            Effect::Allow
        } else {
            Effect::Deny
        },
        dry_run,
        rules: (!whom.is_empty()).then_some(rule).into_iter().collect(),
        origin: Some(Origin {
            file: Arc::from("shop.toml"),
            line: 3,
        }),
        unreadable: None,
    })
}

fn from(account: &str) -> Request {
    let identity = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    let identity = (!account.is_empty()).then(|| identity.parse().unwrap());
    let (source, to) = ([10, 1, 0, 12], ([10, 1, 0, 11], 8080));
    Request::new(identity.as_ref(), Some(source.into()), to.into())
}

fn guard(policies: &[&str]) -> Guard {
    let policies = policies.iter().map(|text| policy(text, Scope::Namespace));
    Policies::new(policies).guard(&workload("cart", &["10.1.0.11"]))
}

#[test]
fn deny_before_allow_before_nothing() {
    let shop = "policy shop";
    for (policies, account, want) in [
        (&[][..], "", None),
        (&["-shop/d web"], "web", Some("denied by policy shop/d")),
        (&["-shop/d web"], "api", None),
        (&["-shop/d web"], "", None),
        (&["+shop/a web"], "web", None),
        (
            &["+shop/a web"],
            "api",
            Some("not allowed by policy shop/a"),
        ),
        (&["+shop/a web"], "", Some("not allowed by policy shop/a")),
        (&["+shop/a"], "web", Some("not allowed by policy shop/a")),
        (&["+shop/a", "+shop/b web"], "web", None),
        (
            &["+shop/b", "+shop/a api"],
            "web",
            Some("none of 2 policies that allow others, such as policy shop/a"),
        ),
        (
            &["-shop/d web", "+shop/a web"],
            "web",
            Some("denied by policy shop/d"),
        ),
        // The smallest key, in whatever order they came.
        (&["-shop/z *", "-shop/b *"], "web", Some("policy shop/b")),
        (&["-shop/d"], "web", None),
        (&["?-shop/d *"], "web", None),
        (&["?+shop/a api"], "web", None),
    ] {
        let verdict = guard(policies).judge(&from(account));
        let told = match &verdict {
            Verdict::Allowed(_) => None,
            Verdict::Denied(denial) => Some(denial.to_string()),
        };
        let as_wanted = match (&told, want) {
            (Some(told), Some(want)) => told.contains(want) && told.contains(shop),
            (None, None) => true,
            _ => false,
        };
        assert!(as_wanted, "{policies:?} from {account:?}: {told:?}");
    }
}

#[test]
fn a_verdict_names_the_line_that_made_it() {
    let denial = |policies: &[&str]| match guard(policies).judge(&from("web")) {
        Verdict::Denied(denial) => denial.to_string(),
        Verdict::Allowed(_) => String::new(),
    };
    // The rule's line where a rule matched, else the policy's.
    assert_eq!(
        denial(&["-shop/d *"]),
        "denied by policy shop/d (shop.toml:7)"
    );
    assert_eq!(
        denial(&["+shop/a"]),
        "not allowed by policy shop/a (shop.toml:3), which allows others"
    );
    let Verdict::Allowed(Some(cause)) = guard(&["+shop/a *"]).judge(&from("web")) else {
        panic!("not allowed");
    };
    assert_eq!(cause.to_string(), "policy shop/a (shop.toml:7)");
}

#[test]
fn what_is_only_tried_is_told_and_means_nothing() {
    for (policies, want) in [
        (
            &["?-shop/d web"][..],
            &["would be denied by policy shop/d"][..],
        ),
        (&["?-shop/d api"], &[]),
        (&["?+shop/a web"], &["would be allowed by policy shop/a"]),
        (
            &["?+shop/b api", "?+shop/a api"],
            &["would be denied: no policy would allow it, such as policy shop/a"],
        ),
        (&["?+shop/a api", "+shop/b web"], &[]),
        (
            &["?-shop/d *", "?+shop/a api"],
            &["would be denied by", "would be denied: no policy"],
        ),
    ] {
        let guard = guard(policies);
        assert!(guard.rehearses());
        let told = guard.rehearse(&from("web"));
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        let as_wanted = told.len() == want.len()
            && told
                .iter()
                .zip(want)
                .all(|(told, want)| told.starts_with(want));
        assert!(as_wanted, "{policies:?}: {told:?}");
        let verdict = guard.judge(&from("web"));
        assert!(matches!(verdict, Verdict::Allowed(_)), "{policies:?}");
    }
}

#[test]
fn a_policy_holds_for_whom_its_scope_says() {
    let mut listing = workload("cart", &["10.1.0.11"]);
    listing.authorization_policies = vec![Arc::from("shop/p"), Arc::from("bank/p")];
    let plain = workload("cart", &["10.1.0.11"]);
    for (key, scope, listed, unlisted) in [
        ("bank/p", Scope::Mesh, true, true),
        ("shop/p", Scope::Namespace, true, true),
        ("bank/p", Scope::Namespace, false, false),
        ("shop/p", Scope::Listed, true, false),
        ("bank/p", Scope::Listed, true, false),
        ("shop/q", Scope::Listed, false, false),
    ] {
        // Those it lists and nobody has told of would hide the answer.
        let told = [
            policy("+shop/p *", Scope::Listed),
            policy("+bank/p *", Scope::Listed),
        ];
        let others = told.into_iter().filter(|p| &*p.key != key);
        let denies = policy(&format!("-{key} *"), scope);
        let policies = Policies::new(others.chain([denies]));
        for (workload, want) in [(&listing, listed), (&plain, unlisted)] {
            let verdict = policies.guard(workload).judge(&from("web"));
            let denied = matches!(verdict, Verdict::Denied(_));
            let lists = !workload.authorization_policies.is_empty();
            assert_eq!(denied, want, "{key} {scope:?}, listed: {lists}");
        }
    }
}

#[test]
fn what_is_listed_and_unknown_closes() {
    let mut me = workload("cart", &["10.1.0.11"]);
    me.authorization_policies = vec![Arc::from("shop/late"), Arc::from("shop/later")];
    let allows = Policies::new([policy("+shop/a *", Scope::Namespace)]);
    let guard = allows.guard(&me);
    assert!(guard.waits());
    let Verdict::Denied(denial) = guard.judge(&from("web")) else {
        panic!("let in without the policy it lists");
    };
    assert_eq!(&**denial.policy(), "shop/late");
    let nothing = Policies::default().guard(&workload("web", &[]));
    assert!(nothing.judge(&from("web")) == Verdict::Allowed(None));
}

#[test]
fn every_policy_is_considered() {
    let guard = guard(&["+shop/a api", "-shop/d web", "?-shop/t *"]);
    let considered = guard.consider(&from("web"));
    let told: Vec<_> = considered
        .iter()
        .map(|c| (&*c.policy.key, c.matched))
        .collect();
    assert_eq!(
        told,
        [("shop/d", Some(0)), ("shop/a", None), ("shop/t", Some(0))]
    );
}

#[test]
fn where_a_policy_is_written_does_not_change_what_it_means() {
    let moved = |line| {
        let mut policy = (*policy("-shop/d web", Scope::Namespace)).clone();
        policy.origin.as_mut().unwrap().line = line;
        policy.rules[0].line = line + 1;
        Policies::new([Arc::new(policy)]).guard(&workload("cart", &[]))
    };
    assert_ne!(moved(3), moved(4));
    assert!(moved(3).means(&moved(4)));
    for other in [
        &[][..],
        &["-shop/d api"],
        &["-shop/e web"],
        &["+shop/d web"],
    ] {
        assert!(!moved(3).means(&guard(other)), "{other:?}");
    }
}
