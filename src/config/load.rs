//! A mesh directory, from files to a mesh or to everything that is wrong with them.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, Memory};
use super::diagnose::{Code, Diagnostic, Report};
use super::source::Source;
use super::tree::{Fault, Problem, Tree};
use crate::model::declaration::Mesh;

mod parsed;

use parsed::Parsed;

/// Longest mesh file, in bytes (`spec/reliability.md` §2b).
const LONGEST_FILE: u64 = 1 << 20;

/// What a mesh directory holds.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The mesh; none when there is an error in the report.
    pub mesh: Option<Mesh>,
    /// Every finding, warnings included.
    pub report: Report,
    /// The files it was made of: path below the directory, and text.
    pub files: Vec<(String, Arc<str>)>,
    /// Bytes of them that were not known from the last time.
    pub parsed: usize,
}

/// Reads a mesh directory and checks it as a whole. Blocks on the file system.
///
/// Never fails: what cannot be read is a finding like any other.
pub fn load(dir: &Path) -> Loaded {
    Loader::new(dir).load()
}

/// Reads a mesh directory again and again. Of a file whose text is as before, and of what is
/// declared in it, it takes over what it made the last time.
pub struct Loader {
    directory: PathBuf,
    files: HashMap<PathBuf, Parsed>,
    judged: Memory,
}

impl Loader {
    /// A loader of that directory, which need not exist yet.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            files: HashMap::new(),
            judged: Memory::default(),
        }
    }

    /// The same as [`load()`](load()), at the cost of what has changed.
    pub fn load(&mut self) -> Loaded {
        let dir = &self.directory;
        let tree = Tree::walk(dir);
        let mut found: Vec<_> = tree.problems.iter().map(|p| told(dir, p)).collect();
        let mut whole = found.is_empty();
        if tree.files.is_empty() && tree.problems.is_empty() {
            found.push(empty(dir));
        }
        let mut written = Vec::with_capacity(tree.files.len());
        let mut files = Vec::with_capacity(tree.files.len());
        let mut before = std::mem::take(&mut self.files);
        let mut parsed = 0;
        for file in tree.files {
            let relative = file.relative.to_string_lossy();
            let shown = shown(dir, &file.relative);
            let text = match text_of(&dir.join(&file.relative)) {
                Ok(text) => text,
                Err(fault) => {
                    found.push(fault.told(&shown, &relative));
                    whole = false;
                    continue;
                }
            };
            let known = before.remove(&file.relative);
            let file_says = match known.filter(|known| known.is_of(&text)) {
                Some(known) => known,
                None => {
                    parsed += text.len();
                    Parsed::new(Source::new(&shown, &relative, text))
                }
            };
            found.extend_from_slice(&file_says.findings);
            whole &= file_says.whole;
            written.push(Arc::clone(&file_says.written));
            files.push((relative.into_owned(), Arc::clone(file_says.source.text())));
            self.files.insert(file.relative, file_says);
        }
        let (mesh, across) = check::check(&written, whole, &mut self.judged);
        found.extend(across);
        let report: Report = found.into_iter().collect();
        Loaded {
            mesh: (report.errors() == 0).then_some(mesh),
            report,
            files,
            parsed,
        }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loader({})", self.directory.display())
    }
}

fn shown(dir: &Path, relative: &Path) -> String {
    match relative.as_os_str().is_empty() {
        true => dir.display().to_string(),
        false => dir.join(relative).display().to_string(),
    }
}

/// A finding about a file or directory of which there is no text to show.
fn about(shown: &str, relative: &str, code: Code, message: String) -> Diagnostic {
    let source = Source::new(shown, relative, String::new());
    Diagnostic::new(code, source.whole(), message)
}

fn told(dir: &Path, problem: &Problem) -> Diagnostic {
    let relative = problem.relative.to_string_lossy();
    let at_root = problem.relative.as_os_str().is_empty();
    let (code, message, help) = match &problem.fault {
        Fault::Unreadable(why) if at_root => (
            Code::Unreadable,
            format!("the mesh directory cannot be read: {why}"),
            "make the directory, or name another one; an empty one is an empty mesh",
        ),
        Fault::Unreadable(why) => (
            Code::Unreadable,
            format!("cannot be read: {why}"),
            "make it readable, or take it out of the mesh directory",
        ),
        Fault::NotADirectory => (
            Code::Unreadable,
            "is no directory".to_owned(),
            "name the directory that the mesh files are in",
        ),
        Fault::NotAFile => (
            Code::Unreadable,
            "is named like a mesh file and is no file".to_owned(),
            "take it out of the mesh directory",
        ),
        Fault::TooDeep => (
            Code::TooLarge,
            "is more than 32 directories down".to_owned(),
            "keep mesh files closer to the mesh directory",
        ),
        Fault::TooMany => (
            Code::TooLarge,
            "has more than 10000 files and directories".to_owned(),
            "is this the mesh directory? Several resources fit in one file",
        ),
    };
    about(&shown(dir, &problem.relative), &relative, code, message).help(help)
}

fn empty(dir: &Path) -> Diagnostic {
    let message = "the mesh directory has no file that ends in .toml".to_owned();
    about(
        &shown(dir, Path::new("")),
        "",
        Code::EmptyDirectory,
        message,
    )
    .help("a mesh begins with a `[[node]]` for each machine")
}

/// Why a file's text is not to be had.
pub(super) enum TextFault {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is longer than [`LONGEST_FILE`].
    TooLong,
    /// It is not UTF-8 from this byte on; the text with what is not replaced.
    NotUtf8(usize, String),
}

impl TextFault {
    pub(super) fn told(self, shown: &str, relative: &str) -> Diagnostic {
        let about = |code, message| about(shown, relative, code, message);
        match self {
            Self::Unreadable(e) => about(Code::Unreadable, format!("cannot be read: {e}"))
                .help("make it readable to the user that lateen runs as"),
            Self::TooLong => about(Code::TooLarge, "is longer than 1 MiB".to_owned())
                .help("split it into several files; they are read as one"),
            Self::NotUtf8(at, text) => {
                let source: Arc<Source> = Source::new(shown, relative, text);
                let place = source.place(at..at + char::REPLACEMENT_CHARACTER.len_utf8());
                Diagnostic::new(Code::Syntax, place, "is not UTF-8 text")
                    .label("not a character")
                    .help("save the file as UTF-8")
            }
        }
    }
}

/// A file's text. Opened without waiting: it may have become a pipe since it was listed.
pub(super) fn text_of(path: &Path) -> Result<String, TextFault> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut options = File::options();
    let open = options.read(true).custom_flags(nonblocking).open(path);
    let mut bytes = Vec::new();
    let read = open.and_then(|file| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        file.take(LONGEST_FILE + 1).read_to_end(&mut bytes)
    });
    let length = read.map_err(TextFault::Unreadable)?;
    if u64::try_from(length).unwrap_or(u64::MAX) > LONGEST_FILE {
        return Err(TextFault::TooLong);
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        TextFault::NotUtf8(at, String::from_utf8_lossy(e.as_bytes()).into_owned())
    })
}
