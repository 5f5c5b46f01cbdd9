use super::*;
use crate::control::revision::tests::{compiled, revision};
use crate::model::compile::sample::routes::rerouted;
use crate::model::compile::workload_uid;
use crate::model::compile::{Assignments, Compiled, Observed, Reported, compile, sample};
use crate::model::declaration::Mesh;
use crate::model::workload::{Health, Workload};
use crate::wire::proto::discovery::{Resource as WireResource, Status};
use prost::Message;
use prost_types::{Struct, Value as WireValue};

const CART: &str = "Kubernetes/lateen/Workload/shop/cart-1";
const WEB: &str = "Kubernetes/lateen/Workload/shop/web-1";

pub(super) fn node(name: &str) -> Node {
    let value = WireValue {
        kind: Some(Value::StringValue(name.to_owned())),
    };
    Node {
        id: "ztunnel~1.1.1.1~.~.svc.cluster.local".to_owned(),
        cluster: String::new(),
        metadata: Some(Struct {
            fields: [("NODE_NAME".to_owned(), value)].into(),
        }),
    }
}

pub(super) fn ask(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ask_for(kind: Kind, add: &[&str], drop: &[&str]) -> DeltaDiscoveryRequest {
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    DeltaDiscoveryRequest {
        resource_names_subscribe: owned(add),
        resource_names_unsubscribe: owned(drop),
        ..ask(kind)
    }
}

/// What a test client has on its stream.
struct Client {
    session: Session,
    now: Instant,
    nonce: u128,
    unacked: Vec<(String, String)>,
}

impl Client {
    fn chunked(revision: &Arc<Revision>, resources: usize) -> Self {
        let chunk = Chunk {
            resources,
            ..Chunk::default()
        };
        let edge = Arc::from("edge-1");
        let first = node("edge-1");
        Self {
            session: Session::open(Who::Node(edge), Some(&first), revision.clone(), chunk).unwrap(),
            now: Instant::now(),
            nonce: 0,
            unacked: Vec::new(),
        }
    }

    fn new(revision: &Arc<Revision>) -> Self {
        Self::chunked(revision, usize::MAX)
    }

    /// Sends a request; what comes back before any acknowledgement.
    fn send(&mut self, request: DeltaDiscoveryRequest) -> Vec<String> {
        self.session.request(request).unwrap();
        self.read()
    }

    /// Everything the server says now, one line per response: type, then names, removals with `-`.
    fn read(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            self.nonce += 1;
            let Some(response) = self.session.next_response(self.now, self.nonce) else {
                return lines;
            };
            let pending = (response.type_url.clone(), response.nonce.clone());
            assert!(
                self.unacked.iter().all(|(t, _)| *t != pending.0),
                "one per type"
            );
            self.unacked.push(pending);
            lines.push(line(&response));
        }
    }

    /// Acknowledges everything read so far; what comes back.
    fn ack(&mut self) -> Vec<String> {
        for (type_url, response_nonce) in std::mem::take(&mut self.unacked) {
            let ack = DeltaDiscoveryRequest {
                type_url,
                response_nonce,
                ..DeltaDiscoveryRequest::default()
            };
            self.session.request(ack).unwrap();
        }
        self.read()
    }

    /// Reads and acknowledges until the server is silent.
    fn settle(&mut self) -> Vec<String> {
        let mut all = self.read();
        while !self.unacked.is_empty() {
            all.extend(self.ack());
        }
        all
    }

    fn publish(&mut self, revision: &Arc<Revision>) -> Vec<String> {
        self.session.advance(revision.clone()).unwrap();
        self.read()
    }
}

fn line(response: &Response) -> String {
    let kind = Kind::of(&response.type_url).unwrap();
    let mut line = format!("{kind:?}");
    for resource in &response.resources {
        let resource = WireResource::decode(resource.clone()).unwrap();
        assert_eq!(resource.version.len(), 16);
        let found = kind == Kind::Address;
        assert_eq!(!resource.aliases.is_empty(), found, "{}", resource.name);
        line += &format!(" {}", short(&resource.name));
    }
    for name in &response.removed_resources {
        line += &format!(" -{}", short(name));
    }
    line
}

fn short(name: &str) -> &str {
    let name = name
        .strip_prefix("Kubernetes/lateen/Workload/shop/")
        .unwrap_or(name);
    let name = name.strip_prefix("shop/").unwrap_or(name);
    name.strip_suffix(".shop.mesh.internal").unwrap_or(name)
}

