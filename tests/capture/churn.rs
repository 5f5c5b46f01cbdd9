//! Units that start, restart and stop at random: in the end rules and reality agree, and nothing has
//! grown meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use lateen::capture::host::Standing;
use lateen::capture::{Mark, Wanted};

use crate::programs::{Server, visit};
use crate::room::{OUTSIDE, Room, at, cases, eventually};
use crate::site::{Came, HostProxy, Site, wanted};

/// A sequence of its own that is the same each time (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes.and_then(|text| text.parse().ok()).unwrap()
}

fn name(nth: usize) -> String {
    format!("u{nth}")
}

fn churn(room: &Room, units: usize, time: Duration) {
    let Some(site) = Site::of(room) else { return };
    let _server = Server::outside(80);
    let workloads: Vec<Wanted> = (0..units)
        .map(|nth| wanted(nth, site.unit(&name(nth)), 10_000 + nth as u16))
        .collect();
    let proxy = HostProxy::start(room, site.terms(), workloads);
    let before = (descriptors(), threads());
    let memory = resident();
    let mut runs = vec![false; units];
    let (mut dice, mut changes) = (Dice(7), 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let nth = dice.below(units);
        let unit = name(nth);
        match (runs[nth], dice.below(3)) {
            (true, 0) => {
                site.stop(&unit);
                site.start(&unit);
            }
            (true, _) => {
                site.stop(&unit);
                runs[nth] = false;
            }
            (false, _) => {
                site.start(&unit);
                runs[nth] = true;
            }
        }
        changes += 1;
        if changes % 20 == 0 {
            // As fast as a busy host at most: some hundred a second.
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let took = eventually("rules as the units are", || {
        let wrong: Vec<_> = (0..units)
            .filter(|nth| {
                let want = if runs[*nth] {
                    Standing::Captured
                } else {
                    Standing::Absent
                };
                proxy.standing(*nth) != Some(want)
            })
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    });
    let to = at(OUTSIDE[0], 80);
    let running = (0..units).filter(|nth| runs[*nth]);
    for nth in running.take(50) {
        site.within(&name(nth), || visit(to)).unwrap();
        assert_eq!(
            proxy.came(),
            [Came::Outbound(Mark::all().nth(nth), to)],
            "unit {nth}"
        );
    }
    eventually("no more descriptors and threads than before", || {
        let now = (descriptors(), threads());
        // The server serves each of its clients on a thread until it hears the end.
        if now.0 <= before.0 + 2 && now.1 <= before.1 + 1 {
            Ok(())
        } else {
            Err((before, now))
        }
    });
    let grown = resident().saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB more than before");
    eprintln!(
        "{units} units, {changes} changes in {time:?}; settled {took:?} later, {grown} KiB more"
    );
    for nth in (0..units).filter(|nth| runs[*nth]) {
        site.stop(&name(nth));
    }
}

cases! {
    fn sixty_units_start_and_stop_at_random(room: &Room) {
        churn(room, 60, Duration::from_secs(8));
    }

    #[ignore = "takes ten minutes; cargo test --test capture -- --ignored a_thousand_units"]
    fn a_thousand_units_start_and_stop_at_random(room: &Room) {
        churn(room, 1000, Duration::from_secs(600));
    }
}
