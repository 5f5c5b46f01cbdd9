//! Whom we believe: roots, and what has been revoked under them. Both change while connections are
//! open, so whoever judges a peer asks for the [`Bundle`] in force at that moment.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::config::provider;
use super::grace::Grace;
use super::svid::{Roots, SvidError};
use crate::hex::hex;
use crate::identity::TrustDomain;

/// Names one certificate: who issued it, and under which number (RFC 5280 §4.1.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateKey {
    /// The issuer's name in DER.
    issuer: Arc<[u8]>,
    /// Without leading zeros, so that encodings compare.
    serial: Box<[u8]>,
}

impl CertificateKey {
    fn new(issuer: &[u8], serial: &[u8]) -> Self {
        let zeros = serial.iter().take_while(|b| **b == 0).count();
        Self {
            issuer: Arc::from(issuer),
            serial: Box::from(serial.get(zeros..).unwrap_or_default()),
        }
    }

    /// The key of a certificate; `None` for bytes that are no X.509.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_rest, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self::new(parsed.issuer().as_raw(), parsed.raw_serial()))
    }

    /// The serial number in lower-case hex.
    pub fn serial(&self) -> String {
        hex(&self.serial)
    }
}

/// What peers are judged by at one moment.
pub struct Bundle {
    sequence: u64,
    roots: Arc<Roots>,
    /// Built once, since it is asked at every handshake.
    clients: Arc<dyn ClientCertVerifier>,
    revoked: HashSet<CertificateKey>,
    /// The number of each issuer's list, by the issuer's name.
    lists: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Certificates made before this are to be replaced.
    reissue_before: SystemTime,
    /// Trust domains that are meant as one with a peer's own.
    trust_domains: Vec<TrustDomain>,
}

impl Bundle {
    /// Roots under which nothing is revoked.
    ///
    /// # Errors
    /// [`SvidError::Verifier`] when the TLS stack cannot use the roots.
    pub fn of_roots(roots: Arc<Roots>) -> Result<Self, SvidError> {
        Self::new(0, roots, &[], SystemTime::UNIX_EPOCH)
    }

