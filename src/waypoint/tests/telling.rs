//! What is counted and written of what passes.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::http::Http1;
use super::program::Shop;
use crate::hbone::TunnelIo;
use crate::hbone::testing::{eventually, soon};
use crate::model::attached::PolicyKey;
use crate::model::expression::Expression;
use crate::model::telemetry::{Metric, Metrics, Override, Sections, TagChange};
use crate::waypoint::testing::told::told;
use crate::waypoint::testing::{Rig, echo};

#[tokio::test]
async fn open_connections_are_counted_again_and_again() {
    let mut rig = Rig::new().await;
    let program = rig.endpoint("cart-1", "10.1.0.11").await;
    rig.run(echo(program, "cart-1"));
    rig.resources = Some(told().recorded(Sections {
        metrics: vec![Metrics {
            reporting_interval: Some(Duration::from_millis(20)),
            ..Metrics::default()
        }],
        ..Sections::default()
    }));
    rig.publish().await;
    let mut io = TunnelIo::new(rig.cart(90).await);
    let mut banner = [0; 6];
    soon("a banner", io.read_exact(&mut banner)).await.unwrap();
    io.write_all(b"hello").await.unwrap();
    let counted = |rig: &Rig, name: &str| rig.metric(name, "reporter=\"waypoint\"");
    eventually("it is counted while it is open", || {
        counted(&rig, "istio_tcp_received_bytes") == 5 && counted(&rig, "istio_tcp_sent_bytes") >= 6
    })
    .await;
    assert_eq!(counted(&rig, "istio_tcp_connections_closed"), 0);
    io.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("the end", io.read_to_end(&mut rest)).await.unwrap();
    eventually("it is counted once", || {
        counted(&rig, "istio_tcp_connections_closed") == 1
            && counted(&rig, "istio_tcp_received_bytes") == 5
            && counted(&rig, "istio_tcp_sent_bytes") == 6 + rest.len() as u64
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted_as_telemetry_says() {
    let host = TagChange::Upsert(Expression::parse("request.host").unwrap());
    let change = Override {
        metric: Some(Metric::RequestCount),
        disabled: None,
        tags: [(Arc::from("host"), host)].into(),
    };
    let shop = Shop::new(told().recorded(Sections {
        metrics: vec![Metrics {
            overrides: vec![change],
            ..Metrics::default()
        }],
        ..Sections::default()
    }))
    .await;
    let mut client = Http1::to(&shop.rig).await;
    assert_eq!(client.get("/").await.0, StatusCode::OK);
    eventually("it is counted", || {
        shop.rig.metric("istio_requests_total", "host=\"cart\"") == 1
    })
    .await;
    assert_eq!(shop.rig.metric("istio_response_bytes_count", "host="), 0);
    assert_eq!(
        shop.rig
            .metric("istio_response_bytes_count", "code=\"200\""),
        1
    );
}

#[tokio::test]
async fn without_its_telemetry_a_service_is_not_served() {
    let unknown = PolicyKey {
        namespace: Arc::from("shop"),
        name: Arc::from("unknown"),
    };
    let shop = Shop::new(told().attach_telemetry(unknown)).await;
    let mut client = Http1::to(&shop.rig).await;
    let (status, _text) = client.get("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}
