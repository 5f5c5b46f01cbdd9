//! Request authentications become what they mean.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::mesh;
use crate::model::authentication::Fetching;
use crate::model::declaration::{
    Attachment, ClaimHeader, JwtRule, KeySource, Location, Origin, Remote, RemoteAt,
    RequestAuthentication, TargetKind, TargetRef,
};

const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIuaKvVLlA"}]}"#;

fn rules(rules: &str) -> Vec<JwtRule> {
    let text = format!(
        "[[request-authentication]]\nname = \"jwt\"\nnamespace = \"istio-system\"\ntarget-refs = [{{ kind = \"GatewayClass\", name = \"istio-waypoint\" }}]\n{rules}"
    );
    let mut policies = mesh(&[("a.toml", text)]).request_authentications;
    let policy = policies.pop().unwrap();
    let want = RequestAuthentication {
        origin: Origin {
            file: Arc::from("a.toml"),
            line: 1,
        },
        name: Arc::from("jwt"),
        namespace: Arc::from("istio-system"),
        attachment: Attachment::Targets(vec![TargetRef {
            kind: TargetKind::GatewayClass,
            name: Arc::from("istio-waypoint"),
        }]),
        rules: policy.rules.clone(),
    };
    assert_eq!(policy, want);
    policy.rules
}

fn bare(keys: KeySource) -> JwtRule {
    JwtRule {
        line: 5,
        issuer: Some(Arc::from("https://i")),
        audiences: Vec::new(),
        keys,
        locations: Location::usual(),
        forward_original_token: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

fn remote(at: RemoteAt) -> KeySource {
    let timeout = Duration::from_secs(5);
    KeySource::Remote(Remote { at, timeout })
}

#[test]
fn every_field_of_a_rule_is_taken() {
    let text = r#"
[[request-authentication.jwt-rules]]
issuer = "https://i"
audiences = ["a", "https://b/"]
jwks-uri = "https://i/keys"
timeout = "1500ms"
from-headers = [{ name = "X-Jwt", prefix = "Value " }, { name = "x-bare" }]
from-params = ["token"]
from-cookies = ["jwt"]
forward-original-token = true
output-payload-to-header = "X-Payload"
output-claim-to-headers = [{ header = "x-c", claim = "nested.key" }]
space-delimited-claims = ["groups"]
"#;
    let header = |name: &'static str, prefix: &str| Location::Header {
        name: HeaderName::from_static(name),
        prefix: Arc::from(prefix),
    };
    let want = JwtRule {
        line: 6,
        issuer: Some(Arc::from("https://i")),
        audiences: vec![Arc::from("a"), Arc::from("https://b/")],
        keys: KeySource::Remote(Remote {
            at: RemoteAt::Uri(Arc::from("https://i/keys")),
            timeout: Duration::from_millis(1500),
        }),
        locations: vec![
            header("x-jwt", "Value "),
            header("x-bare", ""),
            Location::Parameter(Arc::from("token")),
            Location::Cookie(Arc::from("jwt")),
        ],
        forward_original_token: true,
        payload_header: Some(HeaderName::from_static("x-payload")),
        claim_headers: vec![ClaimHeader {
            header: HeaderName::from_static("x-c"),
            claim: Arc::from("nested.key"),
        }],
        space_delimited: vec![Arc::from("groups")],
    };
    assert_eq!(rules(text), [want]);
}

#[test]
fn keys_are_where_the_rule_says_or_its_issuer() {
    let at = |uri: &str| remote(RemoteAt::Uri(Arc::from(uri)));
    for (keys, want) in [
        (
            String::new(),
            remote(RemoteAt::Discovery(Arc::from("https://i"))),
        ),
        (
            format!(", jwks = '{KEYS}'"),
            KeySource::Inline(Arc::from(KEYS)),
        ),
        (
            ", jwks-uri = \"http://10.0.0.9:81/k?v=1\"".to_owned(),
            at("http://10.0.0.9:81/k?v=1"),
        ),
        (
            ", jwks-uri = \"file:///etc/keys.json\"".to_owned(),
            at("file:///etc/keys.json"),
        ),
    ] {
        let text = format!("jwt-rules = [{{ issuer = \"https://i\"{keys} }}]");
        assert_eq!(rules(&text), [bare(want)], "{keys}");
    }
    let anybody = JwtRule {
        issuer: None,
        ..bare(at("https://keys"))
    };
    assert_eq!(
        rules("jwt-rules = [{ jwks-uri = \"https://keys\" }]"),
        [anybody]
    );
}

#[test]
fn how_keys_are_got_is_said_for_the_mesh() {
    let said = |text: &str| {
        mesh(&[("a.toml", format!("[mesh]\n{text}"))])
            .settings
            .fetching
    };
    assert_eq!(said(""), Fetching::usual());
    let want = Fetching {
        stale_limit: Duration::from_secs(2 * 3600),
        local_ranges: vec!["127.0.0.0/8".parse().unwrap()],
    };
    let text = "jwks-stale-limit = \"2h\"\njwks-local-ranges = [\"127.0.0.0/8\"]\n";
    assert_eq!(said(text), want);
}

#[test]
fn addresses_of_the_waypoint_itself_are_for_the_mesh_to_allow() {
    let text = "[mesh]\njwks-local-ranges = [\"127.0.0.0/8\"]\n[[request-authentication]]\nname = \"p\"\nnamespace = \"istio-system\"\ntarget-refs = [{ kind = \"GatewayClass\", name = \"istio-waypoint\" }]\njwt-rules = [{ jwks-uri = \"http://localhost/keys\" }]\n";
    assert_eq!(
        mesh(&[("a.toml", text.to_owned())])
            .request_authentications
            .len(),
        1
    );
}
