//! The process's own log: text for people or one JSON object per line, on standard error.

mod behind;

use tracing_subscriber::EnvFilter;

pub use behind::{Behind, Writing};

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
}

/// Sets up the log of this process, once. Lines are written at once until [`Behind::start`].
///
/// # Errors
/// [`LogError`] for a filter that does not parse, or a second call.
pub fn init(format: Format, filter: &str) -> Result<Behind, LogError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| LogError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let behind = Behind::default();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(behind.clone())
        .with_ansi(false);
    let outcome = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    outcome.map_err(|_already| LogError::Already)?;
    Ok(behind)
}
