//! The certificate manager against an issuer of the tests', with the clock paused.

use super::*;
use crate::agent::issuer::IssueError;
use crate::tls::testing::{Leaf, TestCa};
use crate::tls::{Bundle, Grace, Roots, SvidError, Trust};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

struct Fake {
    ca: TestCa,
    trust: Trust,
    broken: Arc<AtomicBool>,
    issued: Arc<AtomicUsize>,
    life: Duration,
    kept: Mutex<Option<Svid>>,
    forgotten: Arc<Mutex<Vec<SpiffeId>>>,
}

impl Issuer for Fake {
    async fn kept(&self, _id: &SpiffeId) -> Option<Svid> {
        self.kept.lock().unwrap().take()
    }

    async fn forget(&self, id: &SpiffeId) {
        self.forgotten.lock().unwrap().push(id.clone());
    }

    async fn issue(&self, id: &SpiffeId) -> Result<Svid, IssueError> {
        self.issued.fetch_add(1, Ordering::Relaxed);
        if self.broken.load(Ordering::Relaxed) {
            return Err(IssueError::Timeout);
        }
        Ok(svid(&self.ca, &self.trust, id, self.life)?)
    }
}

fn svid(ca: &TestCa, trust: &Trust, id: &SpiffeId, life: Duration) -> Result<Svid, SvidError> {
    let now = SystemTime::now();
    let uri = id.to_string();
    let uris = [uri.as_str()];
    let leaf = Leaf {
        not_before: now,
        not_after: now + life,
        ..Leaf::uris(&uris)
    };
    let (certificate, key) = ca.leaf(&leaf);
    Svid::new(vec![certificate], key, trust.clone())
}

struct Rig {
    certs: Certs,
    trust: Trust,
    roots: Arc<Roots>,
    link: watch::Sender<Link>,
    broken: Arc<AtomicBool>,
    issued: Arc<AtomicUsize>,
    forgotten: Arc<Mutex<Vec<SpiffeId>>>,
    _tasks: JoinSet<()>,
}

fn rig(life: Duration) -> Rig {
    rig_with(life, None)
}

/// With a certificate on disk that has so long to live.
fn rig_with(life: Duration, kept: Option<Duration>) -> Rig {
    let (broken, issued) = (Arc::default(), Arc::default());
    let forgotten: Arc<Mutex<_>> = Arc::default();
    let ca = TestCa::new();
    let trust = ca.trust();
    let kept = kept.map(|left| svid(&ca, &trust, &cart(), left).unwrap());
    let roots = ca.roots();
    let fake = Fake {
        ca,
        trust: trust.clone(),
        kept: Mutex::new(kept),
        forgotten: Arc::clone(&forgotten),
        broken: Arc::clone(&broken),
        issued: Arc::clone(&issued),
        life,
    };
    let link = watch::Sender::new(Link::default());
    let (manager, certs) = Manager::new(fake, link.subscribe());
    let mut tasks = JoinSet::new();
    tasks.spawn(manager.run(CancellationToken::new()));
    Rig {
        certs,
        trust,
        roots,
        link,
        broken,
        issued,
        forgotten,
        _tasks: tasks,
    }
}