fn start() -> (Compiled, Arc<Revision>) {
    let compiled = compiled(&sample::mesh());
    let first = revision(1, &compiled, &[], None);
    (compiled, first)
}

fn edit(compiled: &Compiled, uid: &str, edit: impl FnOnce(&mut Workload)) -> Compiled {
    let mut edited = compiled.clone();
    let at = edited
        .workloads
        .iter()
        .position(|w| &*w.uid == uid)
        .unwrap();
    let mut workload = (*edited.workloads[at]).clone();
    edit(&mut workload);
    edited.workloads[at] = Arc::new(workload);
    edited
}

/// `cart-1` lists a policy.
fn guarded(compiled: &Compiled) -> Compiled {
    edit(compiled, CART, |w| {
        w.authorization_policies = vec![Arc::from("shop/p")]
    })
}

#[test]
fn opens_only_for_the_node_it_is() {
    let (_, revision) = start();
    let unnamed = Node::default();
    let open = |own: &str, first: Option<&Node>| {
        Session::open(
            Who::Node(Arc::from(own)),
            first,
            revision.clone(),
            Chunk::default(),
        )
        .map(|_| ())
    };
    for (name, own, first, want) in [
        ("itself", "edge-1", Some(node("edge-1")), Ok(())),
        ("no name given", "edge-1", Some(node("")), Ok(())),
        ("no node", "edge-1", None, Err(Refusal::NoNode)),
        ("no id", "edge-1", Some(unnamed), Err(Refusal::NoNode)),
        (
            "another",
            "edge-1",
            Some(node("edge-2")),
            Err(Refusal::OtherNode {
                node: Arc::from("edge-1"),
                claimed: "edge-2".to_owned(),
            }),
        ),
        (
            "undeclared",
            "edge-9",
            Some(node("edge-9")),
            Err(Refusal::UnknownNode {
                node: Arc::from("edge-9"),
            }),
        ),
    ] {
        assert_eq!(open(own, first.as_ref()), want, "{name}");
    }
}

#[test]
fn a_stock_proxy_starts() {
    let (_, revision) = start();
    let mut client = Client::new(&revision);
    assert_eq!(client.send(ask(Kind::Address)), ["Address web-1 cart web"]);
    assert_eq!(
        client.send(ask(Kind::Authorization)),
        ["Authorization"],
        "one empty response"
    );
    assert_eq!(
        client.ack(),
        ["Address cart-1"],
        "its own workloads come last"
    );
    assert!(client.ack().is_empty());
}

#[test]
fn a_client_without_policies_gets_everything() {
    let (_, revision) = start();
    let mut client = Client::new(&revision);
    client.send(ask(Kind::Address));
    assert_eq!(client.ack(), ["Address cart-1"]);
}

#[test]
fn a_snapshot_in_chunks() {
    let compiled = compiled(&sample::large(40, 4));
    let revision = revision(1, &compiled, &["shop/p"], None);
    let mut client = Client::chunked(&revision, 10);
    client.send(ask(Kind::Address));
    client.send(ask(Kind::Authorization));
    let mut kinds = vec!["Address 10".to_owned()];
    while !client.unacked.is_empty() {
        for line in client.ack() {
            let mut words = line.split(' ');
            let kind = words.next().unwrap();
            kinds.push(format!("{kind} {}", words.count()));
        }
    }
    // 36 workloads of other nodes and 4 services; then the policy; then 4 own workloads.
    let want = [
        "Address 10",
        "Address 10",
        "Address 10",
        "Address 10",
        "Authorization 1",
        "Address 4",
    ];
    assert_eq!(kinds, want);
}

#[test]
fn an_agent_ends_each_batch_with_the_revision() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    for kind in [Kind::Address, Kind::Authorization, Kind::Placement] {
        client.send(ask(kind));
    }
    assert!(
        client.send(ask(Kind::Revision)).is_empty(),
        "not before the rest"
    );
    assert_eq!(client.settle(), ["Address cart-1", "Revision mesh"]);
    let second = revision(2, &guarded(&compiled), &["shop/p"], Some(&first));
    let want = ["Authorization p", "Address cart-1", "Revision mesh"];
    assert_eq!(client.publish(&second), want);
}

