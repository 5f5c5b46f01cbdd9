//! Bytes from one program to another over loopback: through two TCP connections, and through a
//! whole tunnel with mutual TLS at both ends.

mod rig;

use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use crate::clock::Clock;
use rig::{Program, Tunnels};

/// What one measurement of throughput moves.
const BULK: usize = 16 << 20;

pub(crate) fn benches(c: &mut Criterion<Clock>) {
    // A thread for each end of a tunnel, as on two hosts; the programs' work is little.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system has threads to give");
    transfers(c, &runtime, "relay-tcp", || {
        runtime.block_on(rig::relayed())
    });
    let tunnels = runtime.block_on(Tunnels::up());
    transfers(c, &runtime, "tunnel", || {
        runtime.block_on(tunnels.program())
    });
    opening(c, &runtime, &tunnels);
    // Relays and servers run until they are dropped, and so do not outlive their area.
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// Throughput and round trip between two programs that `connect` joins.
fn transfers(
    c: &mut Criterion<Clock>,
    runtime: &Runtime,
    name: &str,
    connect: impl Fn() -> Program,
) {
    let mut group = c.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .throughput(Throughput::Bytes(BULK as u64));
    let bulk = vec![0; BULK];
    group.bench_function("16-mib", |b| {
        let mut program = connect();
        b.iter(|| runtime.block_on(exchange(&mut program, &bulk)));
    });
    group.finish();
    let mut group = c.benchmark_group(name);
    group.bench_function("round-trip", |b| {
        let mut program = connect();
        b.iter(|| runtime.block_on(exchange(&mut program, &[0])));
    });
    group.finish();
}

/// Sends `bytes` and waits for the one byte with which the other program says that it has them.
async fn exchange(program: &mut Program, bytes: &[u8]) {
    let size = bytes.len() as u32;
    let sent = async {
        if program.told != size {
            program.told = size;
            program.tcp.write_u32(size).await?;
        }
        program.tcp.write_all(bytes).await?;
        program.tcp.read_u8().await
    };
    sent.await.expect("the relay between the programs is up");
}

/// From the wish for a tunnel to the peer's answer, on a connection that is up.
fn opening(c: &mut Criterion<Clock>, runtime: &Runtime, tunnels: &Tunnels) {
    let mut group = c.benchmark_group("tunnel");
    group.bench_function("open", |b| {
        b.iter_custom(|times| {
            runtime.block_on(async {
                let mut taken = Duration::ZERO;
                for _ in 0..times {
                    let begun = Instant::now();
                    let tunnel = tunnels.open(rig::BARE).await;
                    taken += begun.elapsed();
                    // A tunnel that is dropped half open is a reset, of which a peer takes few.
                    rig::end(tunnel).await;
                }
                taken
            })
        });
    });
    group.finish();
}
