//! What a connection leaves in the access log and the metrics.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use lateen::telemetry::access_log::{Ending, Entry};
use lateen::telemetry::log::{Format, Line};
use lateen::telemetry::{Carrier, ConnectionLabels, Metrics, Reporter};
use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::clock::Clock;
use crate::mesh::Mesh;

/// Sets of labels in the metrics, as of a node that talks to so many peers.
const PEERS: usize = 200;

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    let mesh = Mesh::of(PEERS);
    access_log(c, &mesh);
    metrics(c, &mesh);
}

fn access_log(c: &mut Criterion<Clock>, mesh: &Mesh) {
    let [client, server] = [&mesh.workloads[0], &mesh.workloads[1]];
    let entry = Entry {
        direction: "outbound",
        source: SocketAddr::new(client.addresses[0], 40_000),
        source_workload: Some(Arc::clone(client)),
        source_identity: client.identity().ok(),
        destination: SocketAddr::new(server.addresses[0], 15008),
        tunnelled: Some("10.1.0.1:8080".to_owned()),
        carrier: Carrier::tcp,
        service: mesh.services.first().cloned(),
        destination_workload: Some(Arc::clone(server)),
        destination_identity: server.identity().ok(),
    };
    let ending = Ending {
        sent: 4711,
        received: 1 << 20,
        duration: Duration::from_millis(12),
        error: None,
    };
    let mut group = c.benchmark_group("access-log");
    for (name, format) in [("text", Format::Text), ("json", Format::Json)] {
        let mut text = String::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                text.clear();
                let level = Level::INFO;
                let mut line = Line::begin(&mut text, format, level, "access", "complete");
                entry.fields(black_box(&ending), &mut line);
                line.end("access");
            });
        });
    }
    let off = tracing_subscriber::fmt().with_env_filter(EnvFilter::new("access=off"));
    tracing::subscriber::with_default(off.finish(), || {
        group.bench_function("off", |b| b.iter(|| entry.log(black_box(&ending))));
    });
    group.finish();
}

fn metrics(c: &mut Criterion<Clock>, mesh: &Mesh) {
    let client = &mesh.workloads[0];
    let service = mesh.services.first().map(|s| &**s);
    let ids = (client.identity(), mesh.workloads[1].identity());
    let (Ok(from), Ok(to)) = ids else {
        unreachable!("the mesh has legal names");
    };
    let labels = |peer| {
        ConnectionLabels::new(Reporter::source, Some(client), Some(peer), service)
            .secured(&from, &to)
    };
    let metrics = Metrics::default();
    for peer in &mesh.workloads {
        metrics.opened(labels(peer)).closed("-", 1, 1);
    }
    let known = labels(&mesh.workloads[PEERS / 2]);
    let mut group = c.benchmark_group("metrics");
    group.bench_function("labels", |b| {
        b.iter(|| labels(black_box(&mesh.workloads[PEERS / 2])));
    });
    group.bench_function("opened", |b| {
        b.iter(|| metrics.opened(black_box(known.clone())))
    });
    let series = metrics.opened(known);
    group.bench_function("closed", |b| {
        b.iter(|| series.closed("-", 4711, black_box(1 << 20)))
    });
    group.bench_function("render", |b| b.iter(|| metrics.render()));
    group.finish();
}