/// The first request of a process of `edge-1` that is these waypoints.
fn being(waypoints: &[&str]) -> Node {
    let mut node = node("edge-1");
    let text = |name: &&str| WireValue {
        kind: Some(Value::StringValue((*name).to_owned())),
    };
    let values = waypoints.iter().map(text).collect();
    let value = WireValue {
        kind: Some(Value::ListValue(prost_types::ListValue { values })),
    };
    let fields = &mut node.metadata.as_mut().unwrap().fields;
    fields.insert("WAYPOINTS".to_owned(), value);
    node
}

#[test]
fn what_waypoints_are_told_is_their_own_and_comes_last() {
    let mut mesh = rerouted();
    let mut second = mesh.gateways[0].clone();
    second.name = Arc::from("other");
    mesh.gateways.push(second);
    let first = revision(1, &compiled(&mesh), &[], None);
    let of_wp = "wp wp/http-route/shop/a wp/service/shop/cart wp/service/shop/web";
    for (name, process, edge, want) in [
        (
            "any of the node",
            node("edge-1"),
            "edge-1",
            format!("Waypoint other {of_wp}"),
        ),
        (
            "one of them",
            being(&["shop/wp"]),
            "edge-1",
            format!("Waypoint {of_wp}"),
        ),
        (
            "one that has nothing",
            being(&["shop/other"]),
            "edge-1",
            "Waypoint other".to_owned(),
        ),
        (
            "one that is elsewhere",
            being(&["shop/w"]),
            "edge-1",
            "Waypoint".to_owned(),
        ),
        (
            "another node",
            node("edge-2"),
            "edge-2",
            "Waypoint".to_owned(),
        ),
    ] {
        let who = Who::Node(Arc::from(edge));
        let session = Session::open(who, Some(&process), first.clone(), Chunk::default());
        let mut client = Client {
            session: session.unwrap(),
            now: Instant::now(),
            nonce: 0,
            unacked: Vec::new(),
        };
        assert_eq!(client.send(ask(Kind::Waypoint)), [want], "{name}");
        client.ack();
        assert_eq!(
            client.send(ask(Kind::Revision)),
            ["Revision mesh"],
            "{name}"
        );
        client.ack();
        // A change of one route is one resource, for who has it, and before its revision.
        let mut changed = mesh.clone();
        changed.routes[0].rules[0].backends[0].weight = 2;
        let second = revision(2, &compiled(&changed), &[], Some(&first));
        let has = ["any of the node", "one of them"].contains(&name);
        let mut want = vec!["Revision mesh"];
        if has {
            want.insert(0, "Waypoint wp/http-route/shop/a");
        }
        assert_eq!(client.publish(&second), want, "{name}");
        client.ack();
        changed.routes.clear();
        let third = revision(3, &compiled(&changed), &[], Some(&second));
        let mut want = vec!["Revision mesh"];
        if has {
            want.insert(0, "Waypoint wp/service/shop/cart -wp/http-route/shop/a");
        }
        assert_eq!(client.publish(&third), want, "{name}");
    }
}

#[test]
fn placements_are_the_nodes_own() {
    let mut mesh = sample::mesh();
    let first = revision(1, &compiled(&mesh), &[], None);
    let mut client = Client::new(&first);
    assert_eq!(client.send(ask(Kind::Placement)), ["Placement cart-1"]);
    client.settle();
    mesh.workloads[0].node = Some(Arc::from("edge-2"));
    let second = revision(2, &compiled(&mesh), &[], Some(&first));
    assert_eq!(client.publish(&second), ["Placement -cart-1"]);
    client.settle();
    mesh.workloads[1].service_account = Arc::from("other");
    let third = revision(3, &compiled(&mesh), &[], Some(&second));
    assert!(
        client.publish(&third).is_empty(),
        "another node's are no concern"
    );
}

