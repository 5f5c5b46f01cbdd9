//! The mesh's certificate authority, which lateen's control plane is handed and which certifies a
//! waypoint that knows no control plane.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::super::envoy::{Files, failed, leaf};
use crate::fault::Fault;
use crate::rig::Stage;

/// Its directory among the stage's files.
const DIRECTORY: &str = "ca";
/// The mesh's, since its file names no other.
const TRUST_DOMAIN: &str = "cluster.local";

/// An intermediate under a root.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The intermediate's certificate as PEM.
    intermediate: String,
    directory: PathBuf,
}

impl Authority {
    /// Makes one, by Istio's file names.
    pub(super) fn make(stage: &Stage) -> Result<Self, Fault> {
        let (root_params, root_key) = authority("bench root")?;
        let root = root_params.self_signed(&root_key).map_err(|e| failed(&e))?;
        let above = Issuer::new(root_params, root_key);
        let (params, key) = authority("bench intermediate")?;
        let certificate = params.signed_by(&key, &above).map_err(|e| failed(&e))?;
        let (root, intermediate) = (root.pem(), certificate.pem());
        for (name, text) in [
            ("root-cert.pem", &root),
            ("ca-cert.pem", &intermediate),
            ("cert-chain.pem", &format!("{intermediate}{root}")),
            ("ca-key.pem", &key.serialize_pem()),
        ] {
            let path = stage.write(&format!("{DIRECTORY}/{name}"), text)?;
            let owner_only = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&path, owner_only).map_err(Fault::io(format!("making {name}")))?;
        }
        Ok(Self {
            issuer: Issuer::new(params, key),
            intermediate,
            directory: stage.file(DIRECTORY),
        })
    }

    /// Where its files are.
    pub(super) fn directory(&self) -> PathBuf {
        self.directory.clone()
    }

    /// The files of somebody who has the identity of a service account.
    pub(super) fn certify(&self, stage: &Stage, account: &str) -> Result<Files, Fault> {
        let (certificate, key) = leaf(&identity(account), &self.issuer)?;
        let write = |end: &str, text: &str| {
            let path = stage.write(&format!("certified/{account}.{end}"), text)?;
            Ok::<_, Fault>(path.display().to_string())
        };
        let root = self.directory.join("root-cert.pem");
        Ok(Files {
            certificate: write("pem", &format!("{certificate}{}", self.intermediate))?,
            key: write("key", &key)?,
            authority: root.display().to_string(),
        })
    }
}

/// The SPIFFE ID of a service account of the mesh.
pub(super) fn identity(account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/bench/sa/{account}")
}

/// What SPIFFE IDs of the mesh begin with.
pub(super) fn trust_domain() -> String {
    format!("spiffe://{TRUST_DOMAIN}/")
}

fn authority(name: &str) -> Result<(CertificateParams, KeyPair), Fault> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|e| failed(&e))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().map_err(|e| failed(&e))?;
    Ok((params, key))
}
