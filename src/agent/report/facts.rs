//! What a node tells of itself beside its workloads: its host, how far it has come, its certificates,
//! and what somebody should look at (`spec/control-plane.md` §7.2).

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::agent::certs::{CertStatus, Certs};
use crate::agent::keep::clock::ClockFile;
use crate::agent::link::Link;
use crate::agent::mirror::MeshState;
use crate::clock::{self, milliseconds};
use crate::wire::REVISION;
use crate::wire::convert::shortened;
use crate::wire::proto::lateen::finding::Severity;
use crate::wire::proto::lateen::{Applied, Certificates, Finding, HostInfo, NodeReport};

/// Findings in one report; those that come after are found once others are gone.
const FINDINGS: usize = 16;

/// Where it is known from. Cheap to clone.
#[derive(Clone)]
pub(in crate::agent) struct Facts {
    pub(super) clock: ClockFile,
    host: HostInfo,
    certs: Option<Certs>,
    link: Option<watch::Receiver<Link>>,
    /// None once nobody follows the mesh any more.
    mesh: Option<watch::Receiver<Arc<MeshState>>>,
}

impl Facts {
    /// Of a node that follows the mesh. Reads a few small files.
    pub(in crate::agent) fn new(
        clock: ClockFile,
        certs: Certs,
        link: watch::Receiver<Link>,
        mesh: watch::Receiver<Arc<MeshState>>,
    ) -> Self {
        Self {
            clock,
            host: host(),
            certs: Some(certs),
            link: Some(link),
            mesh: Some(mesh),
        }
    }

    /// Of a node of which nothing is known but its host.
    #[cfg(test)]
    pub(in crate::agent) fn bare(clock: ClockFile) -> Self {
        Self {
            clock,
            host: host(),
            certs: None,
            link: None,
            mesh: None,
        }
    }

    /// Returns when another revision is in force.
    ///
    /// # Cancel safety
    /// Safe: a change that is not waited for is found by the next call.
    pub(super) async fn applied(&mut self) {
        if let Some(mesh) = &mut self.mesh
            && mesh.changed().await.is_ok()
        {
            return;
        }
        self.mesh = None;
        std::future::pending().await
    }

    /// Says in a report what is so now. `apart` is how far the clock of who hears it is from ours, where
    /// that is too far.
    pub(super) fn tell(&self, report: NodeReport, apart: Option<Duration>) -> NodeReport {
        let certs = self.certs.as_ref().map(Certs::snapshot).unwrap_or_default();
        let host = HostInfo {
            wall_clock_ms: milliseconds(std::time::SystemTime::now()),
            ..self.host.clone()
        };
        NodeReport {
            host: Some(host),
            applied: self.progress().into_iter().collect(),
            certificates: Some(certificates(&certs)),
            findings: findings(&certs, clock::behind(), apart),
            ..report
        }
    }

    fn progress(&self) -> Option<Applied> {
        let mesh = self.mesh.as_ref()?;
        let number = mesh.borrow().revision.as_ref()?.number;
        let link = self.link.as_ref().map(|link| link.borrow().clone());
        let link = link.unwrap_or_default();
        Some(Applied {
            type_url: REVISION.to_owned(),
            version: number.to_string(),
            nacked: link.refusals,
            last_error: shortened(
                link.refused
                    .map_or_else(String::new, |r| r.reason.to_string()),
            ),
        })
    }
}

fn certificates(certs: &[CertStatus]) -> Certificates {
    let held = certs.iter().filter_map(|c| c.svid.as_ref());
    let soonest = held.clone().map(|svid| svid.not_after()).min();
    let failing = certs.iter().filter(|c| c.error.is_some()).count();
    let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
    Certificates {
        count: count(held.count()),
        failing: count(failing),
        soonest_not_after_ms: soonest.map_or(0, milliseconds),
    }
}

