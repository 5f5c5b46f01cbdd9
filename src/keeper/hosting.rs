//! The rules of the host's network: one component keeps them, for the workloads that the proxy last
//! told of, also while no proxy is there.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use crate::capture::host::{Outcome, Wanted, Workloads};
use crate::capture::keeping::Keeping;
use crate::capture::{Place, Sockets, Target};

/// Workloads of one host: no more than there are marks for them.
pub(super) const WORKLOADS: usize = 0x1000;

/// The host's rules, as they are kept.
pub(super) struct Hosting {
    told: watch::Sender<Workloads>,
    outcome: watch::Receiver<Arc<Outcome>>,
}

impl Hosting {
    /// Prepares to keep them; until the proxy has told of workloads they stay as they are.
    pub(super) async fn new(sockets: &Sockets, place: &Place) -> io::Result<(Arc<Self>, Keeping)> {
        let (told, workloads) = watch::channel(Workloads::None);
        let (keeping, outcome) = sockets.keep_host(place, workloads).await?;
        Ok((Arc::new(Self { told, outcome }), keeping))
    }

    /// Keeps them for these workloads from now on.
    pub(super) fn tell(&self, workloads: Vec<Wanted>) {
        self.told.send_if_modified(|now| {
            let same = now.as_deref() == Some(&workloads[..]);
            if !same {
                *now = Some(Arc::from(workloads));
            }
            !same
        });
    }

    /// How the workloads are.
    pub(super) fn outcome(&self) -> watch::Receiver<Arc<Outcome>> {
        self.outcome.clone()
    }
}

/// Whether a target can be named in a rule: by nothing that could end a word of one and begin
/// another, whatever the proxy has become.
pub(super) fn is_plain(target: &Target) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@/\\+".contains(&byte);
    match target {
        Target::Netns(_) => false,
        Target::Unit(name)
        | Target::Cgroup(name)
        | Target::User(name)
        | Target::Interface(name) => !name.is_empty() && name.bytes().all(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_more_than_a_word_of_a_rule() {
        let name = |name: &str| Arc::from(name);
        for (target, want) in [
            (Target::Unit(name("cart@1.service")), true),
            (Target::Unit(name("a\\x2db.service")), true),
            (Target::Cgroup(name("system.slice/cart.service")), true),
            (Target::User(name("1001")), true),
            (Target::Interface(name("tap0")), true),
            (Target::Unit(name("")), false),
            (Target::Cgroup(name("a\" accept; flush ruleset; \"")), false),
            (Target::User(name("cart accept")), false),
            (Target::Interface(name("tap0\n")), false),
            (Target::Unit(name("c\u{e4}rt.service")), false),
            (Target::Netns(name("cart")), false),
        ] {
            assert_eq!(is_plain(&target), want, "{target}");
        }
    }
}