fn cart() -> SpiffeId {
    CART.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_wanted_certificate_is_fetched_ahead_and_renewed() {
    let rig = rig(Duration::from_secs(8 * 86_400));
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    let svid = rig.certs.get(&cart()).await.unwrap();
    assert_eq!(svid.id(), &cart());
    assert_eq!(rig.issued.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_secs(10 * 3600)).await;
    assert_eq!(
        rig.issued.load(Ordering::Relaxed),
        1,
        "not before 12 h less a tenth"
    );
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    assert_eq!(rig.issued.load(Ordering::Relaxed), 2, "by 12 h and a tenth");
}

#[tokio::test(start_paused = true)]
async fn failures_answer_at_once_and_a_retry_heals() {
    let rig = rig(Duration::from_secs(86_400));
    rig.broken.store(true, Ordering::Relaxed);
    let error = rig.certs.get(&cart()).await.unwrap_err();
    assert!(matches!(error, CertError::Failed { .. }), "{error}");
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    rig.broken.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(rig.certs.get(&cart()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_leaves_the_valid_certificate_in_use() {
    let rig = rig(Duration::from_secs(86_400));
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    let first = rig.certs.get(&cart()).await.unwrap();
    rig.broken.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(14 * 3600)).await;
    assert!(rig.issued.load(Ordering::Relaxed) > 3, "it kept trying");
    let still = rig.certs.get(&cart()).await.unwrap();
    assert_eq!(still.serial(), first.serial());
    assert!(rig.certs.snapshot()[0].error.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_is_let_go_after_a_minute() {
    let rig = rig(Duration::from_secs(86_400));
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    rig.certs.get(&cart()).await.unwrap();
    rig.certs.set_wanted(BTreeSet::new());
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.certs.snapshot().len(), 1);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(rig.certs.snapshot().len(), 0);
    assert_eq!(*rig.forgotten.lock().unwrap(), [cart()], "on disk too");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_from_disk_is_used_until_it_is_due() {
    let rig = rig_with(Duration::from_secs(86_400), Some(Duration::from_secs(7200)));
    rig.broken.store(true, Ordering::Relaxed);
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    let kept = rig.certs.get(&cart()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert_eq!(
        rig.issued.load(Ordering::Relaxed),
        0,
        "half its life is not over"
    );
    rig.broken.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(rig.issued.load(Ordering::Relaxed), 1);
    let renewed = rig.certs.get(&cart()).await.unwrap();
    assert_ne!(renewed.serial(), kept.serial());
}

#[tokio::test(start_paused = true)]
async fn a_bundle_that_asks_for_new_certificates_gets_them_soon() {
    let rig = rig(Duration::from_secs(8 * 86_400));
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    rig.certs.get(&cart()).await.unwrap();
    let before = |at| Bundle::new(1, Arc::clone(&rig.roots), &[], at).unwrap();
    let now = SystemTime::now();
    rig.trust.replace(before(now - Duration::from_secs(3600)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.issued.load(Ordering::Relaxed), 1, "made after that");
    rig.trust.replace(before(now + Duration::from_secs(3600)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        rig.issued.load(Ordering::Relaxed),
        1,
        "a clock that is wrong"
    );
    // What is made at once is still from before then: asked for again, but never in a rush.
    rig.trust.replace(before(now + Duration::from_secs(200)));
    tokio::time::sleep(Duration::from_secs(11)).await;
    let renewed = rig.issued.load(Ordering::Relaxed) - 1;
    assert!((1..=11).contains(&renewed), "{renewed}");
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_returns_is_asked_at_once() {
    let rig = rig(Duration::from_secs(3600));
    rig.broken.store(true, Ordering::Relaxed);
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    rig.certs.get(&cart()).await.unwrap_err();
    // Far enough for the waits to have grown long.
    tokio::time::sleep(Duration::from_secs(1000)).await;
    rig.broken.store(false, Ordering::Relaxed);
    let connected = |at: Option<&str>| {
        rig.link
            .send_modify(|l| l.connected = at.map(str::to_owned));
    };
    connected(Some("https://control:15012"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(rig.certs.get(&cart()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_from_disk_serves_while_it_has_grace() {
    let hour = Duration::from_secs(3600);
    for (name, lasts, good) in [("none", Duration::ZERO, false), ("an hour", hour, true)] {
        let rig = rig_with(hour, Some(Duration::ZERO));
        rig.trust.give(Grace {
            lasts,
            alone: Some(clock::now() - hour),
        });
        rig.broken.store(true, Ordering::Relaxed);
        let got = rig.certs.get(&cart()).await;
        assert_eq!(got.is_ok(), good, "{name}: {got:?}");
        assert!(
            good || matches!(got, Err(CertError::Expired { .. })),
            "{name}"
        );
        rig.broken.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(rig.certs.get(&cart()).await.is_ok(), "{name}: renewed");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_part_no_longer_wants_another_may() {
    let rig = rig(Duration::from_secs(86_400));
    rig.certs.set_wanted(BTreeSet::from([cart()]));
    rig.certs
        .set_wanted_by("waypoint", BTreeSet::from([cart()]));
    rig.certs.get(&cart()).await.unwrap();
    rig.certs.set_wanted(BTreeSet::new());
    tokio::time::sleep(3 * LINGER).await;
    assert!(rig.forgotten.lock().unwrap().is_empty(), "still wanted");
    rig.certs.set_wanted_by("waypoint", BTreeSet::new());
    tokio::time::sleep(3 * LINGER).await;
    assert_eq!(*rig.forgotten.lock().unwrap(), [cart()]);
}
