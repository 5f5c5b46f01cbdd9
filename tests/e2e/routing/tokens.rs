//! Whose tokens are believed: rows 56, 57 and 61–67, and rows 50 and 51 of `spec/labels-and-policy.md` §7.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::case::{Case, try_all, unless};
use super::{Bench, ECHO};
use crate::programs::client::{Load, Many, Order, Tally};
use crate::support::eventually;
use testing::{Signer, jwks};

#[path = "../../../src/model/authentication/corpus.rs"]
mod corpus;
#[path = "../../../src/model/authentication/testing.rs"]
mod testing;

/// Where the host outside publishes keys.
const PUBLISHED: &str = "http://10.77.0.99:8088/keys";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// What a table keeps to the end of the test binary.
fn kept(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Rules attached to the whole waypoint.
fn believing(rules: &[String]) -> String {
    attached(
        "target-refs = [{ kind = \"Gateway\", name = \"wp\" }]",
        rules,
    )
}

fn attached(to: &str, rules: &[String]) -> String {
    let rules = rules.join(",\n");
    format!(
        "[[request-authentication]]\nname = \"jwt\"\nnamespace = \"shop\"\n{to}\njwt-rules = [\n{rules}\n]\n"
    )
}

/// A rule for an issuer whose keys are written in it.
fn rule(issuer: &str, keys: &str, more: &str) -> String {
    format!("{{ issuer = \"{issuer}\", jwks = '{keys}', {more} }}")
}

/// A policy for the whole waypoint.
fn policy(action: &str, rules: &str) -> String {
    format!(
        "[[authorization-policy]]\nname = \"p\"\nnamespace = \"shop\"\ntarget-refs = [{{ kind = \"Gateway\", name = \"wp\" }}]\naction = \"{action}\"\nrules = [{rules}]\n"
    )
}

/// Two issuers, and the tokens of the table.
struct Issuers {
    one: Signer,
    two: Signer,
}

impl Issuers {
    fn new() -> Self {
        Self {
            one: Signer::new("RS256", Some("one")),
            two: Signer::new("ES256", Some("two")),
        }
    }

    fn rules(&self, more: &str) -> Vec<String> {
        vec![
            rule("issuer-1", &jwks(&[self.one.jwk()]), more),
            rule("issuer-2", &jwks(&[self.two.jwk()]), more),
        ]
    }

    /// A token of the first one with these claims besides.
    fn first(&self, more: &Value) -> String {
        let mut claims = json!({"iss": "issuer-1", "sub": "sub-1", "exp": now() + 3600});
        let more = more.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(more);
        self.one.token("RS256", &claims)
    }

    fn second(&self) -> String {
        let claims = json!({"iss": "issuer-2", "sub": "sub-1"});
        self.two.token("ES256", &claims)
    }
}

/// A request with a token, the usual way.
fn with(asked: &str, token: &str) -> &'static str {
    kept(format!("{asked} | Authorization: Bearer {token}"))
}

#[test]
fn tokens_are_judged_as_the_table_says() {
    let issuers = Issuers::new();
    let mut cases = by_claims(&issuers);
    cases.extend(by_issuer(&issuers));
    cases.extend(by_place(&issuers));
    cases.extend(by_what_programs_see(&issuers));
    try_all(&cases);
}

fn by_claims(issuers: &Issuers) -> Vec<Case> {
    let claims = |a: Value| with("/", &issuers.first(&json!({"a": {"b": a}})));
    let any = issuers.rules("");
    let believing = believing(&any);
    let closed = policy(
        "DENY",
        "{ from = [{ source = { not-request-principals = [\"*\"] } }] }",
    );
    let nested = policy(
        "ALLOW",
        "{ when = [{ key = \"request.auth.claims[a][b]\", values = [\"v\"] }] }",
    );
    vec![
        Case::new("56: a nested claim", format!("{believing}{nested}"))
            .ask(claims(json!("v")), &["echo"])
            .ask(claims(json!(["w", "v"])), &["echo"])
            .ask(claims(json!("x v")), &["403"])
            .ask(with("/", &issuers.first(&json!({}))), &["403"])
            .ask("/", &["403", "text RBAC: access denied"]),
        Case::new("57: nobody without a token", format!("{believing}{closed}"))
            .ask("/", &["403"])
            .ask(with("/", &issuers.second()), &["echo"]),
        Case::new("57: a token that nobody believes", closed)
            .ask(with("/", &issuers.second()), &["403"]),
    ]
}

