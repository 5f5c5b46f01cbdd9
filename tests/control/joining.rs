//! Each misuse of joining over the wire, by its status, its reason and its line in the audit log; two
//! machines with one identity; and a node that asks for everybody's certificates.

use std::fs;
use std::path::Path;

use http::Method;
use lateen::agent::channel::{Controls, Who};
use lateen::agent::identity::{Keeper, NodeIdentity, NodeIdentityError};
use lateen::identity::SpiffeId;
use lateen::identity::token::Token;
use lateen::status::token::TokenAsk;
use lateen::tls::Request as Csr;
use lateen::wire::proto::citadel::IstioCertificateRequest;
use lateen::wire::proto::citadel::istio_certificate_service_client::IstioCertificateServiceClient;
use lateen::wire::proto::lateen::enrollment_client::EnrollmentClient;
use lateen::wire::proto::lateen::{Enrolled, JoinRequest};
use tonic::{Code, Request, Status};

use crate::support::{Running, Site, eventually, mesh, token_for};

async fn site() -> (Site, Running) {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    (site, running)
}

async fn token(site: &Site, ask: &TokenAsk) -> Token {
    site.token(false, ask).await.unwrap().parse().unwrap()
}

fn csr(node: &str) -> Csr {
    let id: SpiffeId = format!("spiffe://cluster.local/node/{node}")
        .parse()
        .unwrap();
    Csr::new(&id).unwrap()
}

/// What a machine asks that joins as `node` as it should.
fn ask(token: &Token, node: &str, csr: &Csr) -> JoinRequest {
    JoinRequest {
        token_id: token.id.clone(),
        secret: token.secret.to_vec(),
        node: node.to_owned(),
        csr: csr.csr.to_vec(),
        host: None,
        roles: vec!["node".to_owned()],
    }
}

async fn join(site: &Site, ask: JoinRequest) -> Result<Enrolled, Status> {
    let channel = site.channel().await.unwrap();
    let joined = EnrollmentClient::new(channel).join(ask).await;
    joined.map(tonic::Response::into_inner)
}

fn reason(status: &Status) -> &str {
    let reason = status.metadata().get("lateen-reason");
    reason.map_or("", |r| r.to_str().unwrap())
}

