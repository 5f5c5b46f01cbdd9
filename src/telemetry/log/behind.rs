//! Writes the log behind the backs of those who log: a line costs them a copy, not a system call,
//! and a reader of the log that has fallen asleep holds up nobody. What does not fit is dropped and
//! counted, and the count is told.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written; two seconds of a node that logs ten thousand connections a second.
const LIMIT: usize = 8 << 20;
/// How long the first line waits for others to be written with it.
const DELAY: Duration = Duration::from_millis(20);

/// Where lines go. Until somebody writes behind, they are written at once.
#[derive(Clone, Default)]
pub struct Behind {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    text: Vec<u8>,
    lost: u64,
    /// There is a thread that writes.
    written: bool,
}

/// The thread that writes. Dropping it writes what is left, and from then on lines are written at
/// once again.
pub struct Writing {
    behind: Behind,
    thread: Option<JoinHandle<()>>,
}

impl Behind {
    /// Writes from a thread of its own to `out`. To be called once, when the process is who it wants
    /// to be: threads keep the user and the capabilities they begin with.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(&self, out: impl Write + Send + 'static) -> io::Result<Writing> {
        let shared = Arc::clone(&self.shared);
        self.shared.lock().written = true;
        let thread = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write(out));
        let thread = thread.inspect_err(|_none| self.shared.lock().written = false)?;
        Ok(Writing {
            behind: self.clone(),
            thread: Some(thread),
        })
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: impl Write) {
        loop {
            let queue = self.lock();
            let idle = |q: &mut Queue| q.text.is_empty() && q.lost == 0 && q.written;
            let queue = self.changed.wait_while(queue, idle);
            let queue = queue.unwrap_or_else(PoisonError::into_inner);
            let more = self.changed.wait_timeout_while(queue, DELAY, |q| q.written);
            let (mut queue, _elapsed) = more.unwrap_or_else(PoisonError::into_inner);
            let text = mem::take(&mut queue.text);
            let lost = mem::take(&mut queue.lost);
            let last = !queue.written;
            drop(queue);
            // There is nowhere to tell of a log that cannot be written.
            let _untold = out.write_all(&text);
            if lost > 0 {
                let _untold = writeln!(out, "{lost} log lines were dropped: nobody read the log");
            }
            if last {
                return;
            }
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.behind.shared.lock().written = false;
        self.behind.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has said so itself, if at all possible.
            let _died = thread.join();
        }
    }
}

impl Write for Behind {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.shared.lock();
        if !queue.written {
            drop(queue);
            return io::stderr().write_all(line).map(|()| line.len());
        }
        if queue.text.len() + line.len() > LIMIT {
            queue.lost += 1;
        } else {
            if queue.text.is_empty() {
                self.shared.changed.notify_one();
            }
            queue.text.extend_from_slice(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Behind {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Gives on what is written, each write when it is let.
    struct Slow {
        let_through: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ended = self.let_through.recv();
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_or_counted() {
        let (let_one, let_through) = channel();
        let (written, seen) = channel();
        let mut behind = Behind::default();
        let slow = Slow {
            let_through,
            written,
        };
        let writing = behind.start(slow).unwrap();
        behind.write_all(b"one\n").unwrap();
        let_one.send(()).unwrap();
        assert_eq!(seen.recv().unwrap(), b"one\n");
        // It may take the first of these at once, so that the others have all the room.
        let half = vec![b'x'; LIMIT / 2];
        for _ in 0..5 {
            behind.write_all(&half).unwrap();
        }
        drop(let_one);
        drop(writing);
        let rest: Vec<u8> = seen.iter().flatten().collect();
        let text = String::from_utf8(rest).unwrap();
        let kept = text.matches('x').count() / half.len();
        let lost = 5 - kept;
        assert!((2..=4).contains(&kept), "{kept}");
        let told = format!("{lost} log lines were dropped");
        assert!(text.contains(&told), "{told}");
    }
}
