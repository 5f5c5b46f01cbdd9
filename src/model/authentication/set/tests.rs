use std::cell::Cell;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE};
use serde_json::{Map, json};

use super::*;
use crate::model::authentication::KeysError;
use crate::model::authentication::corpus::{AUDIENCE, ISSUER, Issuer};
use crate::model::authentication::testing::{Signer, jwks};
use crate::model::declaration::{ClaimHeader, Origin, RemoteAt};

const NOW: u64 = 1_700_000_000;

/// Who has no keys.
struct Nobody;

impl Keyring for Nobody {
    fn verify(&self, _source: &Remote, _jwt: &Jwt<'_>) -> Result<(), Invalid> {
        Err(Invalid::NoKeys)
    }
}

fn header(name: &'static str, prefix: &str) -> Location {
    Location::Header {
        name: HeaderName::from_static(name),
        prefix: Arc::from(prefix),
    }
}

fn rule(issuer: &str, keys: &str) -> JwtRule {
    JwtRule {
        line: 0,
        issuer: Some(Arc::from(issuer)),
        audiences: Vec::new(),
        keys: KeySource::Inline(Arc::from(keys)),
        locations: Location::usual(),
        forward_original_token: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

fn policy(name: &str, line: u32, rules: Vec<JwtRule>) -> Arc<Authentication> {
    Arc::new(Authentication {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from(name),
        },
        origin: Origin {
            file: Arc::from("a.toml"),
            line,
        },
        rules,
    })
}

fn set(rules: Vec<JwtRule>) -> Set {
    Set::new([policy("jwt", 1, rules)], None)
}

/// A request with these fields.
fn parts(target: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn judge(set: &Set, parts: &Parts) -> Result<Admitted, Refused> {
    let request = Request {
        method: &parts.method,
        headers: &parts.headers,
        query: parts.uri.query(),
    };
    set.judge(&request, NOW, &Nobody)
}

/// What is said of a token that is sent the usual way.
fn said_of(set: &Set, token: &str) -> Option<Invalid> {
    let bearer = format!("Bearer {token}");
    let parts = parts("/", &[("authorization", &bearer)]);
    let judged = judge(set, &parts);
    assert_eq!(
        judged.is_ok(),
        judged.as_ref().is_ok_and(|a| a.token.is_some())
    );
    judged.err().map(|refused| refused.invalid)
}

#[test]
fn no_token_of_the_corpus_is_believed() {
    let issuer = Issuer::new();
    let set = set(vec![JwtRule {
        audiences: vec![Arc::from(AUDIENCE)],
        ..rule(ISSUER, &issuer.jwks())
    }]);
    let good = issuer.rsa.token("RS256", &issuer.claims(NOW));
    assert_eq!(said_of(&set, &good), None, "a good one");
    let defects = issuer.defects(NOW);
    assert!(defects.len() >= 100, "{}", defects.len());
    for defect in defects {
        let said = said_of(&set, &defect.token);
        let said = said.map(|invalid| (invalid.status(), invalid.to_string()));
        let want = Some((defect.status(), defect.body.to_owned()));
        assert_eq!(said, want, "{}: {}", defect.name, defect.token);
    }
}

#[test]
fn no_cut_and_no_other_letter_of_a_token_is_believed() {
    let signer = Signer::new("EdDSA", None);
    let set = set(vec![rule("i", &jwks(&[signer.jwk()]))]);
    let good = signer.token("EdDSA", &json!({"iss": "i", "sub": "s"}));
    assert_eq!(said_of(&set, &good), None);
    for at in 0..good.len() {
        let cut = &good[..at];
        assert!(cut.is_empty() || said_of(&set, cut).is_some(), "{cut}");
        for letter in ["A", "-", ".", "=", "z"] {
            let mut other = good.clone();
            other.replace_range(at..=at, letter);
            assert!(other == good || said_of(&set, &other).is_some(), "{other}");
        }
    }
}

#[test]
fn every_algorithm_is_known() {
    for algorithm in [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    ] {
        let signer = Signer::new(algorithm, Some("k"));
        let set = set(vec![rule("i", &jwks(&[signer.jwk()]))]);
        let token = signer.token(algorithm, &json!({"iss": "i"}));
        assert_eq!(said_of(&set, &token), None, "{algorithm}");
    }
}

#[test]
fn clocks_may_differ_by_a_minute() {
    let signer = Signer::new("ES256", None);
    let set = set(vec![rule("i", &jwks(&[signer.jwk()]))]);
    for (name, claims, want) in [
        ("no time at all", json!({}), None),
        ("over for a minute", json!({"exp": NOW - 60}), None),
        (
            "for longer",
            json!({"exp": NOW - 61}),
            Some(Invalid::Expired),
        ),
        ("not yet for a minute", json!({"nbf": NOW + 60}), None),
        (
            "for longer",
            json!({"nbf": NOW + 61}),
            Some(Invalid::NotYet),
        ),
        ("as a decimal", json!({"exp": 1.8e9}), None),
        ("made in the future", json!({"iat": NOW + 3600}), None),
        ("for ever", json!({"exp": u64::MAX}), None),
    ] {
        let mut claims = claims;
        claims["iss"] = json!("i");
        let token = signer.token("ES256", &claims);
        assert_eq!(said_of(&set, &token), want, "{name}");
    }
}

#[test]
fn audiences_are_compared_without_scheme_and_slash() {
    let signer = Signer::new("ES256", None);
    let keys = jwks(&[signer.jwk()]);
    for (allowed, aud, want) in [
        ("foo", json!("foo"), true),
        ("foo", json!(["bar", "foo"]), true),
        ("foo", json!("https://foo/"), true),
        ("http://foo/", json!("foo"), true),
        ("https://foo", json!("http://foo"), true),
        ("foo", json!("foo//"), false),
        ("foo", json!("ftp://foo"), false),
    ] {
        let set = set(vec![JwtRule {
            audiences: vec![Arc::from("other"), Arc::from(allowed)],
            ..rule("i", &keys)
        }]);
        let token = signer.token("ES256", &json!({"iss": "i", "aud": aud}));
        assert_eq!(said_of(&set, &token).is_none(), want, "{allowed} {aud}");
    }
}

#[test]
fn keys_fit_by_name_and_kind() {
    let rsa = Signer::new("RS256", Some("a"));
    let other = Signer::new("RS256", Some("b"));
    let marked = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let bare = rsa.called(None);
    let (named, nameless) = (rsa.jwk(), bare.jwk());
    for (name, keys, token, want) in [
        (
            "the named one",
            vec![other.jwk(), named.clone()],
            &rsa,
            None,
        ),
        ("one without a name", vec![nameless.clone()], &rsa, None),
        (
            "any, for a token without a name",
            vec![other.jwk(), named.clone()],
            &bare,
            None,
        ),
        (
            "another name",
            vec![other.jwk()],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "another key",
            vec![other.called(Some("a")).jwk()],
            &rsa,
            Some(Invalid::Signature),
        ),
        ("none", vec![], &rsa, Some(Invalid::NoKey)),
        (
            "one to sign",
            vec![marked(named.clone(), "use", json!("sig"))],
            &rsa,
            None,
        ),
        (
            "one to encrypt",
            vec![marked(named.clone(), "use", json!("enc"))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "one to verify",
            vec![marked(named.clone(), "key_ops", json!(["verify"]))],
            &rsa,
            None,
        ),
        (
            "one to wrap",
            vec![marked(named.clone(), "key_ops", json!(["wrapKey"]))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "for this algorithm",
            vec![marked(named.clone(), "alg", json!("RS256"))],
            &rsa,
            None,
        ),
        (
            "for another",
            vec![marked(named.clone(), "alg", json!("PS256"))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "for an unknown one",
            vec![marked(named.clone(), "alg", json!("XS1"))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "of a strange kind",
            vec![json!({"kty": "oct", "k": "AAAA"}), json!(7), named.clone()],
            &rsa,
            None,
        ),
        (
            "whose name is no text",
            vec![marked(named.clone(), "kid", json!(1))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "whose exponent is one",
            vec![marked(named.clone(), "e", json!("AQ"))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "whose exponent is even",
            vec![marked(named.clone(), "e", json!("AQAC"))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "that is short",
            vec![marked(named.clone(), "n", json!("AQAB"))],
            &rsa,
            Some(Invalid::NoKey),
        ),
        (
            "with what nobody knows",
            vec![marked(named.clone(), "x5t", json!({"a": 1}))],
            &rsa,
            None,
        ),
    ] {
        let set = set(vec![rule("i", &jwks(&keys))]);
        let token = token.token("RS256", &json!({"iss": "i"}));
        assert_eq!(said_of(&set, &token), want, "{name}");
    }
}

#[test]
fn key_sets_are_read_as_far_as_they_are_used() {
    let many = jwks(&vec![json!({"kty": "oct"}); 65]);
    for (text, want) in [
        (r#"{"keys": []}"#, Ok(0)),
        (
            r#"{"keys": [{"kty": "oct", "k": "AAAA"}], "more": 1}"#,
            Ok(0),
        ),
        ("", Err(KeysError::Json)),
        ("<html>", Err(KeysError::Json)),
        ("[]", Err(KeysError::Json)),
        ("{}", Err(KeysError::NoList)),
        (r#"{"keys": {}}"#, Err(KeysError::NoList)),
        (&many, Err(KeysError::TooMany(65))),
    ] {
        let read = Keys::read(text.as_bytes()).map(|keys| keys.len());
        assert_eq!(read, want, "{text}");
    }
}

#[test]
fn one_valid_token_is_enough_and_none_is_no_fault() {
    let (one, two) = (
        Signer::new("ES256", Some("1")),
        Signer::new("ES256", Some("2")),
    );
    let (keys, others) = (jwks(&[one.jwk()]), jwks(&[two.jwk()]));
    // Not in the order of their issuers.
    let both = Set::new(
        [
            policy("b", 9, vec![rule("i2", &others)]),
            policy("a", 10, vec![rule("i1", &keys)]),
        ],
        None,
    );
    let of = |signer: &Signer, claims: Value| signer.token("ES256", &claims);
    let good = of(&one, json!({"iss": "i1", "sub": "s"}));
    let second = of(&two, json!({"iss": "i2", "sub": "s"}));
    let over = of(&two, json!({"iss": "i2", "exp": 1}));
    let foreign = of(&one, json!({"iss": "i3"}));
    let forged = of(&two, json!({"iss": "i1"}));
    for (name, token, want) in [
        ("the first issuer's", &good, Ok("i1")),
        ("the second's", &second, Ok("i2")),
        (
            "over, in the words of its own issuer's rule",
            &over,
            Err(Invalid::Expired),
        ),
        ("of nobody known", &foreign, Err(Invalid::Issuer)),
        ("signed by the other", &forged, Err(Invalid::NoKey)),
    ] {
        let bearer = format!("Bearer {token}");
        let judged = judge(&both, &parts("/", &[("authorization", &bearer)]));
        let said = match &judged {
            Ok(admitted) => Ok(&*admitted.token.as_ref().unwrap().issuer),
            Err(refused) => Err(refused.invalid),
        };
        assert_eq!(said, want, "{name}");
        if let Ok(admitted) = &judged {
            let by = admitted.by.as_ref().unwrap().rule().unwrap();
            assert_eq!(by.issuer.as_deref(), want.ok(), "{name}");
        }
    }
    assert_eq!(judge(&both, &parts("/", &[])).unwrap().token, None);
    // In places where each rule finds its own, the first by issuer counts, and the other's fault is none.
    let apart = |locations: [Location; 2]| {
        let [first, second] = locations;
        set(vec![
            JwtRule {
                locations: vec![second],
                ..rule("i2", &others)
            },
            JwtRule {
                locations: vec![first],
                ..rule("i1", &keys)
            },
        ])
    };
    let apart = apart([header("x-1", ""), header("x-2", "")]);
    for (name, headers, want) in [
        ("both", [("x-1", &good), ("x-2", &second)], Some("i1")),
        (
            "one of them over",
            [("x-1", &good), ("x-2", &over)],
            Some("i1"),
        ),
        ("exchanged", [("x-1", &second), ("x-2", &good)], None),
    ] {
        let headers = headers.map(|(name, token)| (name, token.as_str()));
        let judged = judge(&apart, &parts("/", &headers));
        let issuer = judged.ok().and_then(|a| a.token).map(|t| t.issuer);
        assert_eq!(issuer.as_deref(), want, "{name}");
    }
}

#[test]
fn every_token_that_a_rule_finds_must_be_valid() {
    let signer = Signer::new("ES256", None);
    let good = signer.token("ES256", &json!({"iss": "i", "sub": "good"}));
    let over = signer.token("ES256", &json!({"iss": "i", "exp": 1}));
    let set = set(vec![JwtRule {
        locations: vec![
            header("x-jwt-token", "Value "),
            Location::Parameter(Arc::from("token")),
            Location::Parameter(Arc::from("secondary_token")),
            Location::Cookie(Arc::from("jwt")),
        ],
        ..rule("i", &jwks(&[signer.jwk()]))
    }]);
    for (name, target, headers, want) in [
        ("one", format!("/?token={good}"), vec![], Ok(true)),
        (
            "one and another",
            format!("/?token={good}&secondary_token={over}"),
            vec![],
            Err(()),
        ),
        (
            "one twice",
            format!("/?token={good}&token={over}"),
            vec![],
            Err(()),
        ),
        (
            "in a field",
            "/".to_owned(),
            vec![("x-jwt-token", format!("Value {good}"))],
            Ok(true),
        ),
        (
            "in a field by another prefix",
            "/".to_owned(),
            vec![("x-jwt-token", format!("value {good}"))],
            Ok(false),
        ),
        (
            "in two lines",
            "/".to_owned(),
            vec![
                ("x-jwt-token", format!("Value {good}")),
                ("x-jwt-token", format!("Value {over}")),
            ],
            Err(()),
        ),
        (
            "in another field",
            "/".to_owned(),
            vec![("authorization", format!("Bearer {good}"))],
            Ok(false),
        ),
        (
            "in a cookie",
            "/".to_owned(),
            vec![("cookie", format!("a=b; jwt={good}"))],
            Ok(true),
        ),
        (
            "in two cookies",
            "/".to_owned(),
            vec![("cookie", format!("jwt={good}; jwt={over}"))],
            Err(()),
        ),
    ] {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let judged = judge(&set, &parts(&target, &headers));
        let said = judged.map(|a| a.token.is_some()).map_err(|refused| {
            assert_eq!(refused.invalid, Invalid::Expired, "{name}");
        });
        assert_eq!(said, want, "{name}");
    }
}

#[test]
fn programs_see_what_the_rule_says_and_nothing_that_clients_say_instead() {
    let signer = Signer::new("ES256", None);
    let told = |header: &'static str, claim: &str| ClaimHeader {
        header: HeaderName::from_static(header),
        claim: Arc::from(claim),
    };
    let usual = JwtRule {
        payload_header: Some(HeaderName::from_static("x-payload")),
        claim_headers: vec![
            told("x-text", "nested.key"),
            told("x-number", "n"),
            told("x-truth", "t"),
            told("x-float", "f"),
            told("x-list", "list"),
            told("x-odd", "odd"),
            told("x-none", "nested.none.deeper"),
        ],
        locations: [Location::usual(), vec![Location::Cookie(Arc::from("jwt"))]].concat(),
        ..rule("i", &jwks(&[signer.jwk()]))
    };
    let claims = json!({"iss": "i", "sub": "s", "nested": {"key": "v"}, "n": -7, "t": true, "f": 1.5,
        "list": ["a"], "odd": "a\r\nx-evil: 1"});
    let token = signer.token("ES256", &claims);
    let payload = token.split('.').nth(1).unwrap();
    let bearer = format!("Bearer {token}");
    let cookie = format!("jwt={token}");
    let target = format!("/a?b=1&access_token={token}&c=%20");
    let sent = [
        ("authorization", bearer.as_str()),
        ("cookie", &cookie),
        ("x-text", "evil"),
        ("x-none", "evil"),
        ("x-odd", "evil"),
        ("x-payload", "evil"),
        ("x-other", "mine"),
    ];
    for forward in [false, true] {
        let set = set(vec![JwtRule {
            forward_original_token: forward,
            ..usual.clone()
        }]);
        let mut parts = parts(&target, &sent);
        judge(&set, &parts).unwrap().changes.apply(&mut parts);
        let seen = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap());
        for (name, want) in [
            ("x-text", Some("v")),
            ("x-number", Some("-7")),
            ("x-truth", Some("true")),
            ("x-float", None),
            ("x-list", None),
            ("x-odd", None),
            ("x-none", None),
            ("x-evil", None),
            ("x-payload", Some(payload)),
            ("x-other", Some("mine")),
            (COOKIE.as_str(), Some(&*cookie)),
            (AUTHORIZATION.as_str(), Some(&*bearer).filter(|_| forward)),
        ] {
            assert_eq!(seen(name), want, "{name}, forward: {forward}");
        }
        let want = if forward { &target } else { "/a?b=1&c=%20" };
        assert_eq!(parts.uri.to_string(), want);
    }
    // Nobody is told anything without a token, or before a browser may ask.
    let set = set(vec![usual]);
    let mut none = parts("/", &[("x-text", "evil"), ("x-other", "mine")]);
    judge(&set, &none).unwrap().changes.apply(&mut none);
    assert_eq!(none.headers.len(), 1, "{:?}", none.headers);
}

#[test]
fn the_last_parameter_leaves_no_question_mark() {
    let signer = Signer::new("ES256", None);
    let set = set(vec![rule("i", &jwks(&[signer.jwk()]))]);
    let token = signer.token("ES256", &json!({"iss": "i"}));
    for target in ["/a", "http://host:80/a"] {
        let mut parts = parts(&format!("{target}?access_token={token}"), &[]);
        judge(&set, &parts).unwrap().changes.apply(&mut parts);
        assert_eq!(parts.uri.to_string(), target);
    }
}

#[test]
fn browsers_ask_without_a_token() {
    let set = set(vec![rule("i", &jwks(&[]))]);
    let asks = [
        ("authorization", "Bearer no.such.token"),
        ("origin", "https://a"),
        ("access-control-request-method", "GET"),
    ];
    for (name, method, headers, want) in [
        ("a preflight", Method::OPTIONS, &asks[..], true),
        ("no origin", Method::OPTIONS, &asks[..1], false),
        ("no question", Method::OPTIONS, &asks[..2], false),
        ("another method", Method::GET, &asks[..], false),
    ] {
        let mut parts = parts("/", headers);
        parts.method = method;
        assert_eq!(judge(&set, &parts).is_ok(), want, "{name}");
    }
}

#[test]
fn keys_from_elsewhere_are_asked_for_last() {
    /// Counts, and has no keys.
    struct Asked(Cell<u32>);
    impl Keyring for Asked {
        fn verify(&self, _source: &Remote, _jwt: &Jwt<'_>) -> Result<(), Invalid> {
            self.0.set(self.0.get() + 1);
            Err(Invalid::NoKeys)
        }
    }
    let signer = Signer::new("ES256", None);
    let set = set(vec![JwtRule {
        keys: KeySource::Remote(Remote {
            at: RemoteAt::Uri(Arc::from("https://keys")),
            timeout: Duration::from_secs(5),
        }),
        ..rule("i", "")
    }]);
    for (claims, want, asked) in [
        (json!({"iss": "i"}), Invalid::NoKeys, 1),
        (json!({"iss": "i", "exp": 1}), Invalid::Expired, 0),
        (json!({"iss": "other"}), Invalid::Issuer, 0),
    ] {
        let bearer = format!("Bearer {}", signer.token("ES256", &claims));
        let parts = parts("/", &[("authorization", &bearer)]);
        let request = Request {
            method: &parts.method,
            headers: &parts.headers,
            query: None,
        };
        let ring = Asked(Cell::new(0));
        let refused = set.judge(&request, NOW, &ring).unwrap_err();
        assert_eq!((refused.invalid, ring.0.get()), (want, asked), "{claims}");
    }
}

#[test]
fn keys_that_do_not_read_believe_nobody() {
    let signer = Signer::new("ES256", None);
    let token = signer.token("ES256", &json!({"iss": "i"}));
    let set = set(vec![rule("i", "no keys")]);
    assert_eq!(said_of(&set, &token), Some(Invalid::NoKeys));
}

#[test]
fn tokens_carry_their_claims_on() {
    let signer = Signer::new("ES256", None);
    let set = set(vec![JwtRule {
        issuer: None,
        space_delimited: vec![Arc::from("groups")],
        ..rule("", &jwks(&[signer.jwk()]))
    }]);
    let claims = json!({"iss": "anybody", "sub": "s", "groups": "a b"});
    let bearer = format!("Bearer {}", signer.token("ES256", &claims));
    let admitted = judge(&set, &parts("/", &[("authorization", &bearer)])).unwrap();
    let want: Map<_, _> = claims.as_object().unwrap().clone();
    let token = admitted.token.unwrap();
    assert_eq!((&*token.issuer, &*token.subject), ("anybody", "s"));
    assert_eq!(token.claims, want);
    assert_eq!(token.spaced.as_ref(), [Arc::from("groups")]);
}