    /// The bundle of this sequence number; `crls` are revocation lists in DER.
    ///
    /// # Errors
    /// [`SvidError::Revocations`] for a list that does not parse, and as [`Bundle::of_roots`].
    pub fn new(
        sequence: u64,
        roots: Arc<Roots>,
        crls: &[Vec<u8>],
        reissue_before: SystemTime,
    ) -> Result<Self, SvidError> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.store(), provider().clone())
                .build()
                .map_err(|source| SvidError::Verifier { source })?;
        let mut bundle = Self {
            sequence,
            roots,
            clients,
            revoked: HashSet::new(),
            lists: BTreeMap::new(),
            reissue_before,
            trust_domains: Vec::new(),
        };
        for crl in crls {
            bundle.read(crl)?;
        }
        Ok(bundle)
    }

    /// The same, in which identities of all these trust domains are believed
    /// (`spec/labels-and-policy.md` §3.9).
    #[must_use]
    pub fn believing(self, trust_domains: Vec<TrustDomain>) -> Self {
        Self {
            trust_domains,
            ..self
        }
    }

    /// Whether an identity of this trust domain is believed by a peer of that one.
    pub fn knows(&self, theirs: &TrustDomain, own: &TrustDomain) -> bool {
        theirs == own || self.trust_domains.contains(theirs)
    }

    /// Whether both believe identities of the same trust domains.
    pub fn knows_as(&self, other: &Self) -> bool {
        self.trust_domains == other.trust_domains
    }

    /// Whether bytes are a revocation list.
    pub fn is_list(der: &[u8]) -> bool {
        CertificateRevocationList::from_der(der).is_ok()
    }

    fn read(&mut self, der: &[u8]) -> Result<(), SvidError> {
        let list = CertificateRevocationList::from_der(der);
        let (_rest, list) = list.map_err(|e| SvidError::Revocations {
            reason: e.to_string(),
        })?;
        let issuer = list.issuer().as_raw();
        let number = list.crl_number().map(|n| n.to_bytes_be());
        let number = number.unwrap_or_default();
        // Two authorities of one name, one after the other, have a list each.
        let known = self.lists.entry(issuer.to_vec()).or_default();
        if (known.len(), &*known) < (number.len(), &number) {
            *known = number;
        }
        let shared: Arc<[u8]> = Arc::from(issuer);
        for entry in list.iter_revoked_certificates() {
            let mut key = CertificateKey::new(&[], entry.raw_serial());
            key.issuer = Arc::clone(&shared);
            self.revoked.insert(key);
        }
        Ok(())
    }

    /// Its place among those of its mesh: a later one has a higher number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Certificates made before this are to be replaced.
    pub fn reissue_before(&self) -> SystemTime {
        self.reissue_before
    }

    /// What every chain must lead to.
    pub fn roots(&self) -> &Arc<Roots> {
        &self.roots
    }

    /// How many certificates are revoked.
    pub fn revocations(&self) -> usize {
        self.revoked.len()
    }

    /// Whether a certificate is revoked.
    pub fn revokes(&self, certificate: &CertificateKey) -> bool {
        self.revoked.contains(certificate)
    }

    /// Why this must not follow `before`, if it must not: numbers never fall, or whoever can replay
    /// an old bundle could take a revocation back (`spec/control-plane.md` §6.5).
    pub fn goes_back_from(&self, before: &Self) -> Option<String> {
        if self.sequence < before.sequence {
            let (now, was) = (self.sequence, before.sequence);
            return Some(format!(
                "its sequence {now} is below {was}, which is in force"
            ));
        }
        let lower = |(issuer, number): (&Vec<u8>, &Vec<u8>)| {
            let was = before.lists.get(issuer)?;
            let falls = (number.len(), number) < (was.len(), was);
            falls.then(|| "the number of a revocation list in it falls".to_owned())
        };
        self.lists.iter().find_map(lower)
    }

    pub(super) fn clients(&self) -> &Arc<dyn ClientCertVerifier> {
        &self.clients
    }

    /// Whether a chain, leaf first, leads to a root and is in date and unrevoked.
    pub fn believes(&self, chain: &[CertificateDer<'_>]) -> bool {
        self.believed_at(chain, crate::clock::now())
    }

    /// As [`Bundle::believes`], by the clock as it was at `time`.
    pub fn believed_at(&self, chain: &[CertificateDer<'_>], time: SystemTime) -> bool {
        let Some((leaf, above)) = chain.split_first() else {
            return false;
        };
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        let time = UnixTime::since_unix_epoch(since.unwrap_or_default());
        let sound = self.clients.verify_client_cert(leaf, above, time);
        sound.is_ok() && self.check(leaf, above).is_ok()
    }

    /// Refuses a chain of which any certificate is revoked.
    pub(super) fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        self.check_above(std::slice::from_ref(leaf))?;
        self.check_above(intermediates)
    }

    /// Refuses certificates of which any is revoked.
    pub(super) fn check_above(&self, certificates: &[CertificateDer<'_>]) -> Result<(), Error> {
        if self.revoked.is_empty() {
            return Ok(());
        }
        for certificate in certificates {
            let key = CertificateKey::of(certificate).ok_or(CertificateError::BadEncoding)?;
            // Of all ways to say no, the one that the peer is told by its own alert.
            if self.revokes(&key) {
                return Err(CertificateError::Revoked.into());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("sequence", &self.sequence)
            .field("roots", &self.roots)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

/// The bundle in force, for everyone who judges peers. Cheap to clone; all clones see a change.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: watch::Sender<Arc<Bundle>>,
    grace: Arc<Mutex<Grace>>,
}

impl Trust {
    /// Begins with a bundle.
    pub fn new(bundle: Bundle) -> Self {
        Self {
            bundle: watch::Sender::new(Arc::new(bundle)),
            grace: Arc::default(),
        }
    }

    /// Roots that never change and under which nothing is revoked.
    ///
    /// # Errors
    /// As [`Bundle::of_roots`].
    pub fn of_roots(roots: Arc<Roots>) -> Result<Self, SvidError> {
        Ok(Self::new(Bundle::of_roots(roots)?))
    }

    /// The bundle in force.
    pub fn bundle(&self) -> Arc<Bundle> {
        Arc::clone(&self.bundle.borrow())
    }

    /// Puts another bundle in force.
    pub fn replace(&self, bundle: Bundle) {
        self.bundle.send_replace(Arc::new(bundle));
    }

    /// The bundle in force and each one after it.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
    }

    /// What workloads' leaves are given past their end.
    pub fn grace(&self) -> Grace {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives workloads' leaves this from now on.
    pub fn give(&self, grace: Grace) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
    }

    /// Returns once identities of trust domain `theirs` are believed no more by a peer of `own`.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn disowned(&self, theirs: Option<&TrustDomain>, own: &TrustDomain) {
        if let Some(theirs) = theirs.filter(|theirs| *theirs != own) {
            let mut bundles = self.bundle.subscribe();
            let disowned = bundles.wait_for(|b| !b.knows(theirs, own)).await;
            if disowned.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Returns once a certificate is revoked.
    ///
    /// # Cancel safety
    /// Safe: it holds nothing.
    pub async fn revoked(&self, certificate: Option<CertificateKey>) {
        if let Some(certificate) = certificate {
            let mut bundles = self.bundle.subscribe();
            let revoked = bundles.wait_for(|b| b.revokes(&certificate)).await;
            if revoked.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::TestCa;

    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn bundle(ca: &TestCa, sequence: u64, crl: Option<(u64, &[&CertificateDer<'_>])>) -> Bundle {
        let crls = crl.map(|(number, revoked)| ca.crl(number, revoked));
        let crls: Vec<Vec<u8>> = crls.into_iter().collect();
        Bundle::new(sequence, ca.roots(), &crls, SystemTime::UNIX_EPOCH).unwrap()
    }

    #[tokio::test]
    async fn a_trust_domain_is_disowned_when_the_bundle_names_it_no_more() {
        use futures::FutureExt as _;
        let ca = TestCa::new();
        let [own, old] = ["cluster.local", "old.example"].map(|td| td.parse().unwrap());
        let both = || {
            bundle(&ca, 1, None).believing(vec![TrustDomain::clone(&own), TrustDomain::clone(&old)])
        };
        let trust = Trust::new(both());
        let mut waiting = std::pin::pin!(trust.disowned(Some(&old), &own));
        let mut never = std::pin::pin!(trust.disowned(Some(&own), &own));
        assert!(waiting.as_mut().now_or_never().is_none());
        trust.replace(bundle(&ca, 2, None));
        waiting.await;
        assert!(never.as_mut().now_or_never().is_none(), "one's own is kept");
    }

    #[test]
    fn only_what_is_listed_is_revoked() {
        let (ca, other) = (TestCa::new(), TestCa::new());
        let (cart, again) = (ca.svid(CART), ca.svid(CART));
        let bundle = bundle(&ca, 1, Some((1, &[&cart.chain()[0]])));
        let elsewhere = other.svid(CART);
        for (name, svid, want) in [
            ("listed", &cart, true),
            ("the same identity's other", &again, false),
            ("another authority's", &elsewhere, false),
        ] {
            let key = CertificateKey::of(&svid.chain()[0]).unwrap();
            assert_eq!(bundle.revokes(&key), want, "{name}");
            let checked = bundle.check(&svid.chain()[0], &[]);
            assert_eq!(checked.is_err(), want, "{name}");
        }
        assert_eq!(bundle.revocations(), 1);
    }

    #[test]
    fn a_bundle_never_goes_back() {
        let ca = TestCa::new();
        let held = bundle(&ca, 5, Some((300, &[])));
        for (name, next, back) in [
            ("the same", bundle(&ca, 5, Some((300, &[]))), false),
            ("a later one", bundle(&ca, 6, Some((301, &[]))), false),
            ("without a list", bundle(&ca, 6, None), false),
            ("a lower sequence", bundle(&ca, 4, Some((301, &[]))), true),
            ("a lower list", bundle(&ca, 6, Some((299, &[]))), true),
            ("a much lower list", bundle(&ca, 6, Some((2, &[]))), true),
        ] {
            assert_eq!(next.goes_back_from(&held).is_some(), back, "{name}");
        }
    }

    #[tokio::test]
    async fn a_revocation_is_heard_by_who_waits_for_it() {
        let ca = TestCa::new();
        let svid = ca.svid(CART);
        let trust = Trust::new(bundle(&ca, 1, None));
        let key = CertificateKey::of(&svid.chain()[0]);
        let mut waiting = std::pin::pin!(trust.revoked(key));
        trust.replace(bundle(&ca, 2, Some((1, &[]))));
        assert!(futures::poll!(&mut waiting).is_pending(), "nobody is yet");
        trust.replace(bundle(&ca, 3, Some((2, &[&svid.chain()[0]]))));
        waiting.await;
    }

    #[test]
    fn a_list_that_does_not_parse_is_an_error() {
        let ca = TestCa::new();
        let refused = Bundle::new(1, ca.roots(), &[vec![1, 2, 3]], SystemTime::UNIX_EPOCH);
        assert!(matches!(refused, Err(SvidError::Revocations { .. })));
    }
}
