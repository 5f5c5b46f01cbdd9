//! Files of access logs (`spec/waypoint-l7.md` §6.3): a record costs whoever writes it a copy, not a system
//! call, and what comes faster than it is written is dropped and counted. A file that was renamed or is
//! gone is begun anew, as those who rotate logs expect.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::warn;

use super::Metrics;

/// Bytes that wait to be written to one file; some seconds of ten thousand requests each.
const LIMIT: usize = 8 << 20;
/// How long the first record waits for others to be written with it.
const DELAY: Duration = Duration::from_millis(20);

/// The files that are written, by path.
pub struct Files {
    open: Mutex<HashMap<Arc<str>, Arc<LogFile>>>,
    metrics: Arc<Metrics>,
}

impl Files {
    /// None as yet; what is lost is counted there.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            open: Mutex::default(),
            metrics,
        }
    }

    /// The file of this path, which is written until nobody has it. Those that nobody has are closed.
    pub fn open(&self, path: &Arc<str>) -> Arc<LogFile> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(path) {
            return Arc::clone(file);
        }
        let file = Arc::new(LogFile::new(path, self.metrics.records_dropped(path)));
        let former = mem::take(&mut *open).into_iter();
        let (held, left): (HashMap<_, _>, HashMap<_, _>) =
            former.partition(|(_, file)| Arc::strong_count(file) > 1);
        *open = held;
        open.insert(Arc::clone(path), Arc::clone(&file));
        drop(open);
        // What is in them is written first.
        drop(left);
        file
    }
}

/// A file with a thread that writes it.
pub struct LogFile {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Queue {
    text: Vec<u8>,
    closed: bool,
}

impl LogFile {
    fn new(path: &Arc<str>, dropped: Counter) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            dropped,
        });
        let (writing, out) = (Arc::clone(&shared), Out::new(path));
        let thread = thread::Builder::new().name("access-log".to_owned());
        let thread = thread.spawn(move || writing.write(out));
        let thread = thread.inspect_err(|e| warn!(%path, error = %e, "access log is not written"));
        Self {
            shared,
            thread: thread.ok(),
        }
    }

    /// Writes a record, unless there is no room for it.
    pub fn write(&self, record: &str) {
        let mut queue = self.shared.lock();
        if self.thread.is_none() || queue.text.len() + record.len() > LIMIT {
            self.shared.dropped.inc();
            return;
        }
        if queue.text.is_empty() {
            self.shared.changed.notify_one();
        }
        queue.text.extend_from_slice(record.as_bytes());
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has said so itself, if at all possible.
            let _died = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut out: Out) {
        loop {
            let idle = |q: &mut Queue| q.text.is_empty() && !q.closed;
            let queue = self.changed.wait_while(self.lock(), idle);
            let queue = queue.unwrap_or_else(PoisonError::into_inner);
            let more = self.changed.wait_timeout_while(queue, DELAY, |q| !q.closed);
            let (mut queue, _elapsed) = more.unwrap_or_else(PoisonError::into_inner);
            let text = mem::take(&mut queue.text);
            let last = queue.closed;
            drop(queue);
            if !text.is_empty() && !out.write(&text) {
                let lost = text.iter().filter(|b| **b == b'\n').count();
                self.dropped.inc_by(lost as u64);
            }
            if last {
                return;
            }
        }
    }
}

/// Where records go in the end.
enum Out {
    Stdout,
    Stderr,
    /// A file by its path, as far as it is open.
    File {
        path: Arc<str>,
        open: Option<File>,
        /// Whether somebody was told that it cannot be written.
        told: bool,
    },
}

impl Out {
    fn new(path: &Arc<str>) -> Self {
        match &**path {
            "/dev/stdout" => Self::Stdout,
            "/dev/stderr" => Self::Stderr,
            _ => Self::File {
                path: Arc::clone(path),
                open: None,
                told: false,
            },
        }
    }

    /// Whether all of it is written.
    fn write(&mut self, text: &[u8]) -> bool {
        match self {
            Self::Stdout => io::stdout().write_all(text).is_ok(),
            Self::Stderr => io::stderr().write_all(text).is_ok(),
            Self::File { path, open, told } => {
                let written = current(path, open).and_then(|mut file| file.write_all(text));
                match &written {
                    Ok(()) => *told = false,
                    Err(e) if !mem::replace(told, true) => {
                        warn!(%path, error = %e, "access log cannot be written, records are lost");
                    }
                    Err(_) => {}
                }
                written.is_ok()
            }
        }
    }
}

/// The file that has that path now.
fn current<'a>(path: &str, open: &'a mut Option<File>) -> io::Result<&'a File> {
    let same = open.as_ref().is_some_and(|file| {
        let both = file
            .metadata()
            .and_then(|of| Ok((of, std::fs::metadata(path)?)));
        both.is_ok_and(|(of, at)| (of.dev(), of.ino()) == (at.dev(), at.ino()))
    });
    if !same {
        *open = None;
        *open = Some(OpenOptions::new().append(true).create(true).open(path)?);
    }
    open.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use std::time::Instant;

    fn files() -> (Files, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        (Files::new(Arc::clone(&metrics)), metrics)
    }

    fn path(dir: &tempfile::TempDir, name: &str) -> Arc<str> {
        Arc::from(dir.path().join(name).to_str().unwrap())
    }

    /// Waits until a file says this.
    fn says(path: impl AsRef<Path>, want: &str) {
        let began = Instant::now();
        loop {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if text == want {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{text:?}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_file_goes_on_and_is_begun_anew_when_it_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir, "a");
        fs::write(&*path, "before\n").unwrap();
        let (files, _metrics) = files();
        let file = files.open(&path);
        file.write("one\n");
        says(&*path, "before\none\n");
        let old = dir.path().join("old");
        fs::rename(&*path, &old).unwrap();
        file.write("two\n");
        says(&*path, "two\n");
        says(&old, "before\none\n");
        fs::remove_file(&*path).unwrap();
        file.write("three\n");
        says(&*path, "three\n");
    }

    #[test]
    fn a_path_is_one_file_and_what_nobody_has_is_closed_when_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (path(&dir, "a"), path(&dir, "b"));
        let (files, _metrics) = files();
        let first = files.open(&a);
        assert!(Arc::ptr_eq(&first, &files.open(&a)));
        first.write("last\n");
        let kept = Arc::downgrade(&first);
        drop(first);
        let _other = files.open(&b);
        assert!(kept.upgrade().is_none());
        assert_eq!(fs::read_to_string(&*a).unwrap(), "last\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let missing = path(&dir, "none/a");
        let (files, metrics) = files();
        let file = files.open(&missing);
        file.write("one\ntwo\n");
        let half = "x".repeat(LIMIT / 2 + 1);
        file.write(&half);
        drop(file);
        drop(files);
        let lost = metrics.records_dropped(&missing).get();
        assert!(lost >= 2, "{lost}");
    }
}
