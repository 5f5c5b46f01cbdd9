//! A real agent in a process of its own: what a full view costs a node.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lateen::agent::identity::{Keeper, NodeIdentity};
use lateen::agent::join::join;
use lateen::agent::report::LocalStates;
use lateen::agent::{Agent, Member};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::mesh;
use crate::support::{Site, token_for};

/// The first word of the command line that makes this program the agent.
pub(crate) const WORD: &str = "agent";

/// Starts it, and prints what it says.
pub(crate) async fn measure(site: &Site) {
    println!("\na node's agent");
    let token = site.token(false, &token_for(&mesh::node(0))).await.unwrap();
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own);
    command.args([WORD, &site.url(), &token, &mesh::node(0)]);
    let state = site.path("agent");
    let run = tokio::task::spawn_blocking(move || command.arg(state).status());
    assert!(run.await.unwrap().unwrap().success());
}

/// Joins, follows the mesh, and prints its memory once it has all of it.
pub(crate) async fn main(arguments: &[String]) {
    let [url, token, node, state] = arguments else {
        panic!("agent URL TOKEN NODE STATE");
    };
    let state = Path::new(state);
    join(url, &token.parse().unwrap(), node, state)
        .await
        .unwrap();
    let identity = NodeIdentity::load(state).unwrap().unwrap();
    let keeper = Keeper::new(state, identity);
    let (_captures, seen) = watch::channel(LocalStates::default());
    let week = Duration::from_secs(8 * 86_400);
    let (agent, mut handle) = Agent::new(
        state,
        state.join("trust"),
        Member::Joined(keeper),
        vec![url.clone()],
        week,
        Vec::new(),
        seen,
    );
    let before = kilobytes(std::process::id(), "VmRSS:");
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    tasks.spawn(agent.run(CancellationToken::new()));
    handle
        .mesh
        .wait_for(|mesh| mesh.revision.is_some())
        .await
        .unwrap();
    crate::row(
        "agent, start to a full view",
        &crate::seconds(begun.elapsed()),
    );
    // The certificates of its workloads and the copy on disk come after.
    let quiet = tokio::time::sleep(Duration::from_secs(5));
    quiet.await;
    let [now, peak] = ["VmRSS:", "VmHWM:"].map(|key| kilobytes(std::process::id(), key));
    let view = crate::mebibytes(now.saturating_sub(before) << 10);
    let (now, peak) = (crate::mebibytes(now << 10), crate::mebibytes(peak << 10));
    crate::row(
        "agent, memory with a full view",
        &format!("{now} (peak {peak}), {view} more than without"),
    );
}

/// A line of `/proc/PID/status`, in KiB.
pub(crate) fn kilobytes(pid: u32, key: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|n| n.parse().ok()).unwrap_or_default()
}
