//! What one file says by itself, kept for as long as it says the same.

use std::sync::Arc;

use crate::config::diagnose::Diagnostic;
use crate::config::mesh::{self, Written};
use crate::config::read;
use crate::config::source::Source;

/// A file that was read.
pub(super) struct Parsed {
    pub(super) source: Arc<Source>,
    pub(super) written: Arc<Written>,
    pub(super) findings: Vec<Diagnostic>,
    /// Whether the text is TOML, so that nothing in it has gone unseen.
    pub(super) whole: bool,
}

impl Parsed {
    /// Reads a file's text.
    pub(super) fn new(source: Arc<Source>) -> Self {
        let mut written = Written::default();
        let outcome = read::document(&source, "this file", |root| mesh::read(root, &mut written));
        Self {
            source,
            written: Arc::new(written),
            findings: outcome.findings,
            whole: outcome.whole,
        }
    }

    /// Whether the file's text was this. Texts are compared, not times and lengths: reading a text
    /// is cheap beside parsing it, and not every file system can be believed about times.
    pub(super) fn is_of(&self, text: &str) -> bool {
        **self.source.text() == *text
    }
}
