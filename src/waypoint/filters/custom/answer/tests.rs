use http::Request;

use super::*;

fn field(name: &'static str, value: &'static str, edit: Edit) -> Field {
    Field {
        name: HeaderName::from_static(name),
        value: HeaderValue::from_static(value),
        edit,
    }
}

fn parts() -> Parts {
    let request = Request::get("/a?user=1&b=2")
        .header("x-user", "evil")
        .header("x-role", "user")
        .header("authorization", "Bearer x");
    request.body(()).unwrap().into_parts().0
}

fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    lines.map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[test]
fn fields_come_as_they_are_said_to() {
    for (name, edit, there, absent) in [
        ("set", Edit::Set, &["b"][..], &["b"][..]),
        ("append", Edit::Append, &["user", "b"], &["b"]),
        ("if absent", Edit::IfAbsent, &["user"], &["b"]),
        ("if present", Edit::IfPresent, &["b"], &[]),
    ] {
        let mut parts = parts();
        let changes = Changes {
            fields: vec![field("x-role", "b", edit), field("x-new", "b", edit)],
            ..Changes::default()
        };
        changes
            .apply(&mut parts, &mut Found::default(), true)
            .unwrap();
        assert_eq!(lines(&parts.headers, "x-role"), there, "{name}");
        assert_eq!(lines(&parts.headers, "x-new"), absent, "{name}");
    }
}

#[test]
fn routes_see_the_request_as_it_was_unless_told() {
    let changes = || Changes {
        remove: vec![header::AUTHORIZATION],
        fields: vec![
            field("x-user", "a", Edit::Set),
            field("x-new", "b", Edit::Set),
        ],
        unquery: vec!["user".to_owned()],
        ..Changes::default()
    };
    for (cleared, seen) in [(true, "a"), (false, "evil")] {
        let (mut parts, mut found) = (parts(), Found::default());
        changes().apply(&mut parts, &mut found, cleared).unwrap();
        assert_eq!(lines(&parts.headers, "x-user"), ["a"]);
        assert_eq!(parts.uri, "/a?b=2");
        assert!(!parts.headers.contains_key("authorization"));
        let routed = found.unseen.restored(&parts);
        assert_eq!(lines(&routed.headers, "x-user"), [seen], "{cleared}");
        assert_eq!(routed.headers.contains_key("x-new"), cleared);
        assert_eq!(routed.headers.contains_key("authorization"), !cleared);
        assert_eq!(
            routed.uri.query().is_some_and(|q| q.contains("user")),
            !cleared
        );
    }
}

#[test]
fn what_makes_a_request_too_long_changes_nothing() {
    let long = "a".repeat(HEAD);
    let changes = Changes {
        remove: vec![header::AUTHORIZATION],
        fields: vec![Field {
            name: HeaderName::from_static("x-long"),
            value: HeaderValue::from_str(&long).unwrap(),
            edit: Edit::Set,
        }],
        ..Changes::default()
    };
    let (mut parts, mut found) = (parts(), Found::default());
    assert!(changes.apply(&mut parts, &mut found, false).is_err());
    assert!(parts.headers.contains_key("authorization"));
    assert!(!parts.headers.contains_key("x-long"));
}

#[test]
fn what_only_the_provider_may_say_is_taken_out() {
    let mut parts = parts();
    parts
        .headers
        .insert(header::HOST, HeaderValue::from_static("cart"));
    let patterns = ["x-*", "host"].map(|text| Pattern::parse(text).unwrap());
    strip(&mut parts.headers, &patterns);
    let mut left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["authorization", "host"]);
}

#[test]
fn clients_are_told_in_place_of_the_answer_or_beside_it() {
    let changes = Changes {
        answer: vec![
            field("x-a", "1", Edit::Set),
            field("x-a", "2", Edit::Append),
            field("x-b", "3", Edit::Append),
            field("set-cookie", "c=1", Edit::Set),
            field("set-cookie", "d=1", Edit::Append),
        ],
        ..Changes::default()
    };
    let mut found = Found::default();
    changes.apply(&mut parts(), &mut found, true).unwrap();
    assert_eq!(lines(&found.answer, "x-a"), ["1", "2"]);
    assert_eq!(found.answer.keys_len(), 1);
    assert_eq!(lines(&found.answer_added, "x-b"), ["3"]);
    assert_eq!(lines(&found.answer_added, "set-cookie"), ["c=1", "d=1"]);
}
