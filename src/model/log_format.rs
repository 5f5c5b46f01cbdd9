//! How a line of an access log is written: texts with Envoy's command operators, and JSON of them
//! (`spec/waypoint-l7.md` §6.3).
//!
//! A format is read once, when the mesh is loaded. Whatever a client has a say in is escaped, so that a
//! record is one line and says nothing that did not happen.

mod operator;
mod read;
mod stamp;
mod write;

use std::fmt;
use std::sync::Arc;

use super::expression::ExpressionError;
use super::telemetry::Facts;
use operator::Operator;

/// The text that Istio writes.
pub const DEFAULT_TEXT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%",
);

/// The same as JSON: keys and what they say.
pub const DEFAULT_LABELS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    (
        "upstream_service_time",
        "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    ),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// A text with command operators in it. Two are equal when they are written alike.
#[derive(Clone)]
pub struct TextFormat {
    source: Arc<str>,
    parts: Arc<[Part]>,
}

/// A piece of a text.
#[derive(Debug)]
enum Part {
    /// As it is.
    Literal(Box<str>),
    /// What an operator says.
    Said(Operator),
}

/// How a record is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As a text.
    Text(TextFormat),
    /// As an object with these members, in order.
    Json(Vec<(Arc<str>, TextFormat)>),
}

/// A record's format, and what becomes of what is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How it is written.
    pub format: LogFormat,
    /// Whether what is absent is left out; else it reads `-`, and `null` in JSON.
    pub omit_empty: bool,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A percent sign stands alone.
    #[error("at character {}: `%` begins an operator that does not end; write `%%` for the sign itself", .0 + 1)]
    Open(usize),
    /// It is not known.
    #[error("`%{0}%` is no operator that is known here; there are {known}", known = operator::listed())]
    Unknown(String),
    /// It needs something in brackets, or nothing.
    #[error("`%{name}%` is not written so: write it as in `{example}`")]
    Argument {
        /// Which.
        name: String,
        /// How it is written.
        example: &'static str,
    },
    /// A time is not written so.
    #[error(
        "`{0}` is no part of a time that is known here; there are %Y, %m, %d, %H, %M, %S, %s, %f, %3f, %6f, %9f, %F, %T, %z and %%"
    )]
    Time(String),
    /// An expression is none.
    #[error("`%CEL({text})%`: {source}")]
    Expression {
        /// As it was written.
        text: String,
        /// Why.
        source: ExpressionError,
    },
}

impl TextFormat {
    /// Reads one.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(source: &str) -> Result<Self, FormatError> {
        Ok(Self {
            source: Arc::from(source),
            parts: read::parts(source)?.into(),
        })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it says of a request, without escapes; none where its only operator has nothing to say.
    pub fn render(&self, facts: &Facts<'_>) -> Option<String> {
        write::plain(&self.parts, facts)
    }
}

impl LogFormat {
    /// Istio's text.
    pub fn text() -> Self {
        let format = TextFormat::parse(DEFAULT_TEXT);
        format.map_or(Self::Json(Vec::new()), Self::Text)
    }

    /// Istio's JSON.
    pub fn json() -> Self {
        let labels = DEFAULT_LABELS.iter();
        let label = |(key, text): &(&str, &str)| {
            let format = TextFormat::parse(text).ok()?;
            Some((Arc::from(*key), format))
        };
        Self::Json(labels.filter_map(label).collect())
    }
}

impl Layout {
    /// Writes one record, with the end of its line, behind what `line` holds.
    pub fn write(&self, facts: &Facts<'_>, line: &mut String) {
        match &self.format {
            LogFormat::Text(format) => write::text(&format.parts, facts, self.omit_empty, line),
            LogFormat::Json(members) => write::json(members, facts, self.omit_empty, line),
        }
    }
}

impl PartialEq for TextFormat {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for TextFormat {}

impl fmt::Debug for TextFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextFormat({:?})", self.source)
    }
}

#[cfg(test)]
mod tests;