/// Makes one misuse ready on a fresh site, and what is then asked.
async fn misuse(site: &Site, name: &str) -> JoinRequest {
    let edge = token(site, &token_for("edge-1")).await;
    let good = csr("edge-1");
    let sound = ask(&edge, "edge-1", &good);
    match name {
        "an unknown id" => JoinRequest {
            token_id: "aaaaaaaaaa".to_owned(),
            ..sound
        },
        "a wrong secret" => JoinRequest {
            secret: vec![1; 32],
            ..sound
        },
        "expired" => {
            let short = TokenAsk {
                ttl: Some(1),
                ..token_for("edge-1")
            };
            let short = token(site, &short).await;
            eventually("it expires", || async {
                let tokens = site.tokens().await;
                let found = tokens.into_iter().find(|t| t.id == short.id).unwrap();
                (found.state == "expired").then_some(()).ok_or(found)
            })
            .await;
            ask(&short, "edge-1", &good)
        }
        "used by another key" => {
            join(site, sound.clone()).await.unwrap();
            ask(&edge, "edge-1", &csr("edge-1"))
        }
        "another node's" => ask(&edge, "edge-2", &csr("edge-2")),
        "taken back" => {
            let revoked = site.ask(Method::POST, "/tokens/revoke", edge.id.clone());
            revoked.await.unwrap();
            sound
        }
        "another role" => JoinRequest {
            roles: vec!["node".to_owned(), "control".to_owned()],
            ..sound
        },
        "a node that is gone from the files" => {
            let before = site.status().await.unwrap().revision;
            let text = mesh(2).replace("[[node]]\nname = \"edge-2\"\n", "");
            let two = token(site, &token_for("edge-2")).await;
            site.write_mesh("mesh.toml", &text);
            eventually("the edit", || async {
                let now = site.status().await.unwrap().revision;
                (now > before).then_some(()).ok_or(now)
            })
            .await;
            ask(&two, "edge-2", &csr("edge-2"))
        }
        "joined already" => {
            join(site, sound).await.unwrap();
            let second = token(site, &token_for("edge-1")).await;
            ask(&second, "edge-1", &csr("edge-1"))
        }
        "revoked, with a plain token" => {
            join(site, sound).await.unwrap();
            let revoked = site.ask(Method::POST, "/nodes/revoke", "edge-1".to_owned());
            revoked.await.unwrap();
            let second = token(site, &token_for("edge-1")).await;
            ask(&second, "edge-1", &csr("edge-1"))
        }
        "revoked, and the spent token again" => {
            join(site, sound.clone()).await.unwrap();
            let revoked = site.ask(Method::POST, "/nodes/revoke", "edge-1".to_owned());
            revoked.await.unwrap();
            sound
        }
        "a request that is none" => JoinRequest {
            csr: vec![1, 2, 3],
            ..sound
        },
        "a request for another name" => JoinRequest {
            csr: csr("edge-2").csr.to_vec(),
            ..sound
        },
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn each_misuse_has_its_own_answer_and_audit_line() {
    for (name, code, word) in [
        ("an unknown id", Code::Unauthenticated, "TOKEN_UNKNOWN"),
        ("a wrong secret", Code::Unauthenticated, "TOKEN_UNKNOWN"),
        ("expired", Code::Unauthenticated, "TOKEN_EXPIRED"),
        ("used by another key", Code::AlreadyExists, "TOKEN_USED"),
        ("another node's", Code::PermissionDenied, "TOKEN_WRONG_NODE"),
        ("taken back", Code::PermissionDenied, "TOKEN_REVOKED"),
        ("another role", Code::PermissionDenied, "ROLE_NOT_ALLOWED"),
        (
            "a node that is gone from the files",
            Code::FailedPrecondition,
            "NODE_UNKNOWN",
        ),
        ("joined already", Code::AlreadyExists, "NODE_ENROLLED"),
        (
            "revoked, with a plain token",
            Code::AlreadyExists,
            "NODE_ENROLLED",
        ),
        (
            "revoked, and the spent token again",
            Code::PermissionDenied,
            "TOKEN_REVOKED",
        ),
        (
            "a request that is none",
            Code::InvalidArgument,
            "CSR_INVALID",
        ),
        (
            "a request for another name",
            Code::InvalidArgument,
            "CSR_IDENTITY",
        ),
    ] {
        let (site, _running) = site().await;
        let asked = misuse(&site, name).await;
        let refused = join(&site, asked).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (code, word), "{name}");
        site.logged(name, |log| {
            let line = |l: &str| l.contains("audit") && l.contains("join") && l.contains("refused");
            log.lines().any(line)
        })
        .await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_guessing_is_slowed_down() {
    let (site, _running) = site().await;
    let edge = token(&site, &token_for("edge-1")).await;
    let good = csr("edge-1");
    let first = join(&site, ask(&edge, "edge-1", &good)).await.unwrap();
    let again = join(&site, ask(&edge, "edge-1", &good)).await.unwrap();
    assert_eq!((first.generation, again.generation), (1, 1));
    let guess = || {
        let secret = vec![7; 32];
        JoinRequest {
            secret,
            ..ask(&edge, "edge-1", &good)
        }
    };
    let mut outcomes = Vec::new();
    for _ in 0..7 {
        outcomes.push(join(&site, guess()).await.unwrap_err().code());
    }
    let slowed = outcomes.iter().filter(|c| **c == Code::ResourceExhausted);
    assert_eq!(slowed.count(), 2, "{outcomes:?}");
}

/// A machine with a state directory of its own.
struct Machine {
    keeper: Keeper,
    controls: Controls,
}

impl Machine {
    fn of(site: &Site, name: &str) -> Self {
        let state = site.path(name);
        let identity = NodeIdentity::load(&state).unwrap().unwrap();
        let keeper = Keeper::new(&state, identity);
        let controls = Controls::new(vec![site.url()], Who::Node(keeper.subscribe()));
        Self { keeper, controls }
    }

    /// The generation of its next certificate, or the word of who refuses it.
    async fn renew(&self) -> Result<u64, String> {
        match self.keeper.renew(&self.controls).await {
            Ok(generation) => Ok(generation),
            Err(NodeIdentityError::Refused { status }) => Err(reason(&status).to_owned()),
            Err(other) => panic!("{other}"),
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let mut command = std::process::Command::new("cp");
    let copied = command.arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn of_two_machines_with_one_identity_the_second_is_found_out() {
    let clone = || Err("CLONE_SUSPECTED".to_owned());
    let (site, _running) = site().await;
    let joined = site.join("edge-1", &token(&site, &token_for("edge-1")).await.reveal());
    assert!(joined.status.success(), "{joined:?}");
    copy(&site.path("edge-1"), &site.path("copy"));
    let (first, second) = (Machine::of(&site, "edge-1"), Machine::of(&site, "copy"));
    assert_eq!(first.renew().await, Ok(2));
    assert_eq!(second.renew().await, clone(), "at once, not a day later");
    let nodes = site.status().await.unwrap().nodes;
    let edge = nodes.iter().find(|n| n.name == "edge-1").unwrap();
    assert_eq!(edge.state, "frozen");
    site.logged("an alert", |log| {
        let alert = |l: &str| l.contains("ERROR") && l.contains("audit") && l.contains("renew");
        log.lines().any(alert)
    })
    .await;
    assert_eq!(first.renew().await, clone(), "nobody knows which is which");
    let approved = site.ask(Method::POST, "/nodes/approve", "edge-1".to_owned());
    approved.await.unwrap();
    assert_eq!(first.renew().await, Ok(3));
    let kept = fs::read_dir(site.path("edge-1/agent/identity")).unwrap();
    assert_eq!(kept.count(), 2, "the new one and the link to it");
}

#[tokio::test]
async fn a_node_gets_nobody_elses_identity_however_it_asks() {
    let (site, _running) = site().await;
    let others = 40;
    let mut text = mesh(2);
    for n in 0..others {
        text.push_str(&format!(
            "[[workload]]\nname = \"w{n}\"\nservice-account = \"other-{n}\"\nnode = \"edge-2\"\n\
             addresses = [\"10.2.0.{}\"]\n",
            n + 1
        ));
    }
    site.write_mesh("mesh.toml", &text);
    eventually("the edit", || async {
        let workloads = site.status().await.unwrap().workloads;
        (workloads == others + 1).then_some(()).ok_or(workloads)
    })
    .await;
    let bearer = site.bearer().await;
    let mut wanted: Vec<String> = (0..others)
        .map(|n| format!("spiffe://cluster.local/ns/shop/sa/other-{n}"))
        .collect();
    wanted.extend(
        [
            "spiffe://cluster.local/node/edge-1",
            "spiffe://cluster.local/node/edge-2",
            "spiffe://cluster.local/control/control",
            "spiffe://other.local/ns/shop/sa/cart",
            "spiffe://cluster.local/ns/default/sa/cart",
        ]
        .map(str::to_owned),
    );
    let channel = site.channel().await.unwrap();
    let mut client = IstioCertificateServiceClient::new(channel);
    let mut certificate = async |id: &str| {
        let mut request = Request::new(IstioCertificateRequest {
            csr: Csr::new(&id.parse().unwrap()).unwrap().csr_pem(),
            validity_duration: 3_600,
            metadata: None,
        });
        let value = format!("Bearer {bearer}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        client.create_certificate(request).await.map(drop)
    };
    for id in &wanted {
        let refused = certificate(id).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{id}: {refused}");
    }
    let own = certificate("spiffe://cluster.local/ns/shop/sa/cart").await;
    assert!(own.is_ok(), "and its own all the same: {own:?}");
    site.logged("a line for each", |log| {
        let refused =
            |l: &&str| l.contains("audit") && l.contains("certificate") && l.contains("refused");
        log.lines().filter(refused).count() == wanted.len()
    })
    .await;
}