fn by_issuer(issuers: &Issuers) -> Vec<Case> {
    let allow = policy(
        "ALLOW",
        "{ from = [{ source = { request-principals = [\"issuer-1/sub-1\"] } }] }, { to = [{ operation = { paths = [\"/healthz\"] } }] }",
    );
    let over = issuers.first(&json!({"exp": 1}));
    let third = issuers.first(&json!({"iss": "issuer-3"}));
    let preflight = |token: &str| {
        let asked = with("OPTIONS /healthz", token);
        kept(format!(
            "{asked} | Origin: https://a | Access-Control-Request-Method: GET"
        ))
    };
    let selector = "selector = { match-labels = { gate = \"wp\" } }";
    vec![
        Case::new(
            "61, 65, and 50 of labels: by issuer and subject",
            format!("{}{allow}", believing(&issuers.rules(""))),
        )
        .ask("/", &["403"])
        .ask(with("/", &issuers.first(&json!({}))), &["echo"])
        .ask(with("/", &issuers.first(&json!({"sub": "sub-2"}))), &["403"])
        .ask(with("/", &issuers.second()), &["403"])
        .ask(
            with("/x?y", &over),
            &[
                "401",
                "text Jwt is expired",
                "< www-authenticate: Bearer realm=\"http://echo/x\", error=\"invalid_token\"",
            ],
        )
        .ask(with("/", &third), &["401", "text Jwt issuer is not configured"])
        .ask("/healthz", &["echo"])
        .ask(with("OPTIONS /healthz", &over), &["401", "text Jwt is expired"])
        .ask(preflight(&over), &["echo"])
        .ask(
            kept(format!("OPTIONS / | Authorization: Bearer {over} | Origin: https://a | Access-Control-Request-Method: GET")),
            &["403"],
        )
        .ask(
            kept(format!("POST :81 /S/M | content-type: application/grpc | Authorization: Bearer {over}")),
            &["200", "< grpc-status: 16", "< grpc-message: Jwt is expired"],
        ),
        Case::new("51 of labels: by a selector", attached(selector, &issuers.rules("")))
            .gateway("nodes = [\"gate-1\"]\nlabels = { gate = \"wp\" }")
            .ask(with("/", &over), &["echo"]),
        Case::new("63: audiences", believing(&[rule("issuer-1", &jwks(&[issuers.one.jwk()]), "audiences = [\"foo\"]")]))
            .ask(
                with("/", &issuers.first(&json!({}))),
                &["403", "text Audiences in Jwt are not allowed"],
            )
            .ask(with("/", &issuers.first(&json!({"aud": ["foo"]}))), &["echo"])
            .ask(with("/", &issuers.first(&json!({"aud": "https://foo/"}))), &["echo"]),
    ]
}

fn by_place(issuers: &Issuers) -> Vec<Case> {
    let good = issuers.first(&json!({}));
    let over = issuers.first(&json!({"exp": 1}));
    let places = "from-params = [\"token\", \"secondary_token\"], from-headers = [{ name = \"x-jwt-token\", prefix = \"Value \" }]";
    let rules = [rule("issuer-1", &jwks(&[issuers.one.jwk()]), places)];
    let anybody = policy(
        "ALLOW",
        "{ from = [{ source = { request-principals = [\"*\"] } }] }",
    );
    vec![
        Case::new(
            "64: other places",
            format!("{}{anybody}", believing(&rules)),
        )
        .ask(
            kept(format!("?a=b&token={good}&c=d")),
            &["echo", "> :path /?a=b&c=d"],
        )
        .ask(
            kept(format!("?token={good}&secondary_token={over}")),
            &["401"],
        )
        .ask(
            kept(format!("/ | x-jwt-token: Value {good}")),
            &["echo", "> !x-jwt-token"],
        )
        .ask(kept(format!("/ | Auth: Bearer {good}")), &["403"])
        .ask(with("/", &good), &["403"]),
    ]
}

