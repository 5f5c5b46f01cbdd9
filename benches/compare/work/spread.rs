//! One connection to each of 64 destinations, all busy at once.

use std::time::Duration;

use super::{Better, Figure, Work};
use crate::exec::output;
use crate::load;
use crate::rig::BRIEF;

/// Closed loops, one for each address of the server.
pub(super) fn work() -> Work {
    Work::new(
        "64 destinations at once",
        vec![
            Figure::new("requests", "1/s", Better::Higher),
            Figure::new("p99", "µs", Better::Lower),
        ],
        |site| {
            let mut command = load::command(site.stage, &site.contender.ground.client, "spread")?;
            command.arg(site.seconds.to_string());
            let to = site.contender.mesh.destinations.iter();
            command.args(to.map(|a| format!("{a}:{}", super::http::PORT)));
            let within = Duration::from_secs(site.seconds.into()) + BRIEF * 2;
            let told = load::Told::parse(&output(&mut command, "", within)?)?;
            Ok(vec![Some(told.rate), Some(told.p99)])
        },
    )
}
