//! Policies that are only tried go to who knows of such (`spec/control-plane.md` §3.4 rule 7): for
//! anybody else they would be enforced.

use super::tests::{ask, node};
use super::*;
use crate::control::revision::Content;
use crate::control::revision::tests::{compiled, title};
use crate::model::compile::sample;
use crate::model::declaration::{Action, Attachment, AuthorizationPolicy, Origin};
use crate::wire::proto::discovery::Resource;
use prost::Message as _;

fn deny(name: &str, dry_run: bool) -> AuthorizationPolicy {
    AuthorizationPolicy {
        origin: Origin {
            file: Arc::from("shop.toml"),
            line: 1,
        },
        name: Arc::from(name),
        namespace: Arc::from("shop"),
        attachment: Attachment::Namespace,
        action: Action::Deny,
        dry_run,
        rules: Vec::new(),
    }
}

fn revision(number: u64, policies: &[(&str, bool)], before: Option<&Revision>) -> Arc<Revision> {
    let mut mesh = sample::mesh();
    let policies = policies.iter().map(|(name, dry_run)| deny(name, *dry_run));
    mesh.authorization_policies = policies.collect();
    let content = Content::encode(&Arc::new(compiled(&mesh)), before.map(Revision::content));
    Arc::new(Revision::new(title(number), content, before))
}

fn running(key: &str, version: &str) -> Node {
    let mut node = node("edge-1");
    let version = prost_types::Value {
        kind: Some(Value::StringValue(version.to_owned())),
    };
    let metadata = node.metadata.as_mut().unwrap();
    metadata.fields.insert(key.to_owned(), version);
    node
}

/// What the next answer brings and takes.
fn answer(session: &mut Session, nonce: u128) -> Option<(Vec<String>, Vec<String>)> {
    let response = session.next_response(Instant::now(), nonce)?;
    let name = |encoded: &bytes::Bytes| Resource::decode(encoded.clone()).unwrap().name;
    let names = response.resources.iter().map(name).collect();
    let removed = response.removed_resources.iter().map(ToString::to_string);
    let ack = DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        ..ask(Kind::Authorization)
    };
    session.request(ack).unwrap();
    Some((names, removed.collect()))
}

#[test]
fn only_who_knows_them_is_told() {
    let first = revision(1, &[("real", false), ("trial", true)], None);
    let second = revision(2, &[("real", true), ("trial", true)], Some(&first));
    let third = revision(3, &[("real", true), ("trial", false)], Some(&second));
    let own = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("shop/{name}")).collect()
    };
    for (name, client, knows) in [
        ("says nothing", node("edge-1"), false),
        ("stock, before", running(ISTIO_VERSION, "1.28.4"), false),
        ("stock, since", running(ISTIO_VERSION, "1.29.0"), true),
        ("stock, to be", running(ISTIO_VERSION, "1.30-dev"), true),
        ("stock, a fork", running(ISTIO_VERSION, "unknown"), false),
        ("ours", running(LATEEN_VERSION, "0.1.0"), true),
    ] {
        let who = Who::Node(Arc::from("edge-1"));
        let open = Session::open(who, Some(&client), Arc::clone(&first), Chunk::default());
        let mut session = open.unwrap();
        session.request(ask(Kind::Authorization)).unwrap();
        let told = answer(&mut session, 1).unwrap();
        let all: &[&str] = if knows { &["real", "trial"] } else { &["real"] };
        assert_eq!(told, (own(all), Vec::new()), "{name}");
        session.advance(Arc::clone(&second)).unwrap();
        let told = answer(&mut session, 2).unwrap();
        let want = match knows {
            true => (own(&["real"]), Vec::new()),
            false => (Vec::new(), own(&["real"])),
        };
        assert_eq!(told, want, "{name}: one becomes a trial");
        session.advance(Arc::clone(&third)).unwrap();
        let told = answer(&mut session, 3).unwrap();
        assert_eq!(told, (own(&["trial"]), Vec::new()), "{name}: one is meant");
    }
}
