//! Whatever order revisions, acknowledgements and refusals come in, a client that applies what it
//! is sent ends up with the revision in force, and is never open in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{ask, node};
use super::*;
use crate::control::revision::tests::{compiled, revision};
use crate::model::compile::{Compiled, sample};
use crate::wire::convert::{self, Address, decode_revision};
use crate::wire::proto::discovery::{Resource, Status};
use prost::Message;

/// Which of four workloads exist, and which of three policies each lists.
type Shape = [Option<[bool; 3]>; 4];

#[derive(Clone, Debug)]
enum Step {
    Publish(Shape),
    /// Answers the response in flight of this type, if any.
    Answer(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<Shape>().prop_map(Step::Publish),
        3 => (0..Kind::ALL.len(), prop::bool::weighted(0.9)).prop_map(|(k, ok)| Step::Answer(k, ok)),
    ]
}

/// A mesh of that shape, and the policies its workloads list.
fn shaped(base: &Compiled, shape: &Shape) -> (Compiled, Vec<&'static str>) {
    const POLICIES: [&str; 3] = ["shop/p", "shop/q", "shop/r"];
    let mut compiled = base.clone();
    let mut listed = BTreeSet::new();
    compiled.workloads.clear();
    for (workload, lists) in base.workloads.iter().zip(shape) {
        let Some(lists) = lists else { continue };
        let names = POLICIES
            .into_iter()
            .zip(lists)
            .filter(|(_, listed)| **listed);
        let names: Vec<&str> = names.map(|(name, _)| name).collect();
        let mut workload = (**workload).clone();
        workload.authorization_policies = names.iter().map(|n| Arc::from(*n)).collect();
        listed.extend(names);
        compiled.workloads.push(Arc::new(workload));
    }
    (compiled, listed.into_iter().collect())
}

/// A client that believes and applies everything.
#[derive(Default)]
struct Mirror {
    held: BTreeMap<(Kind, String), String>,
    /// Policies of each own workload it holds.
    lists: BTreeMap<String, BTreeSet<String>>,
    in_flight: BTreeMap<Kind, String>,
    announced: u64,
}

impl Mirror {
    fn apply(&mut self, response: &Response) {
        let kind = Kind::of(&response.type_url).unwrap();
        assert!(
            self.in_flight
                .insert(kind, response.nonce.clone())
                .is_none()
        );
        for resource in &response.resources {
            let resource = Resource::decode(resource.clone()).unwrap();
            assert!(!response.removed_resources.contains(&resource.name));
            let body = resource.resource.unwrap().value;
            match kind {
                Kind::Address => self.address(&resource.name, &body),
                Kind::Revision => self.announce(&resource.name, &body),
                Kind::Trust | Kind::Authorization | Kind::Placement | Kind::Waypoint => {}
            }
            self.held.insert((kind, resource.name), resource.version);
        }
        for name in &response.removed_resources {
            self.held.remove(&(kind, name.clone()));
            if kind == Kind::Address {
                self.lists.remove(name);
            }
        }
        for policy in self.lists.values().flatten() {
            let known = self
                .held
                .contains_key(&(Kind::Authorization, policy.clone()));
            assert!(
                known,
                "a workload of its own lists {policy}, which it does not have"
            );
        }
    }

    fn address(&mut self, name: &str, body: &[u8]) {
        if let Address::Workload(workload) = Address::decode(name, body).unwrap()
            && &*workload.node == "edge-1"
        {
            let policies = workload.authorization_policies.iter();
            let policies = policies.map(ToString::to_string).collect();
            self.lists.insert(name.to_owned(), policies);
        }
    }

