//! Where a connection goes, and what the view answers on the way.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use criterion::{BenchmarkId, Criterion};
use lateen::model::balance::RoundRobin;
use lateen::model::inbound::{Caller, Target, plaintext, tunnelled};
use lateen::model::outbound::{Route, decide};

use crate::clock::Clock;
use crate::mesh::{Mesh, WIDE};

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    for size in [10, 10_000] {
        let mesh = Mesh::of(size);
        outbound(c, &mesh, size);
        inbound(c, &mesh, size);
        lookup(c, &mesh, size);
    }
}

fn outbound(c: &mut Criterion<Clock>, mesh: &Mesh, size: usize) {
    let source = &mesh.workloads[0];
    let mut turns = RoundRobin::starting_after(0);
    let mut to = |ip: IpAddr, port| {
        let to = black_box(SocketAddr::new(ip, port));
        decide(&mesh.view, source, to, &mut turns)
    };
    let service = mesh.services[0].vips[0].address;
    // A refusal would be quick, and not what is to be measured.
    assert!(matches!(to(service, 80), Ok(Route::Tunnel(_))));
    let mut group = c.benchmark_group("outbound");
    let mut services = Mesh::spread(&mesh.services);
    group.bench_function(BenchmarkId::new("service", size), |b| {
        b.iter(|| services.next().map(|s| to(s.vips[0].address, 80)));
    });
    let mut workloads = Mesh::spread(&mesh.workloads);
    group.bench_function(BenchmarkId::new("workload", size), |b| {
        b.iter(|| workloads.next().map(|w| to(w.addresses[0], 8080)));
    });
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    group.bench_function(BenchmarkId::new("unknown", size), |b| {
        b.iter(|| to(elsewhere, 443));
    });
    if size >= WIDE {
        group.bench_function("service-of-1000", |b| b.iter(|| to(mesh.wide, 80)));
    }
    group.finish();
}

fn inbound(c: &mut Criterion<Clock>, mesh: &Mesh, size: usize) {
    let workload = &mesh.workloads[size / 2];
    let ip = workload.addresses[0];
    let address = SocketAddr::new(ip, 8080);
    let mine = workload.services.keys().next();
    let host = &*mine.expect("every workload of the mesh has one").hostname;
    let by_name = Target::Name { host, port: 80 };
    let by_address = Target::Address(address);
    let ask = |target, host| {
        let caller = Caller { peer: None, host };
        tunnelled(&mesh.view, workload, ip, black_box(target), caller)
    };
    for target in [by_address, by_name] {
        assert!(ask(target, None).is_ok_and(|let_in| let_in.service.is_some()));
    }
    let mut group = c.benchmark_group("inbound");
    group.bench_function(BenchmarkId::new("address", size), |b| {
        b.iter(|| ask(by_address, Some(host)));
    });
    group.bench_function(BenchmarkId::new("name", size), |b| {
        b.iter(|| ask(by_name, None));
    });
    group.bench_function(BenchmarkId::new("plaintext", size), |b| {
        b.iter(|| plaintext(&mesh.view, workload, black_box(address)));
    });
    group.finish();
}

fn lookup(c: &mut Criterion<Clock>, mesh: &Mesh, size: usize) {
    let view = &mesh.view;
    let mut group = c.benchmark_group("lookup");
    let mut workloads = Mesh::spread(&mesh.workloads);
    group.bench_function(BenchmarkId::new("workload-at", size), |b| {
        b.iter(|| {
            let next = workloads.next();
            next.and_then(|w| view.workload_at("", black_box(w.addresses[0])))
        });
    });
    let mut services = Mesh::spread(&mesh.services);
    group.bench_function(BenchmarkId::new("service-at", size), |b| {
        b.iter(|| {
            let next = services.next();
            next.and_then(|s| view.service_at("", black_box(s.vips[0].address), "shop"))
        });
    });
    let mut services = Mesh::spread(&mesh.services);
    group.bench_function(BenchmarkId::new("service-named", size), |b| {
        b.iter(|| {
            let next = services.next();
            next.and_then(|s| view.service_named(black_box(&s.key.hostname), "shop"))
        });
    });
    group.finish();
}
