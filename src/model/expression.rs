//! Expressions over what is known of a request: the part of the Common Expression Language that access
//! logs and labels need (`spec/waypoint-l7.md` §6.1).
//!
//! An expression is read once, when the mesh is loaded; what it names that nobody knows is wrong then
//! and not when the first request comes. It has no loops and no calls of its own, so that it always
//! ends, and is as deep as [`DEPTH`] allows.

mod attribute;
mod evaluate;
mod lexer;
mod node;
mod parser;
mod time;
mod value;

use std::fmt;
use std::sync::Arc;

use super::telemetry::Facts;
pub use attribute::{Attribute, Fields};
pub use evaluate::Failure;
use node::Node;
pub(super) use time::Civil;
pub use value::Value;

/// How deep parts may be within parts.
const DEPTH: usize = 32;
/// Bytes of an expression.
const LENGTH: usize = 4096;

/// An expression that can be evaluated. Two are equal when they are written alike.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    root: Arc<Node>,
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {message}", at + 1)]
pub struct ExpressionError {
    /// The character in question, from 0.
    pub at: usize,
    /// What is wrong.
    pub message: String,
}

impl Expression {
    /// Reads one.
    ///
    /// # Errors
    /// [`ExpressionError`], with the place.
    pub fn parse(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > LENGTH {
            let message = format!("it is longer than {LENGTH} bytes");
            return Err(ExpressionError {
                at: LENGTH,
                message,
            });
        }
        let root = parser::parse(source).map_err(|fault| fault.within(source))?;
        Ok(Self {
            source: Arc::from(source),
            root: Arc::new(root),
        })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its value.
    ///
    /// # Errors
    /// [`Failure`], where something in it is not known or makes no sense.
    pub fn evaluate<'a>(&'a self, facts: &'a Facts<'a>) -> Result<Value<'a>, Failure> {
        evaluate::evaluate(&self.root, facts)
    }

    /// Whether it holds: it can be evaluated, and is true.
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        matches!(self.evaluate(facts), Ok(Value::Bool(true)))
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.source)
    }
}

#[cfg(test)]
mod tests;
