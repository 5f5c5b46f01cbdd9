//! The files an operator writes, read once: text and spans in, checked values out.
//!
//! Two kinds of file, never mixed (DESIGN §5). [`daemon`] reads `lateen.toml`, one per host.
//! [`load()`](load()) reads the mesh directory into a [`model::declaration::Mesh`](crate::model::declaration::Mesh),
//! or into a [`Report`] of everything that is wrong with it; [`watch`] says when to read it again.
//!
//! Inside, a file goes through two steps. `read` and `mesh` turn text into what was *written*,
//! each value beside its place; `check` turns that into what it *means*, across files.

mod check;
pub mod daemon;
pub mod diagnose;
pub mod load;
mod mesh;
mod read;
pub mod report;
mod source;
mod suggest;
mod tree;
pub mod watch;

pub use diagnose::{Code, Diagnostic, Report, Severity};
pub use load::{Loaded, Loader, load};
pub(crate) use mesh::did_you_mean;
pub use source::{Place, Position, Source};
pub use watch::{WatchError, Watcher};

#[cfg(test)]
mod tests;
