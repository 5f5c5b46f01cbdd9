//! Trust domains in policies (`spec/labels-and-policy.md` §3.9): the mesh's own and its aliases are
//! one and the same.

use std::sync::Arc;

use crate::identity::TrustDomain;
use crate::model::declaration::Settings;
use crate::model::policy::Pattern;

/// What stands for the mesh's own trust domain, whatever that is called.
const OWN: &str = "cluster.local";

/// The trust domains whose identities are believed: the mesh's own, then its aliases.
pub(in crate::model) struct Bundle(Vec<TrustDomain>);

impl Bundle {
    pub(in crate::model) fn new(settings: &Settings) -> Self {
        let aliases = settings.trust_domain_aliases.iter();
        let mut all: Vec<TrustDomain> = Vec::new();
        for domain in [&settings.trust_domain].into_iter().chain(aliases) {
            if !all.contains(domain) {
                all.push(domain.clone());
            }
        }
        Self(all)
    }

    /// Principals with a trust domain of this mesh, in each of its trust domains.
    pub(in crate::model::compile) fn principals(&self, written: &[Pattern]) -> Vec<Pattern> {
        let mut all = Vec::with_capacity(written.len());
        for pattern in written {
            for pattern in self.expand(pattern) {
                if !all.contains(&pattern) {
                    all.push(pattern);
                }
            }
        }
        all
    }

    fn expand(&self, pattern: &Pattern) -> Vec<Pattern> {
        let text = pattern.to_string();
        let as_written = || vec![pattern.clone()];
        let Some((domain, rest)) = text.split_once('/') else {
            return as_written();
        };
        let ours = || domain == OWN || self.0.iter().any(|td| meets(domain, td.as_str()));
        if rest.split('/').count() != 4 || domain == "*" || !ours() {
            return as_written();
        }
        let named = |td: &TrustDomain| match domain.strip_prefix('*') {
            Some(suffix) if td.as_str().ends_with(suffix) => pattern.clone(),
            // Both parts were read as patterns before.
            _ => Pattern::parse(&format!("{td}/{rest}")).unwrap_or_else(|_| pattern.clone()),
        };
        self.0.iter().map(named).collect()
    }

    /// Trust domains, with all that stand for the same.
    pub(in crate::model::compile) fn domains(&self, written: &[Pattern]) -> Vec<Pattern> {
        let known = |domain: &Pattern| {
            let mut known = self.0.iter();
            matches!(domain, Pattern::Exact(td) if known.any(|k| k.as_str() == &**td))
        };
        let mut all: Vec<Pattern> = written.to_vec();
        if written.iter().any(known) {
            let every = self
                .0
                .iter()
                .map(|td| Pattern::Exact(Arc::from(td.as_str())));
            let further: Vec<Pattern> = every.filter(|one| !written.contains(one)).collect();
            all.extend(further);
        }
        all
    }

    /// Trust domains as principals: what is of one begins with its name. Only one known by its end
    /// alone has to be looked for among those that are believed; nobody else gets past a handshake.
    pub(super) fn of_domains(&self, written: &[Pattern]) -> Vec<Pattern> {
        let mut all = Vec::new();
        for principal in written.iter().flat_map(|pattern| self.of_pattern(pattern)) {
            if !all.contains(&principal) {
                all.push(principal);
            }
        }
        all
    }

    fn of_pattern(&self, pattern: &Pattern) -> Vec<Pattern> {
        let those = |fits: &dyn Fn(&str) -> bool| {
            let known = self.0.iter().map(TrustDomain::as_str);
            known
                .filter(|td| fits(td))
                .map(of_domain)
                .collect::<Vec<_>>()
        };
        match pattern {
            Pattern::Present => vec![Pattern::Present],
            Pattern::Exact(td) if self.0.iter().any(|known| known.as_str() == &**td) => {
                those(&|_all| true)
            }
            Pattern::Exact(td) => vec![of_domain(td)],
            Pattern::Prefix(begin) => vec![Pattern::Prefix(Arc::clone(begin))],
            Pattern::Suffix(end) => match those(&|td| td.ends_with(&**end)) {
                // To leave it out would ask for nothing; no principal reads like this one.
                none if none.is_empty() => vec![Pattern::Exact(Arc::from(format!("*{end}/")))],
                some => some,
            },
        }
    }
}

fn of_domain(domain: &str) -> Pattern {
    Pattern::Prefix(Arc::from(format!("{domain}/")))
}

/// Whether a written trust domain, which may begin with a star, is this one.
fn meets(written: &str, domain: &str) -> bool {
    match written.strip_prefix('*') {
        Some(suffix) => domain.ends_with(suffix),
        None => written == domain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(domains: &[&str]) -> Bundle {
        Bundle(domains.iter().map(|d| d.parse().unwrap()).collect())
    }

    fn patterns(written: &[&str]) -> Vec<Pattern> {
        written.iter().map(|t| Pattern::parse(t).unwrap()).collect()
    }

    fn texts(patterns: &[Pattern]) -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn principals_in_every_trust_domain() {
        let both = ["td1/ns/a/sa/b", "td2/ns/a/sa/b"];
        for (domains, written, want) in [
            (&["td1", "td2"][..], "td2/ns/a/sa/b", &both[..]),
            (&["td1", "td2"], "cluster.local/ns/a/sa/b", &both),
            (&["td1", "td2"], "td9/ns/a/sa/b", &["td9/ns/a/sa/b"]),
            (&["td1"], "cluster.local/ns/a/sa/b", &["td1/ns/a/sa/b"]),
            (&["td1", "td2"], "td1/ns/a/*", &["td1/ns/a/*"]),
            (
                &["td1", "td2"],
                "td1/ns/a/sa/*",
                &["td1/ns/a/sa/*", "td2/ns/a/sa/*"],
            ),
            (&["td1", "td2"], "*/ns/a/sa/b", &["*/ns/a/sa/b"]),
            (&["td1", "td2"], "*/sa/b", &["*/sa/b"]),
            (&["td1", "td2"], "*", &["*"]),
            (
                &["old-td", "new-td", "other"],
                "*-td/ns/a/sa/b",
                &["*-td/ns/a/sa/b", "other/ns/a/sa/b"],
            ),
        ] {
            let read = bundle(domains).principals(&patterns(&[written]));
            assert_eq!(texts(&read), want, "{written} in {domains:?}");
        }
    }

    #[test]
    fn trust_domains_as_principals() {
        for (written, want) in [
            ("td1", &["td1/*", "td2/*"][..]),
            ("td*", &["td*"]),
            ("*2", &["td2/*"]),
            ("*", &["*"]),
            ("td9", &["td9/*"]),
            ("*9", &["*9/"]),
        ] {
            let read = bundle(&["td1", "td2"]).of_domains(&patterns(&[written]));
            assert_eq!(texts(&read), want, "{written}");
        }
        let twice = bundle(&["td1"]).of_domains(&patterns(&["td1", "td1"]));
        assert_eq!(texts(&twice), ["td1/*"]);
    }
}
