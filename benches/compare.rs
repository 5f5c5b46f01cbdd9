//! The same work with and without the mesh, in turn and in one run: `make bench`.
//!
//! Only the ratios mean anything: both sides share the machine, and machines are noisy. Needs
//! iperf3 in the rig's hosts; says so and fails where it is missing.

use std::path::Path;
use std::process::ExitCode;

use lateen::demo::Fleet;

/// Rounds of each; the median is told with its spread.
const ROUNDS: usize = 3;
/// Seconds of each measurement.
const SECONDS: &str = "3";

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(), String> {
    let binary = Path::new(env!("CARGO_BIN_EXE_lateen"));
    let fleet = Fleet::up(binary, |step| println!("  {step}")).map_err(|e| e.to_string())?;
    let congestion = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    println!(
        "\ncongestion control of the host: {}",
        congestion.unwrap_or_default().trim()
    );
    // The same two network stacks either way: the plain server is in a namespace that is not
    // captured, the other in one that is.
    let plain = ("edge-1", None, "10.77.0.12");
    let mesh = ("edge-1", Some("web"), "10.77.2.13");
    let servers = [
        fleet.program("edge-2", None, "iperf3", &["-s", "-p", "5201"]),
        fleet.program("edge-2", Some("ledger"), "iperf3", &["-s", "-p", "5201"]),
    ];
    let _servers: Vec<_> = servers
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    println!(
        "{:<22}{:>12}{:>12}{:>22}",
        "iperf3, Gbit/s", "no mesh", "lateen", "ratio (low to high)"
    );
    for (name, more) in [
        ("1 stream", &[][..]),
        ("1 stream, reverse", &["-R"][..]),
        ("8 streams", &["-P", "8"][..]),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let without = throughput(&fleet, plain, more)?;
            let with = throughput(&fleet, mesh, more)?;
            rounds.push((with / without, without, with));
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (low, middle, high) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        let spread = format!("{:.2} ({:.2} to {:.2})", middle.0, low.0, high.0);
        println!("{name:<22}{:>12.1}{:>12.1}{spread:>22}", middle.1, middle.2);
    }
    Ok(())
}

/// Gbit/s that arrive at the receiver.
fn throughput(
    fleet: &Fleet,
    (host, namespace, to): (&str, Option<&str>, &str),
    more: &[&str],
) -> Result<f64, String> {
    let mut words = vec!["-c", to, "-p", "5201", "-t", SECONDS, "-J"];
    words.extend(more);
    for _attempt in 0..20 {
        let program = fleet
            .program(host, namespace, "iperf3", &words)
            .map_err(|e| e.to_string())?;
        let report: serde_json::Value = serde_json::from_str(&program.finished().join("\n"))
            .map_err(|_none| {
                "iperf3 does not run; install it: apt-get install iperf3".to_owned()
            })?;
        if let Some(bits) = report["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(bits / 1e9);
        }
        // The server is not up yet, or still busy with the round before.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Err(format!("iperf3 to {to} never ran"))
}
