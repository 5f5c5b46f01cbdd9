use std::fs;

use serde_json::json;

use crate::config;
use crate::explain::request::RequestAsked;
use crate::explain::{Question, explain, intended};
use crate::model::authentication::testing::{Signer, jwks};

const MESH: &str = r#"
default-namespace = "shop"
[[node]]
name = "edge-1"
addresses = ["192.0.2.1"]
[[node]]
name = "edge-2"
addresses = ["192.0.2.2"]
[[namespace]]
name = "shop"
dataplane-mode = "ambient"
use-waypoint = "wp"
[[workload]]
name = "web-1"
node = "edge-1"
addresses = ["10.1.0.21"]
capture = { netns = "web-1" }
[[workload]]
name = "cart-1"
node = "edge-1"
addresses = ["10.1.0.31"]
labels = { app = "cart" }
capture = { netns = "cart-1" }
[[gateway]]
name = "wp"
class = "waypoint"
node = "edge-2"
[[service]]
name = "cart"
selector = { app = "cart" }
ports = [{ port = 80, app-protocol = "http" }]
[[authorization-policy]]
name = "known"
target-refs = [{ kind = "Service", name = "cart" }]
rules = [{ from = [{ source = { request-principals = ["i1/sub", "i2/sub"] } }] }]
"#;

#[test]
fn tokens_are_judged_but_for_keys_that_are_elsewhere() {
    let (own, other) = (
        Signer::new("ES256", Some("k")),
        Signer::new("ES256", Some("k")),
    );
    let rules = format!(
        "[[request-authentication]]\nname = \"jwt\"\ntarget-refs = [{{ kind = \"Service\", name = \"cart\" }}]\njwt-rules = [{{ issuer = \"i1\", jwks = '{}' }},\n{{ issuer = \"i2\", jwks-uri = \"https://i2\" }}]\n",
        jwks(&[own.jwk()])
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.toml"), format!("{MESH}{rules}")).unwrap();
    let loaded = config::load(dir.path());
    let report = loaded.report.to_string();
    let mesh = intended(&loaded.mesh.expect(&report)).unwrap();
    let token = |signer: &Signer, issuer: &str, exp: u64| {
        signer.token("ES256", &json!({"iss": issuer, "sub": "sub", "exp": exp}))
    };
    let (far, line) = (u64::MAX, MESH.lines().count() + 4);
    for (name, token, status, said) in [
        (
            "none",
            None,
            Some(403),
            "none where a rule looks for one".to_owned(),
        ),
        (
            "one",
            Some(token(&own, "i1", far)),
            None,
            format!("of i1/sub, by request-authentication shop/jwt (a.toml:{line})"),
        ),
        (
            "by somebody else",
            Some(token(&other, "i1", far)),
            Some(401),
            "Jwt verification fails".to_owned(),
        ),
        (
            "over",
            Some(token(&own, "i1", 1)),
            Some(401),
            "Jwt is expired, by request-authentication shop/jwt".to_owned(),
        ),
        (
            "by keys elsewhere",
            Some(token(&other, "i2", far)),
            None,
            "if its issuer has signed it".to_owned(),
        ),
    ] {
        let headers = token.map(|t| ("authorization".to_owned(), format!("Bearer {t}")));
        let question = Question {
            from: "shop/web-1".to_owned(),
            to: "cart:80".to_owned(),
            request: Some(RequestAsked {
                method: "GET".to_owned(),
                path: "/".to_owned(),
                host: None,
                headers: headers.into_iter().collect(),
            }),
            udp: false,
        };
        let told = explain(&mesh.view, &mesh.names, &mesh.waypoints, &question).unwrap();
        let steps = told.steps.iter().map(|step| &*step.text);
        let mut all = steps.chain([&*told.reason]);
        assert_eq!(told.status, status, "{name}: {}", told.reason);
        assert!(all.any(|text| text.contains(&said)), "{name}: {told:#?}");
    }
}

/// The mesh with another file, and what becomes of a request with a token.
fn asked_with(more: &str, token: &str) -> crate::explain::Explanation {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.toml"), format!("{MESH}{more}")).unwrap();
    let loaded = config::load(dir.path());
    let report = loaded.report.to_string();
    let mesh = intended(&loaded.mesh.expect(&report)).unwrap();
    let question = Question {
        from: "shop/web-1".to_owned(),
        to: "cart:80".to_owned(),
        request: Some(RequestAsked {
            method: "GET".to_owned(),
            path: format!("/?access_token={token}&a=b"),
            host: None,
            headers: vec![("authorization".to_owned(), format!("Bearer {token}"))],
        }),
        udp: false,
    };
    explain(&mesh.view, &mesh.names, &mesh.waypoints, &question).unwrap()
}

fn believing(signer: &Signer) -> String {
    format!(
        "[[request-authentication]]\nname = \"jwt\"\ntarget-refs = [{{ kind = \"Service\", name = \"cart\" }}]\njwt-rules = [{{ issuer = \"i1\", jwks = '{}' }}]\n",
        jwks(&[signer.jwk()])
    )
}

#[test]
fn providers_are_asked_before_tokens_are_looked_at() {
    let signer = Signer::new("ES256", Some("k"));
    let custom = "[[authorization-policy]]\nname = \"ask\"\naction = \"CUSTOM\"\nprovider.name = \"nobody\"\ntarget-refs = [{ kind = \"Service\", name = \"cart\" }]\nrules = [{}]\n";
    let told = asked_with(&(believing(&signer) + custom), "no token");
    assert_eq!(told.status, Some(403), "{}", told.reason);
    assert!(told.reason.contains("asks provider nobody"), "{told:#?}");
}

#[test]
fn policies_see_a_request_without_its_token() {
    let signer = Signer::new("ES256", Some("k"));
    let token = signer.token(
        "ES256",
        &json!({"iss": "i1", "sub": "sub", "exp": u64::MAX}),
    );
    let denies = |key: &str| {
        format!(
            "[[authorization-policy]]\nname = \"d\"\naction = \"DENY\"\ntarget-refs = [{{ kind = \"Service\", name = \"cart\" }}]\nrules = [{{ when = [{{ key = \"request.headers[{key}]\", values = [\"*\"] }}] }}]\n"
        )
    };
    let told = asked_with(&(believing(&signer) + &denies("authorization")), &token);
    assert_eq!(told.status, None, "{}", told.reason);
    let path = denies(":path").replace("\"*\"", "\"/?a=b\"");
    let told = asked_with(&(believing(&signer) + &path), &token);
    assert_eq!(told.status, Some(403), "{}", told.reason);
}
