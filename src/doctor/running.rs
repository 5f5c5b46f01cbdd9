//! What the process that runs here knows and no file says, as it tells over its admin socket: how its
//! workloads' certificates are, whose clock is off, how long the authority lasts.

use std::path::Path;
use std::time::{Duration, SystemTime};

use http::Method;
use serde::de::DeserializeOwned;

use super::Finding;
use super::codes::Code;
use super::trust;
use crate::admin::SOCKET;
use crate::admin::client::ask;
use crate::clock::seconds;
use crate::config::daemon::Config;
use crate::status::Status;
use crate::status::trust::{CaStatus, CertificateDetail};

/// Longest wait for each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of it; nothing where none runs, or it is another user's.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// In seconds since 1970.
    now: u64,
    certificates: Vec<Certificate>,
    /// What signs, and until when.
    authority: Vec<(String, SystemTime)>,
    /// Seconds between this clock and the control plane's, where they are many.
    apart: Option<u64>,
}

/// A workload's certificate; times are seconds since 1970.
#[derive(Clone, Debug, Default)]
struct Certificate {
    identity: String,
    made: Option<u64>,
    expires: Option<u64>,
    error: Option<String>,
}

impl From<CertificateDetail> for Certificate {
    fn from(detail: CertificateDetail) -> Self {
        Self {
            identity: detail.identity,
            made: detail.made,
            expires: detail.expires,
            error: detail.error,
        }
    }
}

impl Facts {
    /// Asks it, three times.
    pub(super) fn read(config: Option<&Config>) -> Self {
        let socket = config.map(|config| config.runtime_dir().join(SOCKET));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let (Some(socket), Ok(runtime)) = (socket, runtime) else {
            return Self::default();
        };
        runtime.block_on(Self::told(&socket))
    }

