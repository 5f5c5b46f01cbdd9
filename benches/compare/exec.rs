//! Programs that are run: to their end within a time, or until they are no longer wanted.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::fault::Fault;

/// Between looks at whether something is done.
const LOOK: Duration = Duration::from_millis(20);
/// Longest a program's last words may take once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A program that runs until this is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Option<PathBuf>,
}

impl Daemon {
    /// Starts it; what it says goes to the file `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, Fault> {
        let doing = || format!("starting {}", named(command));
        let file = File::create(log).map_err(Fault::io(doing()))?;
        let errors = file.try_clone().map_err(Fault::io(doing()))?;
        let doing = doing();
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().map_err(Fault::io(doing))?;
        let log = Some(log.to_owned());
        Ok(Self { child, log })
    }

    /// One that reads what we write, and whose words we read.
    pub(crate) fn spoken_to(command: &mut Command) -> Result<Self, Fault> {
        let doing = format!("starting {}", named(command));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.stderr(Stdio::null()).spawn();
        let child = child.map_err(Fault::io(doing))?;
        Ok(Self { child, log: None })
    }

    /// The first line it says within `within`; nothing when it ends before.
    pub(crate) fn line(&mut self, within: Duration) -> Option<String> {
        let stdout = self.child.stdout.take()?;
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut reader = std::io::BufReader::new(stdout);
            let read = std::io::BufRead::read_line(&mut reader, &mut line);
            // Whoever asked may have given up.
            let _unheard = tell.send((read.is_ok_and(|n| n > 0)).then_some(line));
        });
        told.recv_timeout(within).ok().flatten()
    }

    /// Its process: entering a rig turns into the program itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it has ended by itself, what it said of that, as far as one line of its log tells.
    pub(crate) fn ended(&mut self) -> Option<String> {
        if matches!(self.child.try_wait(), Ok(None)) {
            return None;
        }
        let log = self.log.as_ref().map(std::fs::read_to_string);
        let text = log.and_then(Result::ok).unwrap_or_default();
        let last = text.lines().rfind(|l| l.to_lowercase().contains("error"));
        let last = last.or_else(|| text.lines().last());
        Some(last.unwrap_or("without a word").trim().to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What a program prints, fed `input` and given `within` to end.
///
/// # Errors
/// When it cannot be started, fails, or takes too long; it is ended then.
pub(crate) fn output(
    command: &mut Command,
    input: &str,
    within: Duration,
) -> Result<String, Fault> {
    let (printed, said, success) = run(command, input, within)?;
    match success {
        true => Ok(printed),
        false => {
            let said = match said.trim().is_empty() {
                true => printed,
                false => said,
            };
            Err(Fault::said(named(command), said.trim()))
        }
    }
}

/// Everything a program prints to either output, whether it succeeds or not.
pub(crate) fn anything(command: &mut Command, within: Duration) -> Result<String, Fault> {
    let (printed, said, _success) = run(command, "", within)?;
    Ok(format!("{printed}{said}"))
}

fn run(
    command: &mut Command,
    input: &str,
    within: Duration,
) -> Result<(String, String, bool), Fault> {
    let doing = named(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).spawn();
    let mut child = Daemon {
        child: child.map_err(Fault::io(doing.clone()))?,
        log: None,
    };
    if let Some(mut stdin) = child.child.stdin.take() {
        // One that does not read its input says why on its way out.
        let _closed = stdin.write_all(input.as_bytes());
    }
    let printed = child.child.stdout.take().map(gather);
    let said = child.child.stderr.take().map(gather);
    let deadline = Instant::now() + within;
    let status = loop {
        let status = child.child.try_wait();
        if let Some(status) = status.map_err(Fault::io(doing.clone()))? {
            break status;
        }
        if Instant::now() >= deadline {
            return Err(Fault::Late { doing, within });
        }
        std::thread::sleep(LOOK);
    };
    let words = |from: Option<Receiver<String>>| {
        from.and_then(|from| from.recv_timeout(LAST_WORDS).ok())
            .unwrap_or_default()
    };
    Ok((words(printed), words(said), status.success()))
}

/// Reads to the end on a thread: a full pipe must not stop the program, and one that a grandchild
/// holds open must not stop us.
fn gather(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _cut_short = from.read_to_end(&mut bytes);
        let _unheard = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}

/// Waits until `done` holds.
///
/// # Errors
/// [`Fault::Said`] with what `done` last said, or [`Fault::Late`].
pub(crate) fn until(
    doing: &str,
    within: Duration,
    mut done: impl FnMut() -> Result<bool, Fault>,
) -> Result<(), Fault> {
    let deadline = Instant::now() + within;
    loop {
        let last = done();
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return match last {
                Err(last) => Err(last),
                Ok(_) => Err(Fault::Late {
                    doing: doing.to_owned(),
                    within,
                }),
            };
        }
        std::thread::sleep(LOOK);
    }
}

/// The program a command is about: past the words that enter a rig.
fn named(command: &Command) -> String {
    let words: Vec<_> = command.get_args().map(|w| w.to_string_lossy()).collect();
    match words.iter().position(|w| w == "--") {
        Some(at) => words[at + 1..].join(" "),
        None => format!("{} {}", command.get_program().display(), words.join(" ")),
    }
}