    fn announce(&mut self, name: &str, body: &[u8]) {
        let summary = decode_revision(name, body).unwrap();
        let counted =
            |(kind, _): &&(Kind, String)| matches!(kind, Kind::Address | Kind::Authorization);
        let held = self.held.iter().filter(|(key, _)| counted(key));
        let lines: Vec<_> = held
            .map(|((k, n), v)| (k.type_url(), n.as_str(), v.as_str()))
            .collect();
        let total: u32 = summary.totals.values().sum();
        assert_eq!(
            lines.len(),
            total as usize,
            "announced before it was complete"
        );
        assert_eq!(convert::digest(lines), summary.digest);
        self.announced = summary.number;
    }
}

fn read(session: &mut Session, mirror: &mut Mirror, nonce: &mut u128) {
    while let Some(response) = session.next_response(Instant::now(), *nonce) {
        *nonce += 1;
        mirror.apply(&response);
    }
}

fn answer(session: &mut Session, mirror: &mut Mirror, kind: Kind, ok: bool) {
    if let Some(response_nonce) = mirror.in_flight.remove(&kind) {
        let reply = DeltaDiscoveryRequest {
            response_nonce,
            error_detail: (!ok).then(Status::default),
            ..ask(kind)
        };
        session.request(reply).unwrap();
    }
}

proptest! {
    #[test]
    fn a_client_converges_and_is_never_open(
        first in any::<Shape>(),
        order in Just(Kind::ALL.to_vec()).prop_shuffle(),
        subscribe_after in prop::collection::vec(0..3usize, Kind::ALL.len()),
        steps in prop::collection::vec(step(), 0..40),
        chunk in 1..6usize,
    ) {
        let base = compiled(&sample::large(20, 2));
        // Two of its own, two of others.
        let mut base = base;
        base.workloads.sort_by_key(|w| &*w.node != "edge-1");
        base.workloads.truncate(4);
        let (mesh, policies) = shaped(&base, &first);
        let mut current = revision(1, &mesh, &policies, None);
        let chunk = Chunk { resources: chunk, ..Chunk::default() };
        let edge = node("edge-1");
        let mut session =
            Session::open(Who::Node(Arc::from("edge-1")), Some(&edge), current.clone(), chunk).unwrap();
        let (mut mirror, mut nonce) = (Mirror::default(), 0);

        // Policies are asked for before the first acknowledgement, as clients that have any do;
        // everything else whenever.
        let mut asked: Vec<(Kind, usize)> = order.into_iter().zip(subscribe_after).collect();
        asked.sort_by_key(|(kind, after)| match kind {
            Kind::Address | Kind::Authorization => 0,
            Kind::Trust | Kind::Placement | Kind::Waypoint | Kind::Revision => 1 + after,
        });
        for (kind, _) in asked {
            session.request(ask(kind)).unwrap();
            read(&mut session, &mut mirror, &mut nonce);
        }
        for (number, step) in (2..).zip(steps) {
            match step {
                Step::Publish(shape) => {
                    let (mesh, policies) = shaped(&base, &shape);
                    current = revision(number, &mesh, &policies, Some(&current));
                    session.advance(current.clone()).unwrap();
                }
                Step::Answer(kind, ok) => {
                    answer(&mut session, &mut mirror, Kind::ALL[kind], ok);
                }
            }
            read(&mut session, &mut mirror, &mut nonce);
        }
        for _ in 0..1_000 {
            if mirror.in_flight.is_empty() {
                break;
            }
            for kind in Kind::ALL {
                answer(&mut session, &mut mirror, kind, true);
            }
            read(&mut session, &mut mirror, &mut nonce);
        }
        prop_assert!(mirror.in_flight.is_empty(), "it comes to rest");
        prop_assert_eq!(mirror.announced, current.number());
        for kind in Kind::ALL {
            let offered = current.resources(kind, "edge-1");
            let offered: BTreeMap<String, String> = offered
                .values()
                .map(|r| (r.name.to_string(), r.version.to_string()))
                .collect();
            let held: BTreeMap<String, String> = mirror
                .held
                .iter()
                .filter(|((k, _), _)| *k == kind)
                .map(|((_, name), version)| (name.clone(), version.clone()))
                .collect();
            prop_assert_eq!(held, offered);
        }
    }
}