#[test]
fn resumes_from_reported_versions() {
    let (_, revision) = start();
    let current = |name: &str| {
        let resources = revision.resources(Kind::Address, "edge-1");
        (name.to_owned(), resources[name].version.to_string())
    };
    let services = [
        "shop/cart.shop.mesh.internal",
        "shop/web.shop.mesh.internal",
    ];
    let all: Vec<_> = [CART, WEB]
        .into_iter()
        .chain(services)
        .map(current)
        .collect();
    let given = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    for (name, held, want) in [
        ("all current", all.clone(), vec!["Address"]),
        (
            "gone, kept, stale, held in no version",
            vec![
                given("gone", "x"),
                current(WEB),
                given(services[0], "0"),
                given(services[1], ""),
            ],
            vec!["Address cart web", "Address cart-1 -gone"],
        ),
        (
            "service deleted while away, workloads held",
            vec![current(CART), current(WEB), current(services[1])],
            vec!["Address cart"],
        ),
    ] {
        let mut client = Client::new(&revision);
        let mut request = ask(Kind::Address);
        request.initial_resource_versions = held.into_iter().collect();
        client.session.request(request).unwrap();
        assert_eq!(client.settle(), want, "{name}");
    }
}

/// Row 19 of §10: what the client holds of a service's workloads was sent while there was none.
#[test]
fn a_service_back_while_away_brings_its_workloads() {
    let without = revision(1, &change(|mesh| drop(mesh.services.remove(0))), &[], None);
    let (_, back) = start();
    let held = without.resources(Kind::Address, "edge-1").values();
    let mut request = ask(Kind::Address);
    request.initial_resource_versions = held
        .map(|r| (r.name.to_string(), r.version.to_string()))
        .collect();
    let mut client = Client::new(&back);
    client.session.request(request).unwrap();
    assert_eq!(client.settle(), ["Address cart", "Address cart-1"]);
}

/// Row 13 of §10, at a tenth of its size.
#[test]
fn one_change_is_one_small_response() {
    let mesh = sample::large(10_000, 500);
    let before = compiled(&mesh);
    let first = revision(1, &before, &[], None);
    let mut client = Client::new(&first);
    client.send(ask(Kind::Address));
    client.settle();
    let uid = before.workloads[77].uid.clone();
    let second = revision(
        2,
        &edit(&before, &uid, |w| w.capacity = 2),
        &[],
        Some(&first),
    );
    client.session.advance(second).unwrap();
    let response = client.session.next_response(client.now, u128::MAX).unwrap();
    assert_eq!(response.resources.len(), 1);
    let size = response.encoded_len();
    assert!(size < 1_024, "{size} bytes");
    assert!(client.session.next_response(client.now, 0).is_none());
}

#[test]
fn acknowledgements() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    client.send(ask(Kind::Address));
    let (type_url, nonce) = client.unacked.pop().unwrap();
    let reply = |nonce: &str, error: Option<&str>| DeltaDiscoveryRequest {
        type_url: type_url.clone(),
        response_nonce: nonce.to_owned(),
        error_detail: error.map(|message| Status {
            message: message.to_owned(),
            ..Status::default()
        }),
        ..DeltaDiscoveryRequest::default()
    };
    let session = &mut client.session;
    assert_eq!(session.request(reply("old", None)).unwrap(), Outcome::Noted);
    assert!(session.waiting_since().is_some(), "still waiting");
    let nacked = Outcome::Nacked {
        kind: Kind::Address,
        message: "x: bad".to_owned(),
    };
    assert_eq!(
        session.request(reply(&nonce, Some("x: bad"))).unwrap(),
        nacked
    );
    assert_eq!(
        session.request(reply(&nonce, None)).unwrap(),
        Outcome::Noted,
        "only once"
    );
    assert_eq!(
        client.read(),
        ["Address cart-1"],
        "what was refused is not sent again"
    );
    client.settle();
    assert_eq!(client.session.waiting_since(), None);
    let changed = edit(&compiled, WEB, |w| w.capacity = 2);
    let second = revision(2, &changed, &[], Some(&first));
    assert_eq!(
        client.publish(&second),
        ["Address web-1"],
        "until it changes"
    );
}

#[test]
fn acknowledgement_tells_the_revision() {
    let (_, first) = start();
    let mut client = Client::new(&first);
    client.send(ask(Kind::Placement));
    let (type_url, response_nonce) = client.unacked.pop().unwrap();
    let ack = DeltaDiscoveryRequest {
        type_url,
        response_nonce,
        ..DeltaDiscoveryRequest::default()
    };
    let want = Outcome::Acked {
        kind: Kind::Placement,
        revision: Some(1),
    };
    assert_eq!(client.session.request(ack).unwrap(), want);
}

