//! Whether the threads of this process still do what they are given: each is handed a task that
//! does nothing, and has until the next look to have done it.

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// How the threads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// All have answered since the last look.
    Alive,
    /// So many have not.
    Late(usize),
    /// One has ended, and will not answer any more.
    Dead,
}

/// The threads that must answer.
pub struct Pulse {
    runtimes: Vec<Handle>,
    /// What they have been given and have not done.
    asked: JoinSet<()>,
    dead: bool,
}

impl Pulse {
    /// Of the threads behind `runtimes`.
    pub fn new(runtimes: Vec<Handle>) -> Self {
        Self {
            runtimes,
            asked: JoinSet::new(),
            dead: false,
        }
    }

    /// How they are, and asks those anew that have answered. Of one that is late nothing more is
    /// asked until it has answered.
    pub fn beat(&mut self) -> Beat {
        while let Some(answer) = self.asked.try_join_next() {
            self.dead |= answer.is_err();
        }
        if self.dead {
            return Beat::Dead;
        }
        if !self.asked.is_empty() {
            return Beat::Late(self.asked.len());
        }
        for runtime in &self.runtimes {
            self.asked.spawn_on(async {}, runtime);
        }
        Beat::Alive
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn runtime() -> Runtime {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).build().unwrap()
    }

    fn until(pulse: &mut Pulse, want: Beat) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut last = pulse.beat();
        while last != want {
            assert!(Instant::now() < deadline, "{want:?}: last {last:?}");
            thread::yield_now();
            last = pulse.beat();
        }
    }

    #[test]
    fn a_thread_that_hangs_is_late_until_it_goes_on() {
        let (good, hanging) = (runtime(), runtime());
        let mut pulse = Pulse::new(vec![good.handle().clone(), hanging.handle().clone()]);
        until(&mut pulse, Beat::Alive);
        let (go_on, hang) = mpsc::sync_channel::<()>(0);
        let (begun, hangs) = mpsc::sync_channel(1);
        let hung = hanging.spawn(async move {
            begun.send(()).unwrap();
            let _dropped = hang.recv();
        });
        hangs.recv().unwrap();
        until(&mut pulse, Beat::Late(1));
        for _ in 0..100 {
            assert_eq!(pulse.beat(), Beat::Late(1));
        }
        drop(go_on);
        until(&mut pulse, Beat::Alive);
        good.block_on(hung).unwrap();
    }

    #[test]
    fn a_thread_that_has_ended_is_dead() {
        let ended = runtime();
        let mut pulse = Pulse::new(vec![ended.handle().clone()]);
        drop(ended);
        until(&mut pulse, Beat::Dead);
        assert_eq!(pulse.beat(), Beat::Dead);
    }
}
