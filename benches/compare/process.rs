//! What a process and those it started use of the machine.

use std::fs;
use std::time::Duration;

use crate::fault::Fault;

/// What the kernel counts processor time in for programs, whatever its own clock does.
const TICK: Duration = Duration::from_millis(10);

/// Resident bytes of a process and those it started.
///
/// # Errors
/// When it is gone.
pub(crate) fn resident(pid: u32) -> Result<u64, Fault> {
    let doing = || format!("reading the memory of process {pid}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(Fault::io(doing()))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let kib = kib.ok_or_else(|| Fault::said(doing(), "its status has no VmRSS"))?;
    let below: u64 = children(pid).map(resident).sum::<Result<u64, Fault>>()?;
    Ok(kib * 1024 + below)
}

/// Processor time of a process and those it started, those that have ended among them.
///
/// # Errors
/// When it is gone.
pub(crate) fn processor(pid: u32) -> Result<Duration, Fault> {
    let doing = || format!("reading the processor time of process {pid}");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(Fault::io(doing()))?;
    // Its name may have anything in it but ends with the last bracket; the state follows, which is
    // the third field, and utime, stime, cutime and cstime are the fourteenth and on.
    let fields = stat.rsplit_once(')').map(|(_name, rest)| rest);
    let fields = fields.unwrap_or_default().split_whitespace().skip(11);
    let ticks: Vec<u32> = fields.take(4).filter_map(|f| f.parse().ok()).collect();
    if ticks.len() < 4 {
        return Err(Fault::said(doing(), stat));
    }
    let own = TICK * ticks.iter().sum::<u32>();
    let below: Duration = children(pid)
        .map(processor)
        .sum::<Result<Duration, Fault>>()?;
    Ok(own + below)
}

fn children(pid: u32) -> impl Iterator<Item = u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    // Absent where the kernel is built without it: then what counts is what we started.
    let children = children.unwrap_or_default();
    let pids: Vec<u32> = children
        .split_whitespace()
        .filter_map(|c| c.parse().ok())
        .collect();
    pids.into_iter()
}