fn by_what_programs_see(issuers: &Issuers) -> Vec<Case> {
    let good = issuers.first(&json!({"nested": {"key": "value"}}));
    let bare = issuers.first(&json!({}));
    let payload = kept(format!("> x-payload: {}", good.split('.').nth(1).unwrap()));
    let told = "output-claim-to-headers = [{ header = \"x-c\", claim = \"nested.key\" }], output-payload-to-header = \"x-payload\"";
    vec![
        Case::new("62: the token stays here", believing(&issuers.rules("")))
            .ask(with("/", &good), &["echo", "> !authorization"])
            .ask(
                kept(format!("?access_token={good}")),
                &["echo", "> :path /"],
            ),
        Case::new(
            "62: the token goes on",
            believing(&issuers.rules("forward-original-token = true")),
        )
        .ask(
            with("/", &good),
            kept_facts(vec![
                "echo",
                kept(format!("> authorization: Bearer {good}")),
            ]),
        ),
        Case::new("66: claims in fields", believing(&issuers.rules(told)))
            .ask(
                kept(format!("/ | x-c: evil | Authorization: Bearer {good}")),
                kept_facts(vec!["echo", "> x-c: value", payload]),
            )
            .ask(
                kept(format!("/ | x-c: evil | Authorization: Bearer {bare}")),
                &["echo", "> !x-c"],
            )
            .ask(
                "/ | x-c: evil | x-payload: evil",
                &["echo", "> !x-c", "> !x-payload"],
            ),
    ]
}