#[test]
fn policies_before_their_workloads_and_gone_after_them() {
    let (open, first) = start();
    let mut client = Client::new(&first);
    client.send(ask(Kind::Address));
    client.send(ask(Kind::Authorization));
    client.settle();
    let second = revision(2, &guarded(&open), &["shop/p"], Some(&first));
    assert_eq!(
        client.publish(&second),
        ["Authorization p", "Address cart-1"]
    );
    client.settle();
    let third = revision(3, &open, &[], Some(&second));
    assert_eq!(
        client.publish(&third),
        ["Address cart-1", "Authorization -p"]
    );
    client.settle();
    let fourth = revision(4, &open, &["shop/p", "shop/q"], Some(&third));
    client.publish(&fourth);
    client.settle();
    let fifth = revision(5, &open, &["shop/r"], Some(&fourth));
    assert_eq!(
        client.publish(&fifth),
        ["Authorization r -p -q"],
        "alone, in one response"
    );
}

#[test]
fn a_policy_withdrawn_during_the_first_sync_blocks_nothing() {
    let (open, _) = start();
    let first = revision(1, &open, &["shop/p"], None);
    let mut client = Client::chunked(&first, 1);
    client.send(ask(Kind::Address));
    assert!(client.send(ask(Kind::Authorization)).is_empty());
    let second = revision(2, &open, &[], Some(&first));
    client.publish(&second);
    let rest = [
        "Address cart",
        "Address web",
        "Authorization",
        "Address cart-1",
        "Authorization -p",
    ];
    assert_eq!(client.settle(), rest);
}

#[test]
fn order_holds_while_acknowledgements_are_late() {
    let (open, first) = start();
    let mut client = Client::new(&first);
    client.send(ask(Kind::Address));
    client.send(ask(Kind::Authorization));
    client.settle();
    // Policies are unacknowledged when the next policy and a workload that lists it arrive.
    let second = revision(2, &open, &["shop/o"], Some(&first));
    assert_eq!(client.publish(&second), ["Authorization o"]);
    let third = revision(3, &guarded(&open), &["shop/o", "shop/p"], Some(&second));
    assert!(
        client.publish(&third).is_empty(),
        "the workload waits for its policy"
    );
    assert_eq!(client.ack(), ["Authorization p", "Address cart-1"]);
    // Addresses are unacknowledged when the workload stops listing it and it goes.
    let fourth = revision(4, &open, &["shop/o"], Some(&third));
    assert!(client.publish(&fourth).is_empty());
    assert_eq!(client.ack(), ["Address cart-1", "Authorization -p"]);
}

#[test]
fn changes_gather_while_unacknowledged() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    client.send(ask(Kind::Address));
    client.settle();
    let mut last = revision(
        2,
        &edit(&compiled, CART, |w| w.capacity = 2),
        &[],
        Some(&first),
    );
    assert_eq!(client.publish(&last), ["Address cart-1"]);
    for number in 3..10 {
        let capacity = u32::try_from(number).unwrap();
        let changed = edit(&compiled, WEB, |w| w.capacity = capacity);
        last = revision(number, &changed, &[], Some(&last));
        assert!(client.publish(&last).is_empty());
    }
    assert_eq!(
        client.ack(),
        ["Address web-1 cart-1"],
        "one union, current content"
    );
    assert!(client.ack().is_empty());
}

#[test]
fn removed_and_added_again_is_an_update() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    client.send(ask(Kind::Address));
    client.settle();
    let touched = edit(&compiled, CART, |w| w.capacity = 2);
    let second = revision(2, &touched, &[], Some(&first));
    client.publish(&second);
    let mut without = compiled.clone();
    without.workloads.retain(|w| &*w.uid != WEB);
    let third = revision(3, &without, &[], Some(&second));
    client.publish(&third);
    let fourth = revision(4, &compiled, &[], Some(&third));
    client.publish(&fourth);
    assert_eq!(client.ack(), ["Address web-1 cart-1"]);
}

fn change(mesh: impl FnOnce(&mut Mesh)) -> Compiled {
    let mut changed = sample::mesh();
    mesh(&mut changed);
    compiled(&changed)
}

