//! What a connection leaves in the access log and the metrics.

use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use lateen::telemetry::access_log::{Ending, Entry};
use lateen::telemetry::{ConnectionLabels, Metrics, Reporter};
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
    // As the process sets it up, but for the writer: what the terminal or file takes is not ours.
    let plain = || {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("info"))
            .with_writer(io::sink)
            .with_ansi(false)
    };
    let mut group = c.benchmark_group("access-log");
    tracing::subscriber::with_default(plain().finish(), || {
        group.bench_function("text", |b| b.iter(|| entry.log(black_box(&ending))));
    });
    let json = plain().json().flatten_event(true).finish();
    tracing::subscriber::with_default(json, || {
        group.bench_function("json", |b| b.iter(|| entry.log(black_box(&ending))));
    });
    let off = plain().with_env_filter(EnvFilter::new("access=off"));
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
        metrics.opened(&labels(peer));
        metrics.closed(&labels(peer), 1, 1);
    }
    let known = labels(&mesh.workloads[PEERS / 2]);
    let mut group = c.benchmark_group("metrics");
    group.bench_function("labels", |b| {
        b.iter(|| labels(black_box(&mesh.workloads[PEERS / 2])));
    });
    group.bench_function("opened", |b| b.iter(|| metrics.opened(black_box(&known))));
    group.bench_function("closed", |b| {
        b.iter(|| metrics.closed(black_box(&known), 4711, 1 << 20));
    });
    group.bench_function("render", |b| b.iter(|| metrics.render()));
    group.finish();
}
