//! Memory: of proxies that have carried nothing, and of the same with ten thousand connections
//! open through them that carry nothing.

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
        mib("client's proxy, 10000 open"),
        mib("server's proxy, 10000 open"),
        bytes("client's proxy, per connection"),
        bytes("server's proxy, per connection"),
    ];
    let mut work = Work::new("memory", figures, measure);
    work.once = true;
    work
}

fn measure(site: &Site<'_>) -> Result<Vec<Option<f64>>, Fault> {
    if site.contender.mesh.client_side.is_empty() {
        return Ok(vec![None; 6]);
    }
    let mut command = load::command(site.stage, &site.contender.ground.client, "hold")?;
    let to = format!("{}:{PORT}", site.contender.mesh.server);
    let mut holder = Daemon::spoken_to(command.args([to, CONNECTIONS.to_string()]))?;
    let doing = format!("opening {CONNECTIONS} connections");
    let line = holder
        .line(OPENING)
        .ok_or_else(|| Fault::said(&doing, "not done in time"))?;
    if line.trim() != load::HELD {
        return Err(Fault::said(doing, line.trim()));
    }
    std::thread::sleep(SETTLING);
    let idle = site.contender.idle;
    let open = site.contender.resident()?;
    let mib = |bytes: u64| Some(number(bytes) / f64::from(1 << 20));
    let each =
        |before: u64, after: u64| Some((number(after) - number(before)) / f64::from(CONNECTIONS));
    Ok(vec![
        mib(idle.0),
        mib(idle.1),
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
