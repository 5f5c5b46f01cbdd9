//! Keeps the service manager informed: ready once the process does what it is for, how it is, and
//! that its threads answer.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::pulse::{Beat, Pulse};
use super::{Manager, Word};

/// Between looks while the process starts, so that what waits for it does not wait longer.
const EAGER: Duration = Duration::from_millis(100);
/// Between looks after that.
const CALM: Duration = Duration::from_secs(1);
/// How much longer a start or a stop may take while the threads answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// After how many looks a thread that does not answer is worth a line: a busy one may miss one.
const LATE: u32 = 3;

/// What the process is at, as far as it knows itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It starts, or serves.
    #[default]
    Up,
    /// It reads its settings again.
    Reloading,
    /// It stops.
    Stopping,
}

/// How the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What it still waits for before it does all that it is for.
    pub pending: Option<String>,
    /// One line for operators.
    pub status: String,
}

/// Tells the manager.
pub struct Herald<S> {
    manager: Manager,
    pulse: Pulse,
    /// Of the runtime alone, which is all that is left in the end.
    last: Pulse,
    phase: watch::Receiver<Phase>,
    state: S,
}

impl<S: FnMut() -> State> Herald<S> {
    /// Tells `manager` of what `state` says, while `pulse` beats; `last` is what must beat while the
    /// process stops.
    pub fn new(
        manager: Manager,
        pulse: Pulse,
        last: Pulse,
        phase: watch::Receiver<Phase>,
        state: S,
    ) -> Self {
        Self {
            manager,
            pulse,
            last,
            phase,
            state,
        }
    }

    /// Tells until `end`, which comes after the stop.
    pub async fn run(mut self, end: CancellationToken) {
        let watchdog = self.manager.watchdog().map(|limit| limit / 4);
        let calm = CALM.min(watchdog.unwrap_or(CALM));
        let mut ticks = [EAGER.min(calm), calm].map(|every| {
            let mut tick = interval(every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tick
        });
        let mut progress = Progress::new(Instant::now());
        loop {
            let [eager, calm] = &mut ticks;
            tokio::select! {
                () = end.cancelled() => return,
                Ok(()) = self.phase.changed() => {}
                _now = eager.tick(), if !progress.ready => {}
                _now = calm.tick() => {}
            }
            let phase = *self.phase.borrow_and_update();
            let beat = match phase {
                Phase::Stopping => self.last.beat(),
                Phase::Up | Phase::Reloading => self.pulse.beat(),
            };
            let words = progress.next(Instant::now(), phase, beat, (self.state)());
            self.manager.tell(&words);
        }
    }
}

/// What the manager knows.
struct Progress {
    ready: bool,
    phase: Phase,
    status: String,
    /// Until when it waits for a start or a stop to end.
    patient_until: Instant,
    /// Looks in a row at which something did not answer.
    late: u32,
}

impl Progress {
    fn new(now: Instant) -> Self {
        Self {
            ready: false,
            phase: Phase::Up,
            status: String::new(),
            patient_until: now,
            late: 0,
        }
    }

    /// What to tell it now.
    fn next(&mut self, now: Instant, phase: Phase, beat: Beat, state: State) -> Vec<Word> {
        let mut words = Vec::new();
        self.turn(phase, &state, &mut words);
        let status = match (&state.pending, phase) {
            (_, Phase::Stopping) => format!("stopping: {}", state.status),
            (Some(pending), _) if !self.ready => format!("starting, waiting for {pending}"),
            _ => state.status,
        };
        if status != self.status {
            words.push(Word::Status(status.clone()));
            self.status = status;
        }
        if self.beats(beat) {
            words.push(Word::Alive);
            let waits = !self.ready || phase == Phase::Stopping;
            if waits && self.patient_until.saturating_duration_since(now) < PATIENCE / 2 {
                self.patient_until = now + PATIENCE;
                words.push(Word::Patience(PATIENCE));
            }
        }
        words
    }

