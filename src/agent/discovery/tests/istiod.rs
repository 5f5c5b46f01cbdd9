//! Another's control plane: what it is told, what is taken from it, and what is not.

use std::net::IpAddr;
use std::time::Instant;

use super::*;
use crate::agent::channel::Who;
use crate::agent::guest::{Guest, LocalCapture};
use crate::agent::issuer::{ControlIssuer, IssueError, Issuer as _};
use crate::agent::keep::certs::Shelf;
use crate::agent::scripted::{self, NODE, Script, Scripted, policy, policy_of, resource};
use crate::model::declaration::Capture;
use crate::model::policy::{Denial, Request, Verdict};
use crate::model::testing::workload;
use crate::tls::testing::TestCa;
use crate::tls::to_pem;
use crate::wire::proto::discovery::{DeltaDiscoveryRequest, Resource};
use crate::wire::proto::security::Scope;
use crate::wire::{ADDRESS, AUTHORIZATION};
use prost_types::value::Kind;

/// A node's files, and its control planes.
struct Files {
    directory: TempDir,
    controls: Controls,
}

fn files(ca: &TestCa, urls: &[&str], server_name: Option<&str>) -> Files {
    let directory = tempfile::tempdir().unwrap();
    let guest = Guest {
        node: Arc::from(NODE),
        token_file: directory.path().join("token"),
        root_file: directory.path().join("root.pem"),
        server_name: server_name.map(Arc::from),
        cluster_id: Arc::from("east"),
        captures: vec![LocalCapture {
            namespace: Arc::from("shop"),
            name: Arc::from("cart"),
            capture: Capture::Netns(Arc::from("cart-ns")),
        }],
    };
    std::fs::write(&guest.token_file, "first\n").unwrap();
    std::fs::write(&guest.root_file, to_pem(&ca.root)).unwrap();
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    Files {
        directory,
        controls: Controls::new(urls, Who::Guest(Arc::new(guest))),
    }
}

fn script(addresses: Vec<Resource>, policies: &[&str]) -> Script {
    let policies = policies.iter().map(|name| policy(name)).collect();
    Script {
        resources: [(ADDRESS, addresses), (AUTHORIZATION, policies)].into(),
        ..Script::default()
    }
}

fn told(request: &DeltaDiscoveryRequest, key: &str) -> String {
    let metadata = request.node.as_ref().unwrap().metadata.as_ref().unwrap();
    match &metadata.fields[key].kind {
        Some(Kind::StringValue(text)) => text.clone(),
        other => panic!("{key}: {other:?}"),
    }
}

#[tokio::test]
async fn it_is_followed_as_a_stock_proxy_would() {
    let ca = TestCa::new();
    let mut elsewhere = workload("web", &["10.0.0.2"]);
    elsewhere.node = Arc::from("edge-2");
    // One of the same name on another node is none of ours.
    elsewhere.name = Arc::from("cart");
    let cart = workload("cart", &["10.0.0.1"]);
    let sent = vec![resource(&cart, "v1"), resource(&elsewhere, "v1")];
    let mut istiod = Scripted::istiod(&ca, script(sent, &["shop/p"])).await;
    let files = files(&ca, &[&istiod.url], None);
    let mut client = Client::start(files.controls.clone(), brisk(), Vec::new());
    client.connects(&istiod.url).await;
    let state = client
        .sees("a view", |mesh| mesh.view.size() == (2, 0))
        .await;
    let placed: Vec<_> = state
        .placements
        .iter()
        .map(|p| (&*p.uid, p.enrolled))
        .collect();
    assert_eq!(placed, [("cart", true)], "as lateen.toml says");
    let capture = state.placements[0].capture.as_ref();
    assert_eq!(capture, Some(&Capture::Netns(Arc::from("cart-ns"))));

    let heard = istiod.hears("both answered", |h| h.acks.len() == 2).await;
    let asked: Vec<_> = heard.first.iter().map(|r| r.type_url.as_str()).collect();
    assert_eq!(asked, [ADDRESS, AUTHORIZATION]);
    assert_eq!(heard.certified, 0, "no certificate is shown");
    let first = (Some("Bearer first".to_owned()), Some("east".to_owned()));
    assert_eq!(heard.credentials, [first]);
    let id = &heard.first[0].node.as_ref().unwrap().id;
    let parts: Vec<_> = id.split('~').collect();
    assert_eq!((parts.len(), parts[0]), (4, "ztunnel"));
    assert!(parts[1].parse::<IpAddr>().unwrap().is_loopback());
    for (key, want) in [
        ("NODE_NAME", NODE),
        ("NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "ztunnel"),
        ("INSTANCE_IPS", parts[1]),
        ("CLUSTER_ID", "east"),
    ] {
        assert_eq!(told(&heard.first[0], key), want, "{key}");
    }

    // It ends for its age; meanwhile the token was renewed and a workload went.
    istiod.stop().await;
    std::fs::write(files.directory.path().join("token"), "second").unwrap();
    istiod.rewrite(|script| {
        script.resources.get_mut(ADDRESS).unwrap().pop();
    });
    istiod.resume().await;
    client
        .sees("the change", |mesh| mesh.view.size() == (1, 0))
        .await;
    let again = |h: &scripted::Heard| {
        let known = |r: &DeltaDiscoveryRequest| r.initial_resource_versions.len();
        h.first.iter().skip(2).map(known).eq([2, 1])
    };
    let heard = istiod.hears("what is held", again).await;
    let token = heard.credentials.last().unwrap().0.as_deref();
    assert_eq!(token, Some("Bearer second"));
    istiod.hears("policies again", |h| h.acks.len() == 4).await;
}

#[tokio::test]
async fn what_is_named_here_is_captured_whether_the_view_has_it_or_not() {
    let ca = TestCa::new();
    let cart = vec![resource(&workload("cart", &["10.0.0.1"]), "v1")];
    let mut istiod = Scripted::istiod(&ca, script(Vec::new(), &[])).await;
    istiod.stop().await;
    let files = files(&ca, &[&istiod.url], None);
    let mut client = Client::start(files.controls.clone(), brisk(), Vec::new());
    let placed = |uid: &'static str| {
        move |mesh: &MeshState| {
            let placed = mesh.placements.iter().filter(|p| p.enrolled);
            placed.map(|p| &*p.uid).eq([uid])
        }
    };
    let nobody = "lateen.toml/shop/cart";
    client.sees("with nobody there", placed(nobody)).await;
    istiod.resume().await;
    client.connects(&istiod.url).await;
    assert!(placed(nobody)(&client.mesh.borrow()), "not in the view");
    istiod.rewrite(|script| {
        script.resources.insert(ADDRESS, cart);
    });
    istiod.push(ADDRESS);
    client.sees("in the view", placed("cart")).await;
    istiod.stop().await;
    istiod.rewrite(|script| {
        script.resources.insert(ADDRESS, Vec::new());
    });
    istiod.resume().await;
    let gone = |mesh: &MeshState| mesh.view.size() == (0, 0);
    let state = client.sees("gone from the view", gone).await;
    assert!(placed("cart")(&state), "as it was known last");
}