#[test]
fn one_response_holds_what_belongs_together() {
    let base = compiled(&sample::mesh());
    let failing = |names: &[&str]| {
        let unhealthy = Observed {
            health: Health::Unhealthy,
            ..Observed::default()
        };
        let uids = names
            .iter()
            .map(|name| workload_uid("Kubernetes", "shop", name));
        let reported: Reported = uids.map(|uid| (uid, unhealthy)).collect();
        let mut mesh = sample::mesh();
        let second = sample::workload("cart-2", "cart", "edge-2", "10.1.0.13");
        mesh.workloads.push(second.into());
        compile(&mesh, &reported, &Assignments::default()).unwrap()
    };
    let (one, all) = (failing(&["cart-1"]), failing(&["cart-1", "cart-2"]));
    let renamed = change(|mesh| mesh.workloads[0].name = Arc::from("cart-2"));
    let without = change(|mesh| drop(mesh.services.remove(0)));
    for (name, before, after, want) in [
        (
            "renamed, same address",
            &base,
            &renamed,
            "Address cart-2 -cart-1",
        ),
        (
            "all endpoints allowed",
            &one,
            &all,
            "Address cart-2 cart cart-1",
        ),
        (
            "one has recovered",
            &all,
            &one,
            "Address cart-2 cart cart-1",
        ),
        ("service deleted", &base, &without, "Address cart-1 -cart"),
        ("service back", &without, &base, "Address cart cart-1"),
    ] {
        let first = revision(1, before, &[], None);
        let mut client = Client::new(&first);
        client.send(ask(Kind::Address));
        client.settle();
        let second = revision(2, after, &[], Some(&first));
        assert_eq!(client.publish(&second), [want], "{name}");
    }
}

#[test]
fn on_demand() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    let none = ask_for(Kind::Address, &["*"], &["*"]);
    client.session.request(none).unwrap();
    assert_eq!(
        client.settle(),
        ["Address", "Address cart-1"],
        "only node-local workloads"
    );
    let touched = edit(&compiled, WEB, |w| w.capacity = 2);
    let second = revision(2, &touched, &[], Some(&first));
    assert!(client.publish(&second).is_empty(), "no wildcard pushes");
    for (name, asked, want) in [
        ("by name", WEB, "Address web-1"),
        ("again, though current", WEB, "Address web-1"),
        ("by address", "/10.1.0.12", "Address web-1 -/10.1.0.12"),
        ("unknown", "/192.0.2.9", "Address -/192.0.2.9"),
    ] {
        let lines = client.send(ask_for(Kind::Address, &[asked], &[]));
        assert_eq!(lines, [want], "{name}");
        client.settle();
    }
    let third = revision(3, &compiled, &[], Some(&second));
    assert_eq!(
        client.publish(&third),
        ["Address web-1"],
        "pushed unasked from now on"
    );
    client.settle();
    client.send(ask_for(Kind::Address, &[], &[WEB]));
    let fourth = revision(4, &touched, &[], Some(&third));
    assert!(
        client.publish(&fourth).is_empty(),
        "silence after unsubscribing"
    );
}

/// A client on demand that has asked for nothing, settled.
fn on_demand_client(revision: &Arc<Revision>) -> Client {
    let mut client = Client::new(revision);
    client.send(ask_for(Kind::Address, &["*"], &["*"]));
    client.settle();
    client
}

const WEB_SERVICE: &str = "shop/web.shop.mesh.internal";

/// The alias by which the service `web` is asked for.
fn vip(revision: &Revision) -> String {
    revision.resources(Kind::Address, "edge-1")[WEB_SERVICE].lookup[0].clone()
}

/// The sample with one more workload of `web`.
fn grown() -> Compiled {
    change(|mesh| {
        let more = sample::workload("web-2", "web", "edge-2", "10.1.0.13");
        mesh.workloads.push(more.into());
    })
}

#[test]
fn on_demand_a_service_brings_its_workloads() {
    let (compiled, first) = start();
    let vip = vip(&first);
    for (name, asked, want) in [
        (
            "by address",
            vip.as_str(),
            format!("Address web-1 web -{vip}"),
        ),
        ("by name", WEB_SERVICE, "Address web-1 web".to_owned()),
    ] {
        let mut client = on_demand_client(&first);
        let lines = client.send(ask_for(Kind::Address, &[asked], &[]));
        assert_eq!(lines, [want], "{name}");
        client.settle();
        let moved = edit(&compiled, WEB, |w| {
            w.addresses = vec!["10.1.0.99".parse().unwrap()]
        });
        let second = revision(2, &moved, &[], Some(&first));
        assert_eq!(
            client.publish(&second),
            ["Address web-1"],
            "{name}: pushed unasked"
        );
        client.settle();
        let third = revision(3, &grown(), &[], Some(&second));
        assert_eq!(
            client.publish(&third),
            ["Address web-1 web-2"],
            "{name}: a new endpoint too"
        );
        client.settle();
        client.send(ask_for(Kind::Address, &[], &[asked]));
        let fourth = revision(4, &moved, &[], Some(&third));
        assert!(client.publish(&fourth).is_empty(), "{name}: silence");
    }
}

