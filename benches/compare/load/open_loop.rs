//! Requests at a rate: each has its time, and its latency counts from then.
//!
//! Threads, not tasks: tokio's timer counts milliseconds, which is longer than what is measured.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use rustix::thread::set_current_timer_slack;

use super::Told;
use super::http::Client;
use crate::fault::Fault;

/// Until every thread has its connection and waits.
const HEAD_START: Duration = Duration::from_millis(200);

/// Sends `rate` requests per second in all, over so many connections.
pub(super) fn run(
    to: SocketAddr,
    rate: u32,
    seconds: u32,
    connections: u32,
) -> Result<Told, Fault> {
    let clients = (0..connections).map(|_| Client::connect(to));
    let clients: Vec<Client> = clients.collect::<Result<_, _>>()?;
    let start = Instant::now() + HEAD_START;
    let span = Duration::from_secs(seconds.into());
    let threads = (0..connections).zip(clients).map(|(index, client)| {
        let turn = Turn {
            first: start + Duration::from_secs(1) * index / rate.max(1),
            every: Duration::from_secs(1) * connections / rate.max(1),
            end: start + span,
        };
        std::thread::spawn(move || turn.take(client))
    });
    // All are started before any is waited for.
    let threads: Vec<_> = threads.collect();
    let mut latencies = Vec::new();
    for thread in threads {
        let taken = thread.join();
        let taken =
            taken.unwrap_or_else(|_panic| Err(Fault::said("generating load", "a thread panicked")));
        latencies.extend(taken?);
    }
    Ok(Told::of(latencies, span.as_secs_f64()))
}

/// When a connection's requests are due.
struct Turn {
    first: Instant,
    every: Duration,
    end: Instant,
}

impl Turn {
    /// Latencies in nanoseconds from when each request was due.
    fn take(&self, mut client: Client) -> Result<Vec<u64>, Fault> {
        // The usual 50 µs would be most of what is measured.
        set_current_timer_slack(NonZeroU64::new(1))
            .map_err(|e| Fault::io("asking for exact timers")(e.into()))?;
        let mut latencies = Vec::new();
        let mut due = self.first;
        while due < self.end {
            // One that is overdue is sent at once, and its wait counts.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            client.ask()?;
            let took = due.elapsed().as_nanos();
            latencies.push(u64::try_from(took).unwrap_or(u64::MAX));
            due += self.every;
        }
        Ok(latencies)
    }
}
