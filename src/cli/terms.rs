//! What capture goes by on this host, from its settings.

use std::collections::BTreeSet;

use super::Failure;
use crate::capture::terms::SSH;
use crate::capture::{Exclusions, Exemption, Terms, users};
use crate::config::daemon::{Config, ProxyUser};

/// The terms of rules that know the proxy by `exemption`.
///
/// # Errors
/// [`Failure`] when a user that the settings name does not exist.
pub(in crate::cli) fn terms(config: &Config, exemption: Exemption) -> Result<Terms, Failure> {
    let settings = config.capture();
    let excluded = settings.exclude_users.iter().map(uid);
    let control = config.control().listen().port();
    let mut host_ports = BTreeSet::from([control]);
    if settings.exclude_ports.is_none() {
        host_ports.insert(SSH);
    }
    let mut reserved = Terms::from(exemption).reserved;
    // Whoever is not there runs nothing.
    reserved.extend(uid(config.user()).ok());
    Ok(Terms {
        exemption,
        exclusions: Exclusions {
            ports: settings.exclude_ports.clone().unwrap_or_default(),
            ranges: settings.exclude_cidrs.clone(),
            users: excluded.collect::<Result<_, _>>()?,
            probes: settings.probe_sources.clone(),
        },
        host_ports,
        reserved,
        // Nobody answers them where nobody listens.
        dns: config.dns().capture() && config.listeners().dns.is_some(),
        strict: settings.strict,
    })
}

fn uid(user: &ProxyUser) -> Result<u32, Failure> {
    match user {
        ProxyUser::Id(uid) => Ok(*uid),
        ProxyUser::Name(name) => {
            users::uid(name).map_err(|e| Failure::no("`[capture]` in lateen.toml", &e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Terms {
        let config = Config::parse("lateen.toml", text.to_owned(), "edge-1").unwrap();
        terms(&config, Exemption::Uid(1337)).unwrap()
    }

    #[test]
    fn nobody_is_locked_out_unless_asked_for() {
        for (name, text, on_host, elsewhere) in [
            ("by default", "", vec![22, 15012], vec![]),
            (
                "another port of the control plane",
                "[control]\nlisten = \"[::]:7000\"",
                vec![22, 7000],
                vec![],
            ),
            (
                "further ports",
                "[capture]\nexclude-ports = [22, 9100]",
                vec![22, 9100, 15012],
                vec![22, 9100],
            ),
            (
                "SSH too",
                "[capture]\nexclude-ports = []",
                vec![15012],
                vec![],
            ),
        ] {
            let terms = of(text);
            assert_eq!(Vec::from_iter(terms.on_host().ports), on_host, "{name}");
            assert_eq!(Vec::from_iter(terms.exclusions.ports), elsewhere, "{name}");
        }
    }

    #[test]
    fn neither_the_proxy_nor_who_opens_its_sockets_can_be_captured() {
        let terms = of("user = 990\n[capture]\nexclude-users = [33]");
        assert_eq!(Vec::from_iter(terms.reserved), [990, 1337]);
        assert_eq!(Vec::from_iter(terms.exclusions.users), [33]);
    }
}
