//! Memory: of proxies that have carried nothing, and of the same with ten thousand connections
//! open through them that carry nothing, or as many as they let through.

use std::time::Duration;

use super::{Better, Figure, Site, Work};
use crate::exec::Daemon;
use crate::fault::Fault;
use crate::load;

/// Where the server that keeps connections open listens.
pub(crate) const PORT: u16 = 7000;
/// Connections that are opened.
const CONNECTIONS: u32 = 10_000;
/// Longest that opening them all may take.
const OPENING: Duration = Duration::from_secs(120);
/// Until proxies have given back what they only needed for opening.
const SETTLING: Duration = Duration::from_secs(2);

/// Both sides' memory, before and with.
pub(super) fn work() -> Work {
    let mib = |name| Figure::new(name, "MiB", Better::Lower);
    let bytes = |name| Figure::new(name, "B", Better::Lower);
    let figures = vec![
        mib("client's proxy, idle"),
        mib("server's proxy, idle"),
        Figure::new("opened of 10000 connections", "", Better::Higher),
        mib("client's proxy, with these"),
        mib("server's proxy, with these"),
        bytes("client's proxy, for each"),
        bytes("server's proxy, for each"),
    ];
    let mut work = Work::new("memory", figures, measure);
    work.once = true;
    work
}

fn measure(site: &Site<'_>) -> Result<Vec<Option<f64>>, Fault> {
    if site.contender.mesh.client_side.is_empty() {
        return Ok(vec![None; 7]);
    }
    let mut command = load::command(site.stage, &site.contender.ground.client, "hold")?;
    let to = format!("{}:{PORT}", site.contender.mesh.server);
    let mut holder = Daemon::spoken_to(command.args([to, CONNECTIONS.to_string()]))?;
    let doing = || format!("opening {CONNECTIONS} connections");
    let line = holder.line(OPENING).ok_or_else(|| Fault::Late {
        doing: doing(),
        within: OPENING,
    })?;
    let opened = line.trim().parse().ok().filter(|n| *n > 0);
    let opened: u32 = opened.ok_or_else(|| Fault::said(doing(), line.trim()))?;
    std::thread::sleep(SETTLING);
    let idle = site.contender.idle;
    let open = site.contender.resident()?;
    let mib = |bytes: u64| Some(number(bytes) / f64::from(1 << 20));
    let each = |before: u64, after: u64| Some((number(after) - number(before)) / f64::from(opened));
    Ok(vec![
        mib(idle.0),
        mib(idle.1),
        Some(f64::from(opened)),
        mib(open.0),
        mib(open.1),
        each(idle.0, open.0),
        each(idle.1, open.1),
    ])
}

/// Bytes as a number to divide.
#[expect(
    clippy::cast_precision_loss,
    reason = "memory of a process is far below 2^52 bytes"
)]
fn number(bytes: u64) -> f64 {
    bytes as f64
}