fn kept_facts(facts: Vec<&'static str>) -> &'static [&'static str] {
    Box::leak(facts.into_boxed_slice())
}

#[test]
fn no_token_of_the_corpus_passes() {
    let issuer = corpus::Issuer::new();
    let audience = format!("audiences = [\"{}\"]", corpus::AUDIENCE);
    let rules = believing(&[rule(corpus::ISSUER, &issuer.jwks(), &audience)]);
    let now = now();
    let good = issuer.rsa.token("RS256", &issuer.claims(now));
    let mut case = Case::new("29: tokens that are wrong", rules).ask(with("/", &good), &["echo"]);
    let defects = issuer.defects(now);
    // A field of more than that is refused whatever it says.
    let sent = defects.iter().filter(|defect| defect.token.len() < 8000);
    let mut count = 0;
    for defect in sent {
        count += 1;
        let status = kept(defect.status().to_string());
        let text = kept(format!("text {}", defect.body));
        // For whoever reads the complaint.
        let named = format!("/ | x-defect: {}", defect.name);
        case = case.ask(with(&named, &defect.token), kept_facts(vec![status, text]));
    }
    assert!(count >= 100, "{count}");
    try_all(&[case]);
}

/// Puts keys where the waypoint asks for them, in one step.
fn publish(bench: &Bench, name: &str, signers: &[&Signer]) {
    let directory = bench.turn.state().join("nginx/keys");
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    let new = directory.join("new");
    fs::write(&new, jwks(&keys)).unwrap();
    fs::rename(new, directory.join(name)).unwrap();
}

fn elsewhere(uri: &str) -> String {
    believing(&[format!("{{ issuer = \"issuer-1\", jwks-uri = \"{uri}\" }}")])
}

fn load(token: &str, per_second: u64, seconds: u64) -> String {
    let request = Many {
        to: ECHO.to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        headers: vec![("authorization".to_owned(), format!("Bearer {token}"))],
        body: String::new(),
        count: 0,
        connections: 16,
    };
    serde_json::to_string(&Order::Load(Load {
        request,
        per_second,
        seconds,
    }))
    .unwrap()
}

/// How many were answered well, where all were.
fn all_well(name: &str, said: &str) -> usize {
    let tally: Tally = serde_json::from_str(said).unwrap();
    let failed: Vec<_> = tally
        .iter()
        .filter(|(o, _)| !o.starts_with("200 echo-"))
        .collect();
    assert!(failed.is_empty(), "{name}: {failed:?}");
    tally.values().sum()
}

#[test]
fn keys_that_change_under_load_fail_no_request() {
    let bench = Bench::new();
    let (old, new) = (
        Signer::new("ES256", Some("old")),
        Signer::new("ES256", Some("new")),
    );
    let token = |signer: &Signer| signer.token("ES256", &json!({"iss": "issuer-1", "sub": "s"}));
    publish(&bench, "rotated.json", &[&old]);
    let uri = format!("{PUBLISHED}/rotated.json");
    bench
        .enforce(&elsewhere(&uri), "nodes = [\"gate-1\"]", "")
        .unwrap();
    let mut first = bench.client.lock().unwrap();
    let mut second = super::client(&bench.turn, "other");
    first.say(&load(&token(&old), 700, 4));
    std::thread::sleep(Duration::from_secs(1));
    // From now on the issuer signs with another key, and still publishes the one before.
    publish(&bench, "rotated.json", &[&new, &old]);
    second.say(&load(&token(&new), 300, 2));
    let news = all_well("by the new key", &second.line());
    let olds = all_well("by the old key", &first.line());
    // A busy machine asks more slowly than it was told to, never so much more.
    assert!(news > 120 && olds > 560, "{news} and {olds} were asked");
}

#[test]
fn keys_that_cannot_be_had_believe_nobody_and_those_of_before_still_do() {
    let bench = Bench::new();
    let signer = Signer::new("ES256", Some("k"));
    let token = signer.token("ES256", &json!({"iss": "issuer-1", "sub": "s"}));
    let gate = "nodes = [\"gate-1\"]";
    let complaints = |bench: &Bench, name: &str, want: &'static [&'static str]| {
        let answer = bench.ask(with("/", &token));
        let wrong = want.iter().find(|fact| !answer.is(fact));
        unless(wrong.is_none(), || format!("{name}: {answer:?}"))
    };
    // 67: never there.
    let uri = format!("{PUBLISHED}/kept.json");
    bench.enforce(&elsewhere(&uri), gate, "").unwrap();
    let mut all = unless(bench.ask("/").is("echo"), || "no token".to_owned());
    all.extend(complaints(
        &bench,
        "no keys",
        &["401", "text Jwks remote fetch is failed"],
    ));
    // What only the waypoint's host reaches is refused when it is written, as 27 of reliability wants.
    let refused = bench.enforce(&elsewhere("http://169.254.169.254/keys"), gate, "");
    all.extend(unless(refused.is_err(), || "a metadata service".to_owned()));
    // A source by another name, so that it is asked at once.
    publish(&bench, "kept.json", &[&signer]);
    let uri = format!("{PUBLISHED}/./kept.json");
    bench.enforce(&elsewhere(&uri), gate, "").unwrap();
    all.extend(complaints(&bench, "keys", &["echo"]));
    // The issuer is gone, and the waypoint starts again.
    fs::remove_file(bench.turn.state().join("nginx/keys/kept.json")).unwrap();
    let mut bench = bench;
    bench.turn.stop("gate-1");
    bench.turn.ended("gate-1");
    bench.turn.daemon("gate-1");
    eventually("the waypoint serves again", || {
        let answer = bench.ask("/");
        match answer.is("echo") {
            true => Ok(()),
            false => Err(answer),
        }
    });
    all.extend(complaints(&bench, "keys of before", &["echo"]));
    assert!(all.is_empty(), "{}", all.join("\n"));
}
