//! What can be wrong with capture.

use std::io;

use super::ruleset::TABLE;

/// Why capture is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A program this needs is not installed.
    #[error(
        "`{program}` is not installed; on Debian and Ubuntu: apt-get install nftables iproute2"
    )]
    NoTool {
        /// The program.
        program: &'static str,
    },
    /// A program could not be run.
    #[error("cannot run `{program}`")]
    Tool {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program did not end.
    #[error("`{program}` does not end; killed")]
    Hangs {
        /// The program.
        program: &'static str,
    },
    /// A program refused, in its own words.
    #[error("`{program}` refused: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Its standard error.
        said: String,
    },
    /// The namespace may not be entered.
    #[error("cannot enter network namespace `{name}`")]
    Namespace {
        /// The namespace.
        name: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The namespace counts users in another way than we do: the rules would take the proxy for
    /// somebody else, and its connections back to itself.
    #[error(
        "network namespace `{name}` belongs to another user namespace, whose rules cannot name \
         this proxy's user; run the workload without mapping users"
    )]
    ForeignUsers {
        /// The namespace.
        name: String,
    },
    /// Settings of the namespace do not read.
    #[error("cannot read the namespace's settings under /proc/sys/net")]
    Sysctl {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The keeper could not do it, in its own words.
    #[error("{said}")]
    Told {
        /// What it said.
        said: String,
    },
    /// The keeper does not answer.
    #[error("nobody is there to do it")]
    Keeper {
        /// What is known.
        #[source]
        source: io::Error,
    },
    /// Sockets would not tell whose connection they accepted.
    #[error(
        "cannot set net.ipv4.tcp_fwmark_accept, by which an accepted connection tells its workload; \
         set it: sysctl -w net.ipv4.tcp_fwmark_accept=1"
    )]
    AcceptMarks {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There are no notices to be had of cgroups.
    #[error("cannot watch cgroups")]
    Cgroups(#[source] io::Error),
    /// The kernel does not say whether our table is there, or what is in its sets.
    #[error("cannot read table inet {TABLE}")]
    Elements {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A namespace that is to be strict has no link that could be filtered.
    #[error(
        "network namespace `{name}` has no veth that ends on this host, so nothing could be kept in \
         it; take `strict` off, or link it by a veth"
    )]
    NoLink {
        /// The namespace.
        name: String,
    },
    /// A namespace that is to be strict has a way out that cannot be filtered.
    #[error(
        "link `{link}` of network namespace `{name}` does not end on this host as a veth does, so \
         nothing could be kept in the namespace; take `strict` off, or the link away"
    )]
    OtherLink {
        /// The namespace.
        name: String,
        /// The link.
        link: String,
    },
    /// What a program lists does not read.
    #[error("cannot read what `{program}` lists")]
    Listing {
        /// The program.
        program: &'static str,
        /// What was wrong with it.
        #[source]
        source: serde_json::Error,
    },
}
