//! Where our tables are.

use std::fmt;

use super::TABLE;

/// What a table sees the packets of, each of which may have one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::capture) enum Family {
    /// The network layer, of IPv4 and IPv6.
    Inet,
    /// Bridges, below it: there are rules for guests that are ports of one.
    Bridge,
}

impl Family {
    /// As the kernel has it (`NFPROTO_INET`, `_BRIDGE` of linux/netfilter.h).
    pub(in crate::capture) fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Bridge => 7,
        }
    }

    /// As `nft` has it.
    pub(in crate::capture) fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }

    /// The lines, in nft's words, after which our table is not there, whether it was or not.
    pub(in crate::capture) fn cleared(self) -> String {
        // The first line makes the second legal where there was no table.
        format!("table {self} {TABLE}\ndelete table {self} {TABLE}\n")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
