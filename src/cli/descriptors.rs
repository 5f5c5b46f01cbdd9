//! How many descriptors a process may have: what it begins with is meant for programs that ask for few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Takes as many as it may: some for each of a thousand workloads, and two for each connection, are more
/// than most systems begin with.
pub(super) fn more_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        warn!(error = %e, "no more descriptors than at first");
    }
}
