//! The process's own log: text for people or one JSON object per line, on standard error.

mod behind;
mod line;

use std::cell::RefCell;
use std::io::Write as _;
use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::{EnvFilter, reload};

pub use behind::{Behind, Writing};
pub use line::Line;

/// Where [`write`] sends lines, once the log is set up.
static LOG: OnceLock<(Format, Behind)> = OnceLock::new();
/// Has another filter decide what is logged.
static REFILTER: OnceLock<Refilter> = OnceLock::new();

type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

thread_local! {
    /// The line being written.
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "`{filter}` is no log filter; write a level such as `info`, or `info,lateen::hbone=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What the parser said.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something set one up before.
    #[error("the log is already set up")]
    Already,
    /// There is none whose filter could be another.
    #[error("the log is not set up")]
    NotSetUp,
    /// The filter did not change.
    #[error("the log's filter cannot be changed")]
    Filtering(#[from] reload::Error),
}

/// Sets up the log of this process, once. Lines are written at once until [`Behind::start`].
///
/// # Errors
/// [`LogError`] for a filter that does not parse, or a second call.
pub fn init(format: Format, filter: &str) -> Result<Behind, LogError> {
    let filter = parsed(filter)?;
    let behind = Behind::default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(behind.clone())
        .with_ansi(false);
    let outcome = match format {
        Format::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let refilter = move |filter| handle.reload(filter);
            builder.try_init().map(|()| Box::new(refilter) as Refilter)
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let refilter = move |filter| handle.reload(filter);
            builder.try_init().map(|()| Box::new(refilter) as Refilter)
        }
    };
    let refilter = outcome.map_err(|_already| LogError::Already)?;
    REFILTER.get_or_init(|| refilter);
    LOG.get_or_init(|| (format, behind.clone()));
    Ok(behind)
}

/// Logs by another filter from now on.
///
/// # Errors
/// [`LogError`] for a filter that does not parse, or before [`init`].
pub fn refilter(filter: &str) -> Result<(), LogError> {
    let filter = parsed(filter)?;
    let refilter = REFILTER.get().ok_or(LogError::NotSetUp)?;
    Ok(refilter(filter)?)
}

fn parsed(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })
}

/// Writes a line past the formatter. Whether the filter wants it is for the caller to ask.
pub fn write(level: Level, target: &str, message: &str, fields: impl FnOnce(&mut Line<'_>)) {
    let Some((format, behind)) = LOG.get() else {
        return;
    };
    TEXT.with_borrow_mut(|text| {
        text.clear();
        let mut line = Line::begin(text, *format, level, target, message);
        fields(&mut line);
        line.end(target);
        // There is nowhere to tell of a log that cannot be written.
        let _untold = behind.clone().write_all(text.as_bytes());
    });
}