    /// Takes note of where the process is, and tells where that is news.
    fn turn(&mut self, phase: Phase, state: &State, words: &mut Vec<Word>) {
        let before = std::mem::replace(&mut self.phase, phase);
        match (before, phase) {
            (Phase::Up, Phase::Reloading) => words.push(Word::Reloading),
            (Phase::Reloading, Phase::Up) if self.ready => words.push(Word::Ready),
            (Phase::Up | Phase::Reloading, Phase::Stopping) => words.push(Word::Stopping),
            _ => {}
        }
        if !self.ready && phase == Phase::Up && state.pending.is_none() {
            self.ready = true;
            info!("ready");
            words.push(Word::Ready);
        }
    }

    /// Whether the manager may be told that nothing hangs. That something does is logged once.
    fn beats(&mut self, beat: Beat) -> bool {
        if beat == Beat::Alive {
            self.late = 0;
            return true;
        }
        self.late = self.late.saturating_add(1);
        match (beat, self.late) {
            (Beat::Dead, 1) => error!("a thread of this process has ended"),
            (Beat::Late(threads), LATE) => warn!(threads, "threads of this process do not answer"),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(what: &str) -> State {
        State {
            pending: Some(what.to_owned()),
            status: "up".to_owned(),
        }
    }

    fn well() -> State {
        State {
            pending: None,
            status: "up".to_owned(),
        }
    }

    fn status(text: &str) -> Word {
        Word::Status(text.to_owned())
    }

    #[test]
    fn the_manager_is_told_what_is_news() {
        let begun = Instant::now();
        let mut progress = Progress::new(begun);
        let patience = || Word::Patience(PATIENCE);
        let steps = [
            (
                "the start",
                (0, Phase::Up, Beat::Alive, waiting("a mesh")),
                vec![
                    status("starting, waiting for a mesh"),
                    Word::Alive,
                    patience(),
                ],
            ),
            (
                "still the same",
                (1, Phase::Up, Beat::Alive, waiting("a mesh")),
                vec![Word::Alive],
            ),
            (
                "a hung start is not to last",
                (16, Phase::Up, Beat::Late(1), waiting("a mesh")),
                vec![],
            ),
            (
                "a long one may",
                (17, Phase::Up, Beat::Alive, waiting("a mesh")),
                vec![Word::Alive, patience()],
            ),
            (
                "ready",
                (18, Phase::Up, Beat::Alive, well()),
                vec![Word::Ready, status("up"), Word::Alive],
            ),
            (
                "a serving process that hangs",
                (60, Phase::Up, Beat::Late(1), well()),
                vec![],
            ),
            (
                "trouble after that is no new start",
                (61, Phase::Up, Beat::Alive, waiting("a mesh")),
                vec![Word::Alive],
            ),
            (
                "a reload",
                (62, Phase::Reloading, Beat::Alive, well()),
                vec![Word::Reloading, Word::Alive],
            ),
            (
                "its end",
                (63, Phase::Up, Beat::Alive, well()),
                vec![Word::Ready, Word::Alive],
            ),
            (
                "the stop",
                (64, Phase::Stopping, Beat::Alive, well()),
                vec![
                    Word::Stopping,
                    status("stopping: up"),
                    Word::Alive,
                    patience(),
                ],
            ),
            (
                "a long drain",
                (80, Phase::Stopping, Beat::Alive, well()),
                vec![Word::Alive, patience()],
            ),
        ];
        for (name, (second, phase, beat, state), want) in steps {
            let now = begun + Duration::from_secs(second);
            assert_eq!(progress.next(now, phase, beat, state), want, "{name}");
        }
    }

    #[test]
    fn a_stop_before_the_end_of_the_start_is_no_readiness() {
        let mut progress = Progress::new(Instant::now());
        let now = Instant::now();
        let told = progress.next(now, Phase::Stopping, Beat::Alive, well());
        assert!(told.contains(&Word::Stopping) && !told.contains(&Word::Ready));
    }

    #[test]
    fn a_dead_thread_is_never_alive() {
        let mut progress = Progress::new(Instant::now());
        let now = Instant::now();
        let told = progress.next(now, Phase::Up, Beat::Dead, well());
        assert!(!told.contains(&Word::Alive), "{told:?}");
    }
}
