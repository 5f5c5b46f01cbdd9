//! A large mesh and many nodes: what they cost the control role, and what a change costs
//! (`make bench-scale`; `spec/control-plane.md` §9.4 has the budget).
//!
//! The real binary's control role serves a mesh directory written here. Nodes are simulated: they
//! open streams, read and acknowledge, and keep nothing; one is a real agent in a process of its
//! own, whose memory is that of a full view. All of them share the machine with the control role.
//!
//! `WORKLOADS`, `SERVICES`, `NODES` and `CHANGES` set other sizes than 100,000, 5,000, 200 and 20.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench fails by panicking, takes its settings from the environment, and prints"
)]

mod agent;
mod fleet;
mod mesh;
#[allow(dead_code, reason = "what the tests of the control role need besides")]
#[path = "../../tests/control/support.rs"]
mod support;

use std::time::{Duration, Instant};

use fleet::{Asking, Fleet};
use mesh::Size;
use support::{Running, Site, token_for};

/// Longest wait for anything; a debug build is slow.
const PATIENCE: Duration = Duration::from_secs(900);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.split_first() {
        Some((word, rest)) if word == agent::WORD => runtime.block_on(agent::main(rest)),
        // Whatever else there is, cargo says to every benchmark.
        _ => runtime.block_on(measure(Size::from_environment())),
    }
}

async fn measure(size: Size) {
    println!(
        "{} workloads, {} services, {} nodes; {}",
        size.workloads,
        size.services,
        size.nodes,
        if cfg!(debug_assertions) {
            "a debug build: figures mean nothing"
        } else {
            "release build"
        },
    );
    let site = Site::new();
    let bytes = mesh::write(&site, size);
    row("mesh files", &mebibytes(bytes));
    let begun = Instant::now();
    let mut running = site.start();
    let status = loop {
        assert!(running.is_alive(), "it ended:\n{}", site.log());
        match site.status().await {
            Ok(status) if status.revision.is_some() => break status,
            _ if begun.elapsed() > PATIENCE => panic!("no revision\n{}", site.log()),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(status.workloads, size.workloads, "{}", status.problems);
    row("start to first revision", &seconds(begun.elapsed()));
    compile_time(&site).await;
    memory(&running, "control role, loaded");
    let bearer = bearers(&site, size).await;
    wildcard(&site, &running, size, &bearer).await;
    on_demand(&site, &running, size, &bearer).await;
    agent::measure(&site).await;
    memory(&running, "control role, at the end");
}

async fn bearers(site: &Site, size: Size) -> Vec<String> {
    let mut all = Vec::new();
    for node in 0..size.nodes {
        let ask = token_for(&mesh::node(node));
        all.push(site.token(true, &ask).await.unwrap());
    }
    all
}

/// Every node follows everything.
async fn wildcard(site: &Site, running: &Running, size: Size, bearers: &[String]) {
    println!("\nwildcard, as every node does");
    let begun = Instant::now();
    let mut fleet = Fleet::open(site, bearers, Asking::Everything).await;
    let synced = fleet.synced(PATIENCE).await;
    row("first sync, all nodes", &seconds(begun.elapsed()));
    row("first sync, of one: median, slowest", &spread(synced.times));
    row(
        "bytes to one node",
        &mebibytes(synced.bytes / size.nodes.max(1)),
    );
    row(
        "resources to one node",
        &(synced.resources / size.nodes.max(1)).to_string(),
    );
    memory(running, "control role, all nodes synced");
    changes(site, &mut fleet, size, size.nodes).await;
    memory(running, "control role, after the changes");
    fleet.close().await;
}

/// Every node follows twenty services and what is behind them.
async fn on_demand(site: &Site, running: &Running, size: Size, bearers: &[String]) {
    println!("\non demand, {} services each", fleet::SERVICES);
    let begun = Instant::now();
    let mut fleet = Fleet::open(site, bearers, Asking::Services(size)).await;
    let synced = fleet.synced(PATIENCE).await;
    row("first sync, all nodes", &seconds(begun.elapsed()));
    row("first sync, of one: median, slowest", &spread(synced.times));
    row(
        "bytes to one node",
        &kibibytes(synced.bytes / size.nodes.max(1)),
    );
    row(
        "resources to one node",
        &(synced.resources / size.nodes.max(1)).to_string(),
    );
    memory(running, "control role, all nodes synced");
    // Of a workload whose service every node asked for.
    changes(site, &mut fleet, size, size.nodes).await;
    fleet.close().await;
}

/// Edits one workload's file again and again; how long until all nodes have it, and its bytes.
async fn changes(site: &Site, fleet: &mut Fleet, size: Size, nodes: usize) {
    let (mut times, mut largest) = (Vec::new(), 0);
    for capacity in 2..2 + size.changes {
        let begun = Instant::now();
        mesh::change(site, size, capacity);
        let heard = fleet.heard(nodes, PATIENCE).await;
        times.push(begun.elapsed());
        largest = largest.max(heard.largest);
    }
    row(
        "one change, edit to last node: median, slowest",
        &spread(times),
    );
    row(
        "one change, bytes to one node at most",
        &format!("{largest} B"),
    );
    compile_time(site).await;
}

async fn compile_time(site: &Site) {
    let sum = site
        .metric("lateen_compile_seconds_sum")
        .await
        .unwrap_or_default();
    let count = site
        .metric("lateen_compile_seconds_count")
        .await
        .unwrap_or_default();
    let mean = Duration::from_secs_f64(sum / count.max(1.0));
    row("  of which compiling, mean so far", &seconds(mean));
}

fn memory(running: &Running, what: &str) {
    let [now, peak] = ["VmRSS:", "VmHWM:"].map(|key| agent::kilobytes(running.pid(), key));
    row(
        what,
        &format!("{} (peak {})", mebibytes(now << 10), mebibytes(peak << 10)),
    );
}

fn row(what: &str, value: &str) {
    println!("  {what:<48} {value}");
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    format!("{}, {}", seconds(median), seconds(slowest))
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn kibibytes(bytes: usize) -> String {
    format!("{:.1} KiB", bytes as f64 / 1024.0)
}
