//! What a waypoint asks of each request besides policies, and what it tells of it: a token, a rate
//! limit, the context of a trace, a line of the access log.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::Criterion;
use http::{HeaderMap, HeaderValue, Method};
use lateen::model::attached::PolicyKey;
use lateen::model::authentication::{Authentication, Invalid, Jwt, Keyring, Request, Set};
use lateen::model::declaration::{JwtRule, KeySource, Location, Origin, Remote};
use lateen::model::expression::Expression;
use lateen::model::limit::{Buckets, Rate};
use lateen::model::log_format::{Layout, LogFormat};
use lateen::model::telemetry::{Facts, Request as Asked, Response};
use lateen::telemetry::trace::{Propagation, SpanContext};
use serde_json::{Value, json};

use crate::clock::Clock;

/// When tokens are judged, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    tokens(c);
    limits(c);
    traces(c);
    logs(c);
}

/// All keys are in the rule.
struct Nobody;

impl Keyring for Nobody {
    fn verify(&self, _source: &Remote, _jwt: &Jwt<'_>) -> Result<(), Invalid> {
        Err(Invalid::NoKeys)
    }
}

fn tokens(c: &mut Criterion<Clock>) {
    let mut group = c.benchmark_group("token");
    for (name, (jwk, token)) in [("es256", es256()), ("rs256", rs256())] {
        let set = Set::new([Arc::new(believing(&jwk))], None);
        let mut headers = HeaderMap::new();
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        headers.insert(http::header::AUTHORIZATION, bearer.expect("a field"));
        let request = Request {
            method: &Method::GET,
            headers: &headers,
            query: None,
        };
        let judged = set.judge(&request, NOW, &Nobody);
        assert!(judged.is_ok_and(|admitted| admitted.token.is_some()));
        group.bench_function(name, |b| {
            b.iter(|| set.judge(black_box(&request), NOW, &Nobody));
        });
    }
    group.finish();
}

fn believing(jwk: &Value) -> Authentication {
    Authentication {
        key: PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from("tokens"),
        },
        origin: Origin {
            file: Arc::from("shop.toml"),
            line: 1,
        },
        rules: vec![JwtRule {
            line: 1,
            issuer: Some(Arc::from("issuer-1")),
            audiences: vec![Arc::from("cart")],
            keys: KeySource::Inline(Arc::from(json!({ "keys": [jwk] }).to_string())),
            locations: Location::usual(),
            forward_original_token: false,
            payload_header: None,
            claim_headers: Vec::new(),
            space_delimited: Vec::new(),
        }],
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What is signed of a token.
fn said(algorithm: &str) -> String {
    let header = json!({ "alg": algorithm, "kid": "k", "typ": "JWT" });
    let claims = json!({
        "iss": "issuer-1", "sub": "sub-1", "aud": "cart", "exp": NOW + 600, "iat": NOW,
        "groups": ["reader", "writer"], "scope": "read write",
    });
    let (header, claims) = (header.to_string(), claims.to_string());
    format!("{}.{}", encoded(header), encoded(claims))
}

fn es256() -> (Value, String) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    let (x, y) = point[1..].split_at(32);
    let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k", "x": encoded(x), "y": encoded(y) });
    let said = said("ES256");
    let signature = pair.sign(&SystemRandom::new(), said.as_bytes());
    let signature = encoded(signature.expect("a signature"));
    (jwk, format!("{said}.{signature}"))
}

fn rs256() -> (Value, String) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public = pair.public_key();
    let n = encoded(public.modulus().big_endian_without_leading_zero());
    let e = encoded(public.exponent().big_endian_without_leading_zero());
    let said = said("RS256");
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    let signed = pair.sign(&RSA_PKCS1_SHA256, &random, said.as_bytes(), &mut signature);
    signed.expect("a signature");
    let jwk = json!({ "kty": "RSA", "kid": "k", "n": n, "e": e });
    (jwk, format!("{said}.{}", encoded(signature)))
}

/// One of ten thousand clients at a time.
fn limits(c: &mut Criterion<Clock>) {
    let rate = Rate::new(1_000, Duration::from_secs(1), 1_000).expect("a rate");
    let mut buckets = Buckets::new(100_000);
    let (mut subject, mut now) = (0_u64, Duration::ZERO);
    c.bench_function("limit/take", |b| {
        b.iter(|| {
            subject = (subject + 0x9e37_79b9_7f4a_7c15) % 10_000;
            now += Duration::from_micros(1);
            let bucket = buckets.of(black_box(subject), rate, now);
            bucket.map(|bucket| bucket.take(rate, now))
        });
    });
}

/// A request's own context, and that of the one that goes on.
fn traces(c: &mut Criterion<Clock>) {
    let mut headers = HeaderMap::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.insert("traceparent", HeaderValue::from_static(parent));
    let propagation = Propagation::W3c;
    c.bench_function("trace/pass-on", |b| {
        b.iter(|| {
            let incoming = propagation.read(black_box(&headers));
            let span = SpanContext::within(incoming, |_trace| true).child();
            let mut onward = HeaderMap::with_capacity(4);
            propagation.write(&mut onward, &span);
            onward
        });
    });
}

fn logs(c: &mut Criterion<Clock>) {
    let mut asked = HeaderMap::new();
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.9"),
        ("x-request-id", "0022a763-0543-4096-85ef-87728e35bd01"),
        ("user-agent", "curl/8.5.0"),
    ] {
        asked.insert(name, HeaderValue::from_static(value));
    }
    let told = HeaderMap::new();
    let facts = Facts {
        started: UNIX_EPOCH + Duration::from_secs(NOW),
        took: Duration::from_micros(9_876),
        peer: Some("spiffe://cluster.local/ns/shop/sa/web"),
        request: Some(Asked {
            method: "GET",
            target: "/cart?x=1",
            authority: "echo",
            scheme: "http",
            protocol: "HTTP/1.1",
            headers: &asked,
            head: 200,
        }),
        response: Some(Response {
            code: 200,
            grpc_status: None,
            headers: &told,
            trailers: None,
            head: 100,
        }),
        route: Some("shop.echo.0"),
        received: 3,
        sent: 400,
        ..Facts::of_connection(([10, 1, 0, 1], 4711).into(), ([10, 96, 0, 20], 80).into())
    };
    let mut group = c.benchmark_group("log");
    let mut line = String::new();
    for (name, format) in [("text", LogFormat::text()), ("json", LogFormat::json())] {
        let layout = Layout {
            format,
            omit_empty: false,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                line.clear();
                layout.write(black_box(&facts), &mut line);
            });
        });
    }
    let filter = Expression::parse("response.code >= 400 || request.method == \"POST\"");
    let filter = filter.expect("an expression");
    group.bench_function("filter", |b| {
        b.iter(|| filter.holds(black_box(&facts)));
    });
    group.finish();
}