fn findings(
    certs: &[CertStatus],
    behind: Option<Duration>,
    apart: Option<Duration>,
) -> Vec<Finding> {
    let finding = |code: &str, severity: Severity, message: String| Finding {
        code: code.to_owned(),
        severity: severity.into(),
        message: shortened(message),
    };
    let behind = behind.map(|by| {
        let message = format!("the clock is {} s behind what is proven", by.as_secs());
        finding("clock-behind", Severity::Warning, message)
    });
    let apart = apart.map(|by| {
        let seconds = by.as_secs();
        let message = format!("the clock and the control plane's are {seconds} s apart");
        finding("clock-apart", Severity::Warning, message)
    });
    let failing = certs.iter().filter_map(|c| {
        let reason = c.error.as_ref()?;
        let good = |svid: &Arc<crate::tls::Svid>| clock::now() < svid.not_after();
        let severity = match c.svid.as_ref().is_some_and(good) {
            true => Severity::Warning,
            false => Severity::Error,
        };
        let message = format!("no new certificate for {}: {reason}", c.id);
        Some(finding("certificate-failing", severity, message))
    });
    let all = behind.into_iter().chain(apart).chain(failing);
    all.take(FINDINGS).collect()
}

/// What does not change while this process runs; what cannot be read stays empty.
fn host() -> HostInfo {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let word = |path: &str| read(path).trim().to_owned();
    let machine = word("/etc/machine-id");
    let os = read("/etc/os-release");
    let os = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    HostInfo {
        hostname: word("/proc/sys/kernel/hostname"),
        // Not itself: it is meant for this machine alone (machine-id(5)).
        machine_id_sha256: match machine.is_empty() {
            true => Vec::new(),
            false => Sha256::digest(machine).to_vec(),
        },
        boot_id: word("/proc/sys/kernel/random/boot_id"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: os.unwrap_or_default().trim_matches('"').to_owned(),
        wall_clock_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::SpiffeId;
    use crate::tls::testing::{Leaf, TestCa};
    use std::time::SystemTime;

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

    fn cert(ca: &TestCa, uri: &str, hours: i64, error: Option<&str>) -> CertStatus {
        let now = SystemTime::now();
        let ends = match u64::try_from(hours) {
            Ok(hours) => now + Duration::from_secs(3600 * hours),
            Err(_past) => now - Duration::from_secs(3600 * hours.unsigned_abs()),
        };
        let uris = [uri];
        let leaf = Leaf {
            not_before: ends - Duration::from_secs(86_400),
            not_after: ends,
            ..Leaf::uris(&uris)
        };
        CertStatus {
            id: uri.parse::<SpiffeId>().unwrap(),
            svid: Some(ca.svid_of(&leaf)),
            error: error.map(Arc::from),
        }
    }

    #[test]
    fn certificates_and_findings_say_what_is_wrong() {
        let ca = TestCa::new();
        let (good, gone) = (
            cert(&ca, CART, 9, Some("denied")),
            cert(&ca, WEB, -1, Some("denied")),
        );
        let fine = cert(&ca, CART, 5, None);
        let told = certificates(&[good.clone(), fine.clone()]);
        assert_eq!((told.count, told.failing), (2, 1));
        let soonest = milliseconds(fine.svid.as_ref().unwrap().not_after());
        assert_eq!(told.soonest_not_after_ms, soonest);
        let day = Some(Duration::from_secs(86_400));
        let hour = Some(Duration::from_secs(3600));
        let found = |certs: &[CertStatus], behind, apart| -> Vec<(String, Severity)> {
            let found = findings(certs, behind, apart).into_iter();
            found.map(|f| (f.code.clone(), f.severity())).collect()
        };
        let word = |code: &str, severity| (code.to_owned(), severity);
        use Severity::{Error, Warning};
        assert_eq!(found(&[fine], None, None), []);
        assert_eq!(
            found(&[good.clone(), gone], day, hour),
            [
                word("clock-behind", Warning),
                word("clock-apart", Warning),
                word("certificate-failing", Warning),
                word("certificate-failing", Error),
            ]
        );
        let many = vec![good; 40];
        assert_eq!(findings(&many, None, None).len(), FINDINGS);
    }

    #[test]
    fn a_report_names_its_host_and_its_boot() {
        let dir = tempfile::tempdir().unwrap();
        let facts = Facts::bare(ClockFile::of(dir.path()));
        let told = facts.tell(NodeReport::default(), None).host.unwrap();
        assert_eq!(told.version, env!("CARGO_PKG_VERSION"));
        assert!(!told.boot_id.is_empty() && !told.hostname.is_empty());
        assert!(told.wall_clock_ms > 0);
    }
}