    async fn told(socket: &Path) -> Self {
        let status: Option<Status> = page(socket, "/status").await;
        let Some(status) = status else {
            return Self::default();
        };
        let (mut certificates, mut authority) = (Vec::new(), Vec::new());
        if status.node.is_some() {
            let held: Option<Vec<CertificateDetail>> = page(socket, "/certificates").await;
            certificates.extend(held.into_iter().flatten().filter(|c| c.kind == "workload"));
        }
        if status.control.is_some() {
            let told: Option<CaStatus> = page(socket, "/ca").await;
            authority.extend(told.into_iter().flat_map(signing));
        }
        Self {
            now: seconds(SystemTime::now()),
            certificates: certificates.into_iter().map(Certificate::from).collect(),
            authority,
            apart: status.node.and_then(|node| node.clock_apart),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let faults = self.certificates.iter();
        let faults: Vec<_> = faults.filter_map(|c| c.fault(self.now)).collect();
        for code in [
            Code::WorkloadCertificateMissing,
            Code::WorkloadCertificateExpired,
            Code::WorkloadCertificateExpiring,
        ] {
            let mut all = faults.iter().filter(|(of, _)| *of == code);
            if let Some((_, first)) = all.next() {
                let seen = match all.count() {
                    0 => first.clone(),
                    more => format!("{first}; and so it is with {more} more"),
                };
                let remedy =
                    "lateen certificates says why; lateen status says which control planes answer";
                found.push(Finding::new(code, seen, remedy));
            }
        }
        if let Some(apart) = self.apart {
            let seen = format!(
                "this machine's clock and its control plane's are {apart} s apart: one is wrong, and certificates \
                 are refused by it"
            );
            let remedy =
                "compare with date -u on both; where it is wrong: timedatectl set-ntp true";
            found.push(Finding::new(Code::ClockApart, seen, remedy));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(self.now);
        let each = self.authority.iter();
        found.extend(each.filter_map(|(what, end)| trust::authority_until(what, *end, now)));
        found
    }
}

impl Certificate {
    /// What is wrong with it.
    fn fault(&self, now: u64) -> Option<(Code, String)> {
        let Self { identity, .. } = self;
        let why = self
            .error
            .as_ref()
            .map_or_else(String::new, |e| format!(": {e}"));
        let Some(end) = self.expires else {
            let seen = format!("there is no certificate for {identity}{why}");
            // One that is on its way has no reason yet.
            return self
                .error
                .as_ref()
                .map(|_| (Code::WorkloadCertificateMissing, seen));
        };
        let Some(left) = end.checked_sub(now).filter(|left| *left > 0) else {
            let ago = now.saturating_sub(end) / 60;
            let seen = format!(
                "the certificate of {identity} expired {ago} min ago, and its connections are refused{why}"
            );
            return Some((Code::WorkloadCertificateExpired, seen));
        };
        let life = end.saturating_sub(self.made.unwrap_or(now));
        // It is renewed at the latest at half of its life.
        (left < life / 4).then(|| {
            let hours = left / 3600;
            let seen = format!(
                "the certificate of {identity} expires in {hours} h and is not renewed{why}"
            );
            (Code::WorkloadCertificateExpiring, seen)
        })
    }
}

/// What certificates are signed by or lead to from now on, and until when.
fn signing(status: CaStatus) -> Vec<(String, SystemTime)> {
    let roots = status.roots.into_iter().filter(|r| r.state != "retiring");
    let roots = roots.map(|root| (trust::ROOT.to_owned(), root.expires));
    let issuing = (trust::INTERMEDIATE.to_owned(), status.issuing.expires);
    let all = roots.chain([issuing]);
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    // Of one that does not read nothing follows.
    let all = all.filter(|(_, end)| *end > 0);
    all.map(|(what, end)| (what, time(end))).collect()
}

async fn page<T: DeserializeOwned>(socket: &Path, page: &str) -> Option<T> {
    let asked = ask(socket, Method::GET, page, String::new());
    let answer = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
    serde_json::from_str(&answer).ok()
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin::{Answer, Listener, Routes, serve};
    use crate::status::trust::CaLine;

    const DAY: u64 = 86_400;
    const NOW: u64 = 1_000 * DAY;

    fn certificate(expires: Option<u64>, error: Option<&str>) -> Certificate {
        Certificate {
            identity: "spiffe://cluster.local/ns/shop/sa/cart".to_owned(),
            made: expires.map(|end| end - 8 * DAY),
            expires,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn each_fault_is_named() {
        let gone = Some("the control plane is gone");
        for (name, expires, error, want) in [
            ("a good one", Some(NOW + 7 * DAY), None, None),
            ("renewing fails for a day", Some(NOW + 6 * DAY), gone, None),
            (
                "and for a week",
                Some(NOW + DAY),
                gone,
                Some(Code::WorkloadCertificateExpiring),
            ),
            (
                "too late",
                Some(NOW - 1),
                gone,
                Some(Code::WorkloadCertificateExpired),
            ),
            (
                "never any",
                None,
                gone,
                Some(Code::WorkloadCertificateMissing),
            ),
            ("on its way", None, None, None),
        ] {
            let facts = Facts {
                now: NOW,
                certificates: vec![certificate(expires, error); 3],
                ..Facts::default()
            };
            let found = facts.check();
            let codes: Vec<_> = found.iter().map(|f| f.code).collect();
            assert_eq!(codes, Vec::from_iter(want), "{name}");
            let told = found.iter().all(|f| f.seen.ends_with("with 2 more"));
            assert!(told, "{name}: {found:?}");
        }
        let facts = Facts {
            apart: Some(400),
            ..Facts::default()
        };
        let codes: Vec<_> = facts.check().iter().map(|f| f.code).collect();
        assert_eq!(codes, [Code::ClockApart]);
    }

    #[test]
    fn an_authority_is_told_of_before_its_end() {
        let line = |state: &str, days: u64| CaLine {
            name: "root".to_owned(),
            state: state.to_owned(),
            spki_sha256: String::new(),
            expires: NOW + days * DAY,
        };
        for (name, roots, issuing, want) in [
            ("new", vec![line("active", 3650)], 365, vec![]),
            (
                "a root on its way out",
                vec![line("active", 3650), line("retiring", 1)],
                365,
                vec![],
            ),
            (
                "an old root",
                vec![line("active", 80)],
                365,
                vec![Code::AuthorityExpiring],
            ),
            (
                "an intermediate at its end",
                vec![line("active", 3650)],
                0,
                vec![Code::AuthorityExpired],
            ),
        ] {
            let status = CaStatus {
                trust_domain: "cluster.local".to_owned(),
                sequence: 1,
                phase: "steady".to_owned(),
                roots,
                issuing: line("issuing", issuing),
                revoked: 0,
                crl_number: 1,
                in_the_way: Vec::new(),
            };
            let facts = Facts {
                now: NOW,
                authority: signing(status),
                ..Facts::default()
            };
            let codes: Vec<_> = facts.check().iter().map(|f| f.code).collect();
            assert_eq!(codes, want, "{name}");
        }
    }

    #[tokio::test]
    async fn what_a_process_tells_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let json = |text: &'static str| move |_body| async move { Answer::text(text) };
        let routes = Routes::default()
            .on(
                Method::GET,
                "/status",
                json(r#"{"version": "1", "host": "a", "control": null, "node": {"workloads": [], "certificates": [],
                    "connections": 0, "clock-apart": 400}}"#),
            )
            .on(
                Method::GET,
                "/certificates",
                json(r#"[{"kind": "node", "identity": "a", "chain": [], "error": "x"},
                    {"kind": "workload", "identity": "b", "chain": [], "error": "y"}]"#),
            );
        let end = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(Listener::unix(&socket).unwrap(), routes, end.clone()));
        let found = Facts::told(&socket).await.check();
        let codes: Vec<_> = found.iter().map(|f| f.code).collect();
        assert_eq!(codes, [Code::WorkloadCertificateMissing, Code::ClockApart]);
        assert_eq!(found[0].seen, "there is no certificate for b: y");
        end.cancel();
        while tasks.join_next().await.is_some() {}
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join(SOCKET);
        let silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        tokio::time::pause();
        assert_eq!(Facts::told(&socket).await.check(), Vec::new());
        drop(silent);
        assert_eq!(Facts::told(&socket).await.check(), Vec::new());
    }
}
