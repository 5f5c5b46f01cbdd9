//! The files that TLS to programs goes by, read again when they change.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tracing::warn;

use super::Alpn;
use crate::model::traffic::TlsOrigination;
use crate::tls::TlsError;
use crate::tls::originate::{
    MaterialError, Origination, certificate_from_pem, originate, roots_from_pem,
};

/// Settings that are kept; beyond it all are made again. There are as many as destination rules differ.
const KEPT: usize = 1024;

/// Settings made of files.
#[derive(Default)]
pub(in crate::waypoint) struct Materials {
    made: Mutex<HashMap<(TlsOrigination, Alpn), Made>>,
    /// The roots that this host believes, as of the first time that they were needed.
    system: OnceCell<Arc<RootCertStore>>,
}

struct Made {
    config: Arc<ClientConfig>,
    stamps: Vec<Stamp>,
}

/// What tells one content of a file from another.
type Stamp = (u64, u64, i64, i64);

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(in crate::waypoint) enum NoMaterial {
    #[error("cannot read {file}")]
    Read { file: Arc<str>, source: io::Error },
    #[error("cannot use {file}")]
    Unusable {
        file: Arc<str>,
        source: MaterialError,
    },
    #[error("this host has no roots of its own; name some by `ca-certificates`")]
    NoRoots,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

fn unusable(file: &Arc<str>) -> impl FnOnce(MaterialError) -> NoMaterial + '_ {
    move |source| NoMaterial::Unusable {
        file: Arc::clone(file),
        source,
    }
}

fn unread(file: &Arc<str>) -> impl FnOnce(io::Error) -> NoMaterial + '_ {
    move |source| NoMaterial::Read {
        file: Arc::clone(file),
        source,
    }
}

async fn stamp(file: &Arc<str>) -> Result<Stamp, NoMaterial> {
    let about = tokio::fs::metadata(&**file).await.map_err(unread(file))?;
    Ok((about.ino(), about.size(), about.mtime(), about.mtime_nsec()))
}

async fn content(file: &Arc<str>) -> Result<Vec<u8>, NoMaterial> {
    tokio::fs::read(&**file).await.map_err(unread(file))
}

/// The files that an origination names.
fn files(origination: &TlsOrigination) -> impl Iterator<Item = &Arc<str>> {
    let own = origination.client_certificate.as_ref();
    let own = own.into_iter().flat_map(|(chain, key)| [chain, key]);
    let roots = origination.ca_certificates.as_ref();
    roots
        .filter(|_| !origination.insecure_skip_verify)
        .into_iter()
        .chain(own)
}

impl Materials {
    /// The settings for an origination, from the files as they are now.
    pub(in crate::waypoint) async fn config(
        &self,
        origination: &TlsOrigination,
        alpn: Alpn,
    ) -> Result<Arc<ClientConfig>, NoMaterial> {
        let mut stamps = Vec::new();
        for file in files(origination) {
            stamps.push(stamp(file).await?);
        }
        let key = (origination.clone(), alpn);
        if let Some(config) = self.kept(&key, &stamps) {
            return Ok(config);
        }
        let config = originate(&self.terms(origination, alpn).await?)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.len() >= KEPT {
            made.clear();
        }
        let kept = Made {
            config: Arc::clone(&config),
            stamps,
        };
        made.insert(key, kept);
        Ok(config)
    }

    fn kept(&self, key: &(TlsOrigination, Alpn), stamps: &[Stamp]) -> Option<Arc<ClientConfig>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.get(key).filter(|made| made.stamps == stamps)?;
        Some(Arc::clone(&made.config))
    }

    async fn terms(
        &self,
        origination: &TlsOrigination,
        alpn: Alpn,
    ) -> Result<Origination, NoMaterial> {
        let roots = match &origination.ca_certificates {
            _ if origination.insecure_skip_verify => None,
            Some(file) => {
                let roots = roots_from_pem(&content(file).await?);
                Some(roots.map_err(unusable(file))?)
            }
            None => Some(self.system().await?),
        };
        let certificate = match &origination.client_certificate {
            Some((chain, key)) => {
                let own = certificate_from_pem(&content(chain).await?, &content(key).await?);
                Some(own.map_err(unusable(chain))?)
            }
            None => None,
        };
        Ok(Origination {
            roots,
            names: origination.subject_alt_names.clone(),
            certificate,
            alpn: match alpn {
                Alpn::None => Vec::new(),
                Alpn::Http1 => vec![b"http/1.1".to_vec()],
                Alpn::Http2 => vec![b"h2".to_vec()],
            },
        })
    }

    /// Those of a host that believes these roots.
    #[cfg(test)]
    pub(in crate::waypoint) fn believing(roots: Arc<RootCertStore>) -> Self {
        Self {
            made: Mutex::default(),
            system: OnceCell::new_with(Some(roots)),
        }
    }

    async fn system(&self) -> Result<Arc<RootCertStore>, NoMaterial> {
        let roots = self.system.get_or_try_init(|| async {
            let loading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
            let loaded = loading.await.map_err(|_died| NoMaterial::NoRoots)?;
            for error in &loaded.errors {
                warn!(%error, "some of this host's roots cannot be read");
            }
            let mut store = RootCertStore::empty();
            match store.add_parsable_certificates(loaded.certs) {
                (0, _unusable) => Err(NoMaterial::NoRoots),
                _ => Ok(Arc::new(store)),
            }
        });
        roots.await.cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::tls::testing::TestCa;
    use crate::tls::to_pem;

    #[tokio::test]
    async fn files_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let path: Arc<str> = Arc::from(file.to_str().unwrap());
        let origination = TlsOrigination {
            ca_certificates: Some(Arc::clone(&path)),
            ..TlsOrigination::default()
        };
        let materials = Materials::default();
        let config = || materials.config(&origination, Alpn::None);
        let none = config().await.unwrap_err();
        assert!(matches!(none, NoMaterial::Read { .. }), "{none}");
        fs::write(&file, to_pem(&TestCa::new().root)).unwrap();
        let first = config().await.unwrap();
        assert!(Arc::ptr_eq(&first, &config().await.unwrap()), "made once");
        let other = dir.path().join("new.pem");
        fs::write(&other, to_pem(&TestCa::new().root)).unwrap();
        fs::rename(&other, &file).unwrap();
        assert!(!Arc::ptr_eq(&first, &config().await.unwrap()), "changed");
        fs::write(&file, "nothing").unwrap();
        let bad = config().await.unwrap_err();
        assert!(matches!(bad, NoMaterial::Unusable { .. }), "{bad}");
    }

    #[tokio::test]
    async fn nothing_is_read_to_verify_nothing() {
        let origination = TlsOrigination {
            ca_certificates: Some(Arc::from("/nowhere")),
            insecure_skip_verify: true,
            ..TlsOrigination::default()
        };
        let materials = Materials::default();
        assert!(materials.config(&origination, Alpn::Http2).await.is_ok());
    }
}
