//! What the port lets in, and what it says when it ends (`spec/control-plane.md` §1.1, §3.4).

use std::time::{Duration, Instant};

use lateen::status::token::TokenAsk;
use lateen::wire::proto::discovery::{DeltaDiscoveryRequest, Node};
use lateen::wire::proto::grpc_health::HealthCheckRequest;
use lateen::wire::proto::grpc_health::health_client::HealthClient;
use lateen::wire::{ADDRESS, REVISION};
use tonic::Code;

use crate::support::{Site, eventually, mesh, token_for, version};

#[tokio::test]
async fn anyone_may_ask_whether_it_serves() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    let mut client = HealthClient::new(site.channel().await.unwrap());
    let answer = client.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(format!("{:?}", answer.into_inner().status()), "Serving");
}

/// Row 3 of §10; a certificate beside another node's token is a case of `control::bearer`.
#[tokio::test]
async fn who_cannot_say_who_it_is_gets_no_stream() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    let brief = TokenAsk {
        ttl: Some(1),
        ..token_for("edge-1")
    };
    let expired = site.token(true, &brief).await.unwrap();
    let revoked = site.bearer().await;
    for token in site.tokens().await {
        if token.expires > 1_000 + token_life(&expired) {
            let revoke = site.ask(http::Method::POST, "/tokens/revoke", token.id);
            revoke.await.unwrap();
        }
    }
    eventually("the token expires", || async {
        match site.stream(&expired).await {
            Err(status) if status.code() == Code::Unauthenticated => Ok(()),
            other => Err(other.map(|_| "it is still good")),
        }
    })
    .await;
    for (name, bearer) in [
        ("no credential", ""),
        ("an expired token", &expired),
        ("a revoked token", &revoked),
        ("no token", "x"),
    ] {
        // The call itself fails: a status in place of headers.
        let refused = site.stream(bearer).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{name}: {refused}");
    }
}

/// The `exp` of a token.
fn token_life(token: &str) -> u64 {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims);
    let claims: serde_json::Value = serde_json::from_slice(&json.unwrap()).unwrap();
    claims["exp"].as_u64().unwrap()
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    let brief = TokenAsk {
        ttl: Some(2),
        ..token_for("edge-1")
    };
    let token = site.token(true, &brief).await.unwrap();
    let mut stream = site.stream(&token).await.unwrap();
    stream.ask(REVISION).await;
    stream.next().await.unwrap();
    let end = stream.next().await.unwrap_err();
    assert_eq!(end.code(), Code::Unauthenticated, "{end}");
}

/// Row 13 of §10: what is written in one breath is one push, of the last content.
#[tokio::test]
async fn ten_edits_in_forty_milliseconds_are_one_push() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    let mut stream = site.stream(&site.bearer().await).await.unwrap();
    stream.ask(REVISION).await;
    let mut before = version(&stream.next().await.unwrap().system_version_info);
    let mut last = 1;
    loop {
        let begun = Instant::now();
        for serial in last + 1..=last + 10 {
            site.write_mesh("mesh.toml", &mesh(serial));
        }
        last += 10;
        let breath = begun.elapsed() < Duration::from_millis(40);
        let mut after = version(&stream.next().await.unwrap().system_version_info);
        if breath {
            assert_eq!(after, (last, before.1 + 1));
            return;
        }
        // The machine was busy with something else: once more.
        while after.0 < last {
            after = version(&stream.next().await.unwrap().system_version_info);
        }
        before = after;
    }
}

/// Row 7 of §10.
#[tokio::test]
async fn after_a_restart_nothing_is_sent_again() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    let bearer = site.bearer().await;
    let mut stream = site.stream(&bearer).await.unwrap();
    stream.ask(ADDRESS).await;
    let mut held = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let response = stream.next().await.unwrap();
        held.extend(response.resources.into_iter().map(|r| (r.name, r.version)));
    }
    assert_eq!(held.len(), 2);
    running.kill();
    let mut running = site.start();
    site.up(&mut running).await;
    let mut stream = site.stream(&bearer).await.unwrap();
    stream
        .send(DeltaDiscoveryRequest {
            node: Some(Node {
                id: "lateen~test".to_owned(),
                ..Node::default()
            }),
            type_url: ADDRESS.to_owned(),
            initial_resource_versions: held.into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    let answer = stream.next().await.unwrap();
    assert!(
        answer.resources.is_empty() && answer.removed_resources.is_empty(),
        "{answer:?}"
    );
}

/// Row 25 of §10.
#[tokio::test]
async fn a_stop_ends_every_stream_cancelled() {
    let site = Site::new();
    let mut running = site.start();
    site.up(&mut running).await;
    let bearer = site.bearer().await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = site.stream(&bearer).await.unwrap();
        stream.ask(REVISION).await;
        stream.next().await.unwrap();
        streams.push(stream);
    }
    let open = site.metric("lateen_discovery_clients").await;
    assert_eq!(open, Some(5.0));
    let pushes = "lateen_discovery_pushes_total{type=\"revision\"}";
    assert_eq!(site.metric(pushes).await, Some(5.0));
    running.stop();
    for mut stream in streams {
        let end = stream.next().await.unwrap_err();
        assert_eq!(end.code(), Code::Cancelled, "{end}");
    }
    assert!(running.ended().await.success());
}