#[test]
fn on_demand_what_two_services_share_stays_with_one() {
    let base = change(|mesh| {
        let mut other = sample::service("other");
        other.selector = sample::labels(&[("app", "web")]);
        mesh.services.push(other);
    });
    let first = revision(1, &base, &[], None);
    let mut client = on_demand_client(&first);
    let other = "shop/other.shop.mesh.internal";
    client.send(ask_for(Kind::Address, &[WEB_SERVICE, other], &[]));
    client.settle();
    client.send(ask_for(Kind::Address, &[], &[other]));
    let second = revision(2, &edit(&base, WEB, |w| w.capacity = 2), &[], Some(&first));
    assert_eq!(client.publish(&second), ["Address web-1"]);
}

#[test]
fn on_demand_reconnects_with_what_it_holds() {
    let (_, first) = start();
    let grown = revision(2, &grown(), &[], Some(&first));
    let mut client = Client::new(&grown);
    let mut request = ask_for(Kind::Address, &["*"], &["*"]);
    let current = |name: &str| {
        let resources = grown.resources(Kind::Address, "edge-1");
        (name.to_owned(), resources[name].version.to_string())
    };
    let gone = ("gone".to_owned(), "x".to_owned());
    request.initial_resource_versions = [current(WEB_SERVICE), current(WEB), gone].into();
    client.session.request(request).unwrap();
    assert_eq!(
        client.settle(),
        ["Address web-2", "Address cart-1 -gone"],
        "what joined the service meanwhile, and its own"
    );
    let (edited, _) = start();
    let third = revision(3, &edited, &[], Some(&grown));
    assert_eq!(client.publish(&third), ["Address -web-2"]);
}

#[test]
fn on_demand_an_address_that_was_nobodys_is_told_when_it_is_somebodys() {
    let (_, first) = start();
    let mut client = on_demand_client(&first);
    client.send(ask_for(Kind::Address, &["/10.1.0.13"], &[]));
    client.settle();
    let second = revision(2, &grown(), &[], Some(&first));
    assert_eq!(client.publish(&second), ["Address web-2"]);
}

#[test]
fn wildcard_on_and_off() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    client.send(ask_for(Kind::Address, &[WEB], &[]));
    client.settle();
    client
        .session
        .request(ask_for(Kind::Address, &["*"], &[]))
        .unwrap();
    assert_eq!(client.settle(), ["Address web-1 cart web cart-1"]);
    client.send(ask_for(Kind::Address, &[], &["*"]));
    let mut without = compiled.clone();
    without.services.clear();
    let second = revision(2, &without, &[], Some(&first));
    assert_eq!(
        client.publish(&second),
        ["Address web-1 cart-1"],
        "the services are not its own"
    );
}

#[test]
fn unknown_types_get_no_answer() {
    let (_, first) = start();
    let mut client = Client::new(&first);
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    assert_eq!(
        client.session.request(request).unwrap(),
        Outcome::UnknownType
    );
    assert!(client.read().is_empty());
}

#[test]
fn ends() {
    let (compiled, first) = start();
    let mut client = Client::new(&first);
    let unrelated = revision(9, &compiled, &[], None);
    assert_eq!(client.session.advance(unrelated), Err(Refusal::HistoryLost));
    let gone = change(|mesh| {
        drop(
            mesh.nodes
                .remove("edge-1")
                .map(|_| mesh.workloads.remove(0)),
        )
    });
    let second = revision(2, &gone, &[], Some(&first));
    let unknown = Refusal::UnknownNode {
        node: Arc::from("edge-1"),
    };
    assert_eq!(client.session.advance(second), Err(unknown));
}

#[test]
fn tells_since_when_it_waits() {
    let (_, first) = start();
    let mut client = Client::new(&first);
    assert_eq!(client.session.waiting_since(), None);
    client.send(ask(Kind::Address));
    assert_eq!(client.session.waiting_since(), Some(client.now));
}
