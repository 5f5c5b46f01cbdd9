//! What is written beside a CONNECT and read from one.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::Criterion;
use http::{HeaderMap, HeaderValue};
use lateen::hbone::Authority;
use lateen::hbone::headers::{self, Baggage};

use crate::clock::Clock;

const HOST: &str = "cart.shop.mesh.internal";

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    headers_of_a_connect(c);
    authority(c);
}

fn headers_of_a_connect(c: &mut Criterion<Clock>) {
    let baggage = Baggage {
        cluster: "Kubernetes".to_owned(),
        namespace: "shop".to_owned(),
        workload: "web".to_owned(),
        service: "web".to_owned(),
        version: "latest".to_owned(),
        region: "europe-west".to_owned(),
        zone: "rack-12".to_owned(),
    };
    let client = SocketAddr::from(([10, 0, 0, 1], 40_000));
    let mut map = HeaderMap::new();
    for (name, text) in [
        (headers::BAGGAGE, baggage.render()),
        (headers::FORWARDED, headers::forwarded(client, Some(HOST))),
        (headers::TRACEPARENT, headers::new_traceparent()),
    ] {
        let value = HeaderValue::from_str(&text).expect("what we write is a legal header");
        map.insert(name, value);
    }
    let mut group = c.benchmark_group("headers");
    group.bench_function("baggage-render", |b| {
        b.iter(|| black_box(&baggage).render())
    });
    group.bench_function("baggage-read", |b| {
        b.iter(|| Baggage::read(black_box(&map)));
    });
    group.bench_function("forwarded-write", |b| {
        b.iter(|| headers::forwarded(black_box(client), black_box(Some(HOST))));
    });
    group.bench_function("forwarded-host", |b| {
        b.iter(|| headers::forwarded_host(black_box(&map)).map(str::len));
    });
    group.bench_function("traceparent-new", |b| b.iter(headers::new_traceparent));
    group.bench_function("traceparent-read", |b| {
        b.iter(|| headers::traceparent(black_box(&map)));
    });
    group.finish();
}

fn authority(c: &mut Criterion<Clock>) {
    let mut group = c.benchmark_group("authority");
    for (kind, text) in [
        ("ipv4", "10.0.0.2:8080"),
        ("ipv6", "[2001:db8::17]:8080"),
        ("name", "cart.shop.mesh.internal:80"),
    ] {
        let authority: Authority = text.parse().expect("a legal target");
        group.bench_function(format!("parse-{kind}"), |b| {
            b.iter(|| black_box(text).parse::<Authority>());
        });
        group.bench_function(format!("display-{kind}"), |b| {
            b.iter(|| black_box(&authority).to_string());
        });
    }
    group.finish();
}
