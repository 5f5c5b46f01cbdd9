//! What rules and backends change of a request and its answer.

use std::sync::Arc;

use ::http::HeaderValue;

use super::http::{Http1, get, read};
use super::program::Shop;
use crate::model::route::{Filter, HeaderChange, PathChange, Rewrite, Rule, Target};
use crate::waypoint::testing::told::{rule, set, target, told};

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

#[tokio::test]
async fn fields_are_removed_set_and_added() {
    let change = HeaderChange {
        remove: vec![text("x-header-remove")],
        set: vec![(text("x-header-set"), text("set-overwrites-values"))],
        add: vec![(text("x-header-add"), text("add-appends-values"))],
    };
    let rules = vec![
        rule()
            .to("v1", 1)
            .with(Filter::RequestHeaders(change.clone()))
            .with(Filter::ResponseHeaders(change)),
    ];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    let mut request = get("/");
    for (name, value) in [
        ("x-header-set", "a"),
        ("x-header-add", "some-other-value"),
        ("x-header-remove", "b"),
    ] {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(name, value);
    }
    let response = client.send(request).await;
    let set = response.headers().get("x-header-set").unwrap();
    assert_eq!(set, "set-overwrites-values");
    let asked = shop.v1.last();
    for (name, want) in [
        ("x-header-set", Some("set-overwrites-values")),
        ("x-header-add", Some("some-other-value,add-appends-values")),
        ("x-header-remove", None),
    ] {
        assert_eq!(asked.header(name).as_deref(), want, "{name}");
    }
}

#[tokio::test]
async fn a_backend_has_the_last_word() {
    let sets = |value| vec![Filter::RequestHeaders(set("b", value))];
    let rules = vec![
        rule()
            .with_backend(target("v1"), 1, sets("1"))
            .with_backend(target("v2"), 1, sets("2"))
            .with(Filter::RequestHeaders(set("b", "0"))),
    ];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    for _ in 0..40 {
        client.get("/").await;
    }
    for (program, want) in [(&shop.v1, "1"), (&shop.v2, "2")] {
        let asked = program.asked();
        assert!(!asked.is_empty(), "each has a share");
        let told = |a: &super::program::Asked| a.header("b").as_deref() == Some(want);
        assert!(asked.iter().all(told), "{want}: {asked:?}");
    }
}

fn rewriting(at: &str, path: PathChange) -> Rule<Target> {
    let rewrite = Rewrite {
        host: None,
        path: Some(path),
    };
    rule().at(at).to("v1", 1).with(Filter::Rewrite(rewrite))
}

#[tokio::test]
async fn the_backend_alone_sees_another_path() {
    let rules = vec![
        rewriting("/prefix/one", PathChange::Prefix(text("/one"))),
        rewriting("/strip-prefix", PathChange::Prefix(text("/"))),
        rewriting("/full/one", PathChange::Full(text("/one"))),
        rewriting("/same", PathChange::Prefix(text("/same"))),
    ];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    for (path, want) in [
        ("/prefix/one/two", "/one/two"),
        ("/strip-prefix", "/"),
        ("/strip-prefix/three", "/three"),
        ("/full/one/two?x=1", "/one?x=1"),
        ("/same/x", "/same/x"),
    ] {
        assert_eq!(client.get(path).await.1, "v1", "{path}");
        let asked = shop.v1.last();
        assert_eq!(asked.target, want, "{path}");
        let original = asked.header("x-envoy-original-path");
        let changed = (path != want).then(|| path.to_owned());
        assert_eq!(original, changed, "{path}");
    }
}

#[tokio::test]
async fn the_backend_alone_sees_another_host() {
    let rewrite = Rewrite {
        host: Some(text("one.example.org")),
        path: None,
    };
    let rules = vec![
        rule()
            .at("/rewritten")
            .to("v1", 1)
            .with(Filter::Rewrite(rewrite)),
        rule()
            .at("/set")
            .to("v1", 1)
            .with(Filter::RequestHeaders(set("host", "two.example.org"))),
    ];
    let shop = Shop::new(told().ruled(rules)).await;
    let mut client = Http1::to(&shop.rig).await;
    for (path, want) in [
        ("/rewritten", "one.example.org"),
        ("/set", "two.example.org"),
    ] {
        let response = client.send(get(path)).await;
        assert_eq!(read(response.into_body()).await, "v1", "{path}");
        let asked = shop.v1.last();
        assert_eq!(asked.header("host").as_deref(), Some(want), "{path}");
        let original = asked.header("x-envoy-original-host");
        assert_eq!(original.as_deref(), Some("cart"), "{path}");
    }
}