#[tokio::test]
async fn streams_that_end_well_are_no_reason_to_hurry() {
    let ca = TestCa::new();
    let ends = Script {
        ends: true,
        ..Script::default()
    };
    let istiod = Scripted::istiod(&ca, ends).await;
    let files = files(&ca, &[&istiod.url], None);
    let timing = Timing {
        dice: || 0.5,
        ..Timing::default()
    };
    let begun = Instant::now();
    let mut client = Client::start(files.controls.clone(), timing, Vec::new());
    istiod.hears("six attempts", |h| h.streams == 6).await;
    // 25, 50, 100, 200 and 400 ms; the pure test counts the rest of the five seconds.
    assert!(begun.elapsed() >= Duration::from_millis(775));
    let link = client.links("told", |link| link.error.is_some()).await;
    assert!(link.error.unwrap().contains("closed the stream"));
    assert!(link.stale.is_some() && !link.viewed);
}

#[tokio::test]
async fn one_bad_workload_among_a_hundred_is_named_and_the_rest_applied() {
    let ca = TestCa::new();
    let all = |version: &str| -> Vec<Resource> {
        let one = |n: u32| {
            let mut of = workload(&format!("w{n}"), &[]);
            of.capacity = version.len().try_into().unwrap();
            resource(&of, version)
        };
        (0..100).map(one).collect()
    };
    let istiod = Scripted::istiod(&ca, script(all("1"), &[])).await;
    let files = files(&ca, &[&istiod.url], None);
    let mut client = Client::start(files.controls.clone(), brisk(), Vec::new());
    client
        .sees("all", |mesh| mesh.view.size() == (100, 0))
        .await;
    istiod.rewrite(|script| {
        let mut next = all("22");
        next[41].resource.as_mut().unwrap().value = vec![0xff];
        script.resources.insert(ADDRESS, next);
    });
    istiod.push(ADDRESS);
    let heard = istiod.hears("a refusal", |h| h.nacks.len() == 1).await;
    let (of, why) = &heard.nacks[0];
    assert_eq!(of, ADDRESS);
    assert!(why.contains("w41") && !why.contains("w42"), "{why}");
    let renewed = |mesh: &MeshState| {
        let capacity = |n| mesh.view.workload(&format!("w{n}")).map(|w| w.capacity);
        (0..100).all(|n| capacity(n) == Some(if n == 41 { 1 } else { 2 }))
    };
    client.sees("99 new, one as it was", renewed).await;
    assert!(client.link.borrow().connected.is_some(), "and it goes on");
    let refused = client.link.borrow().refused.clone().unwrap();
    assert!(refused.reason.contains("w41"), "{refused:?}");
    istiod.rewrite(|script| {
        script.resources.insert(ADDRESS, all("333"));
    });
    istiod.push(ADDRESS);
    let mended = |link: &Link| link.refused.is_none();
    let link = client.links("all of it understood", mended).await;
    assert_eq!(link.refusals, 1, "and not forgotten");
}

