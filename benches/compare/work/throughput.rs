//! How much a stream, or eight, can carry: iperf3.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::{Better, Figure, Site, Work};
use crate::exec::{anything, until};
use crate::fault::Fault;
use crate::rig::BRIEF;

/// Where iperf3 listens.
pub(crate) const PORT: u16 = 5201;

/// One row for each direction of one stream and of eight.
pub(super) fn works(congestion: &str) -> Vec<Work> {
    let shapes = [
        ("1 stream", &[][..]),
        ("1 stream reverse", &["-R"][..]),
        ("8 streams", &["-P", "8"][..]),
        ("8 streams reverse", &["-P", "8", "-R"][..]),
    ];
    let work = |(shape, more): (&str, &'static [&'static str])| {
        let figure = Figure::new("", "Gbit/s", Better::Higher);
        let name = format!("iperf3 {congestion} {shape}");
        Work::new(name, vec![figure], move |site| {
            let to = site.contender.mesh.server;
            Ok(vec![Some(iperf3(site, to, more)?)])
        })
    };
    shapes.into_iter().map(work).collect()
}

/// Gbit/s that arrive at the receiver.
pub(super) fn iperf3(site: &Site<'_>, to: Ipv4Addr, more: &[&str]) -> Result<f64, Fault> {
    let (to, port) = (to.to_string(), PORT.to_string());
    let seconds = site.seconds.to_string();
    // Omitted seconds come on top.
    let within = Duration::from_secs(u64::from(site.seconds) + 2) + BRIEF;
    let mut arrived = None;
    // The server takes one at a time, and may be busy with the end of the last.
    until("running iperf3", within + BRIEF, || {
        let mut command = site.stage.within(&site.contender.ground.client, "iperf3");
        command.args(["-J", "-c", &to, "-p", &port, "-t", &seconds]);
        let text = anything(command.args(more), within)?;
        arrived = Some(bits(&text)? / 1e9);
        Ok(true)
    })?;
    arrived.ok_or_else(|| Fault::said("running iperf3", "no report"))
}

fn bits(text: &str) -> Result<f64, Fault> {
    let wrong = |said: &str| Fault::said("running iperf3", said);
    let report: Value = serde_json::from_str(text).map_err(|_no_json| wrong(text.trim()))?;
    if let Some(error) = report["error"].as_str() {
        return Err(wrong(error));
    }
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.ok_or_else(|| wrong("its report has no end.sum_received.bits_per_second"))
}
