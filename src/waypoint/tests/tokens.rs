//! Tokens, and the keys that they are believed by.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderValue, Method, Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::http::{Http1, Text, get, read};
use super::program::Shop;
use crate::hbone::testing::eventually;
use crate::model::attached::PolicyKey;
use crate::model::authentication::Authentication;
use crate::model::authentication::testing::{Signer, jwks};
use crate::model::declaration::{JwtRule, KeySource, Location, Origin, Remote, RemoteAt};
use crate::model::testing::key;
use crate::model::waypoint::Resources;
use crate::waypoint::testing::Rig;
use crate::waypoint::testing::told::told;

/// Where the issuer's keys are, to the mesh.
const KEYS: &str = "http://10.0.0.9/keys";

fn rule(keys: KeySource) -> JwtRule {
    JwtRule {
        line: 7,
        issuer: Some(Arc::from("i")),
        audiences: Vec::new(),
        keys,
        locations: Location::usual(),
        forward_original_token: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

fn elsewhere(uri: &str) -> JwtRule {
    rule(KeySource::Remote(Remote {
        at: RemoteAt::Uri(Arc::from(uri)),
        timeout: Duration::from_secs(2),
    }))
}

impl Resources {
    /// The same, and `cart` believes tokens.
    fn believing(mut self, rules: Vec<JwtRule>) -> Self {
        let policy = Authentication {
            key: PolicyKey {
                namespace: Arc::from("shop"),
                name: Arc::from("jwt"),
            },
            origin: Origin {
                file: Arc::from("tokens.toml"),
                line: 1,
            },
            rules,
        };
        self = self.naming();
        let key = policy.key.clone();
        self.authentications.insert(key, Arc::new(policy));
        self
    }

    /// The same, and `cart` has something attached that it may not be told of.
    fn naming(mut self) -> Self {
        let cart = self.services.get_mut(&key("cart")).unwrap();
        Arc::make_mut(cart).set.authentications = vec![PolicyKey {
            namespace: Arc::from("shop"),
            name: Arc::from("jwt"),
        }];
        self
    }
}

/// Publishes keys, and counts who asks.
#[derive(Clone, Default)]
struct Publisher {
    keys: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Publisher {
    async fn of(rig: &mut Rig, signers: &[&Signer]) -> Self {
        let publisher = Self::default();
        publisher.publish(signers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        rig.connector.map("10.0.0.9:80".parse().unwrap(), at);
        let serving = publisher.clone();
        rig.run(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let _read = stream.read(&mut request).await;
                serving.asked.fetch_add(1, Ordering::Relaxed);
                let keys = serving.keys.lock().unwrap().clone();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", keys.len());
                let _gone = stream.write_all((head + &keys).as_bytes()).await;
            }
        });
        publisher
    }

    fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        *self.keys.lock().unwrap() = jwks(&keys);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn token(signer: &Signer) -> String {
    signer.token("ES256", &json!({"iss": "i", "sub": "s"}))
}

fn bearing(token: &str) -> Request<Text> {
    let mut request = get("/a?b=c");
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    request.headers_mut().insert("authorization", bearer);
    request
}

async fn answered(client: &mut Http1, request: Request<Text>) -> (u16, String) {
    let answer = client.send(request).await;
    (answer.status().as_u16(), read(answer.into_body()).await)
}

#[tokio::test]
async fn a_key_that_is_not_known_is_asked_for_at_once_and_then_not_for_a_while() {
    let [old, new, none] = ["old", "new", "none"].map(|kid| Signer::new("ES256", Some(kid)));
    let mut shop = Shop::new(told()).await;
    let publisher = Publisher::of(&mut shop.rig, &[&old]).await;
    shop.tell(told().believing(vec![elsewhere(KEYS)])).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(
        answered(&mut client, bearing(&token(&old))).await,
        (200, "cart".to_owned())
    );
    let seen = shop.cart.last();
    assert_eq!(
        (seen.header("authorization"), &*seen.target),
        (None, "/a?b=c")
    );
    assert_eq!(publisher.asked(), 1, "before anybody had a token");
    publisher.publish(&[&new]);
    assert_eq!(answered(&mut client, bearing(&token(&new))).await.0, 200);
    assert_eq!(publisher.asked(), 2);
    let unknown = "Jwks doesn't have key to match kid or alg from Jwt".to_owned();
    for signer in [&none, &old, &none] {
        let said = answered(&mut client, bearing(&token(signer))).await;
        assert_eq!(said, (401, unknown.clone()));
    }
    assert_eq!(publisher.asked(), 2, "not again so soon");
    assert_eq!(shop.rig.metric("lateen_jwks_fetches_total", "success"), 2);
}

#[tokio::test]
async fn forgeries_by_a_known_name_do_not_have_keys_asked_for() {
    let signer = Signer::new("ES256", Some("k"));
    let forger = Signer::new("ES256", Some("k"));
    let mut shop = Shop::new(told()).await;
    let publisher = Publisher::of(&mut shop.rig, &[&signer]).await;
    shop.tell(told().believing(vec![elsewhere(KEYS)])).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(answered(&mut client, bearing(&token(&signer))).await.0, 200);
    let said = answered(&mut client, bearing(&token(&forger))).await;
    assert_eq!(said, (401, "Jwt verification fails".to_owned()));
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn without_keys_no_token_is_believed_and_nobody_needs_one() {
    let signer = Signer::new("ES256", Some("k"));
    let resources = told().believing(vec![elsewhere("http://10.0.0.8/keys")]);
    let mut shop = Shop::new(resources).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(answered(&mut client, get("/")).await.0, 200, "no token");
    let said = answered(&mut client, bearing(&token(&signer))).await;
    assert_eq!(said, (401, "Jwks remote fetch is failed".to_owned()));
    // The mesh names another place: the old one is asked no more.
    let publisher = Publisher::of(&mut shop.rig, &[&signer]).await;
    shop.tell(told().believing(vec![elsewhere(KEYS)])).await;
    assert_eq!(answered(&mut client, bearing(&token(&signer))).await.0, 200);
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn refusals_say_what_was_asked_for() {
    let signer = Signer::new("ES256", Some("k"));
    let inline = rule(KeySource::Inline(Arc::from(jwks(&[signer.jwk()]))));
    let shop = Shop::new(told().believing(vec![inline])).await;
    let mut client = Http1::to(&shop.rig).await;
    let over = signer.token("ES256", &json!({"iss": "i", "exp": 1}));
    let answer = client.send(bearing(&over)).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let challenge = "Bearer realm=\"http://cart/a\", error=\"invalid_token\"";
    assert_eq!(answer.headers()["www-authenticate"], challenge);
    assert_eq!(answer.headers()["content-type"], "text/plain");
    assert_eq!(read(answer.into_body()).await, "Jwt is expired");
    let mut call = bearing(&over);
    *call.method_mut() = Method::POST;
    let grpc = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", grpc);
    let answer = client.send(call).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["grpc-status"], "16");
    assert_eq!(answer.headers()["grpc-message"], "Jwt is expired");
    assert!(shop.cart.asked().is_empty());
}

#[tokio::test]
async fn what_is_attached_and_not_told_lets_nobody_in() {
    let shop = Shop::new(told().naming()).await;
    let mut client = Http1::to(&shop.rig).await;
    let said = answered(&mut client, get("/")).await;
    assert_eq!(said, (403, "RBAC: access denied".to_owned()));
}

#[tokio::test]
async fn keys_count_after_a_restart_until_they_are_too_old() {
    let signer = Signer::new("ES256", Some("k"));
    let mut shop = Shop::new(told()).await;
    let kept = shop.rig.keys().join("shop.wp");
    std::fs::create_dir_all(&kept).unwrap();
    let now = std::time::SystemTime::now();
    let now = crate::clock::seconds(now);
    let mut resources = told();
    for (name, age, want) in [("fresh", 3600, 200), ("old", 25 * 3600, 401)] {
        // Nobody is there to ask.
        let from = format!("http://10.0.0.8/{name}");
        let text = json!({"from": from, "at": now - age, "keys": jwks(&[signer.jwk()])});
        let file = crate::hex::hex(&<sha2::Sha256 as sha2::Digest>::digest(&from));
        let path = kept.join(format!("{file}.json"));
        std::fs::write(&path, text.to_string()).unwrap();
        resources = resources.believing(vec![elsewhere(&from)]);
        shop.tell(resources.clone()).await;
        let mut client = Http1::to(&shop.rig).await;
        let said = answered(&mut client, bearing(&token(&signer))).await;
        assert_eq!(said.0, want, "{name}: {}", said.1);
    }
    eventually("what is named no more is forgotten", || {
        std::fs::read_dir(&kept).unwrap().count() == 1
    })
    .await;
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let (old, new) = (
        Signer::new("ES256", Some("k")),
        Signer::new("ES256", Some("k")),
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    std::fs::write(&path, jwks(&[old.jwk()])).unwrap();
    let uri = format!("file://{}", path.display());
    let shop = Shop::new(told().believing(vec![elsewhere(&uri)])).await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(answered(&mut client, bearing(&token(&old))).await.0, 200);
    let other = dir.path().join("other.json");
    std::fs::write(&other, jwks(&[new.jwk()])).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let reads = || shop.rig.metric("lateen_jwks_fetches_total", "success");
    eventually("it is read again", || reads() > 1).await;
    assert_eq!(answered(&mut client, bearing(&token(&new))).await.0, 200);
    assert_eq!(answered(&mut client, bearing(&token(&old))).await.0, 401);
}