fn asked(mesh: &MeshState) -> Verdict {
    let cart = mesh.view.workload("cart").unwrap();
    let to = (cart.addresses[0], 80).into();
    let request = Request::new(None, Some([10, 0, 0, 9].into()), to);
    mesh.view.policies().guard(cart).judge(&request)
}

#[tokio::test]
async fn a_workload_whose_policy_is_not_there_is_closed() {
    let ca = TestCa::new();
    let mut cart = workload("cart", &["10.0.0.1"]);
    cart.authorization_policies = vec![Arc::from("shop/p")];
    let istiod = Scripted::istiod(&ca, script(vec![resource(&cart, "v1")], &[])).await;
    let files = files(&ca, &[&istiod.url], None);
    let mut client = Client::start(files.controls.clone(), brisk(), Vec::new());
    client.connects(&istiod.url).await;
    let refused = asked(&client.mesh.borrow());
    assert!(matches!(refused, Verdict::Denied(Denial::Missing(_))));
}

#[tokio::test]
async fn nothing_is_seen_before_its_policies_and_those_of_all_close_it() {
    let ca = TestCa::new();
    let cart = workload("cart", &["10.0.0.1"]);
    let mut unanswered = script(vec![resource(&cart, "v1")], &[]);
    unanswered.resources.remove(AUTHORIZATION);
    let istiod = Scripted::istiod(&ca, unanswered).await;
    let files = files(&ca, &[&istiod.url], None);
    let mut client = Client::start(files.controls.clone(), brisk(), Vec::new());
    let taken = |h: &scripted::Heard| h.acks.iter().any(|of| of == ADDRESS);
    istiod.hears("the workloads taken", taken).await;
    assert_eq!(client.mesh.borrow().view.size(), (0, 0));
    assert!(client.link.borrow().connected.is_none(), "not whole yet");
    let wide = policy_of("shop/p", "shop", Scope::Namespace);
    istiod.rewrite(|script| {
        script.resources.insert(AUTHORIZATION, vec![wide]);
    });
    istiod.push(AUTHORIZATION);
    let link = client.connects(&istiod.url).await;
    assert!(link.viewed);
    let refused = asked(&client.mesh.borrow());
    let Verdict::Denied(Denial::NotAllowed { first, .. }) = refused else {
        panic!("let in: {refused:?}");
    };
    assert_eq!(&*first.key, "shop/p");
}

#[tokio::test]
async fn the_server_is_known_by_its_name_and_root() {
    let mesh = TestCa::new();
    let other = TestCa::new();
    for (name, signs, certificate, server_name, want) in [
        ("as dialled", &mesh, "localhost", None, None),
        ("as told", &mesh, "istiod.svc", Some("istiod.svc"), None),
        (
            "another name",
            &mesh,
            "istiod.svc",
            None,
            Some("not valid for name"),
        ),
        (
            "not as told",
            &mesh,
            "localhost",
            Some("istiod.svc"),
            Some("not valid for name"),
        ),
        (
            "another root",
            &other,
            "localhost",
            None,
            Some("invalid peer certificate"),
        ),
    ] {
        let tls = scripted::istiod_tls(signs, certificate);
        let istiod = Scripted::start(signs, tls, script(Vec::new(), &[])).await;
        let files = files(&mesh, &[&istiod.url], server_name);
        let mut client = Client::start(files.controls.clone(), brisk(), Vec::new());
        let settled = |link: &Link| link.connected.is_some() || link.error.is_some();
        let link = client.links(name, settled).await;
        match want {
            None => assert!(link.connected.is_some(), "{name}: {link:?}"),
            Some(want) => assert!(link.error.unwrap().contains(want), "{name}"),
        }
    }
}

#[tokio::test]
async fn certificates_are_asked_for_by_the_same_token() {
    let ca = TestCa::new();
    let istiod = Scripted::istiod(&ca, Script::default()).await;
    let files = files(&ca, &[&istiod.url], None);
    let shelf = Shelf::of(files.directory.path(), &[], None);
    let issuer = ControlIssuer::new(files.controls.clone(), Duration::from_secs(60), shelf);
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    // It answers with its roots alone, as one that grants nothing usable does.
    assert!(matches!(issuer.issue(&id).await, Err(IssueError::NoRoots)));
    std::fs::write(files.directory.path().join("token"), "second\n").unwrap();
    assert!(issuer.issue(&id).await.is_err());
    let sent: Vec<_> = istiod
        .heard()
        .credentials
        .into_iter()
        .map(|c| c.0.unwrap())
        .collect();
    assert_eq!(sent, ["Bearer first", "Bearer second"]);
}
