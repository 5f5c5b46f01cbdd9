//! Requests at a fixed rate, whatever becomes of them: latencies count from when a request was due,
//! so that a stall shows in all requests that it delays.

use std::time::Duration;

use super::{Better, Figure, Work};
use crate::exec::output;
use crate::load;
use crate::rig::BRIEF;

/// Connections that share the rate.
const CONNECTIONS: &str = "16";

/// A rate in requests per second.
pub(super) fn work(rate: u32) -> Work {
    Work::new(
        format!("open loop {rate}/s"),
        vec![
            Figure::new("p50", "µs", Better::Lower).with_added(),
            Figure::new("p99", "µs", Better::Lower),
            Figure::new("p99.9", "µs", Better::Lower),
        ],
        move |site| {
            let mut command =
                load::command(site.stage, &site.contender.ground.client, "open-loop")?;
            let (rate, seconds) = (rate.to_string(), site.seconds.to_string());
            let to = format!("{}:{}", site.contender.mesh.server, super::http::PORT);
            command.args([&to, &rate, &seconds, CONNECTIONS]);
            let within = Duration::from_secs(site.seconds.into()) * 2 + BRIEF;
            let told = load::Told::parse(&output(&mut command, "", within)?)?;
            Ok(vec![Some(told.p50), Some(told.p99), Some(told.p999)])
        },
    )
}
