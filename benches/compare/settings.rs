//! What a run is about, from the environment: cargo hands arguments of its own to benchmarks.

use std::path::{Path, PathBuf};

use crate::fault::Fault;

/// Lateen as this build made it.
pub(crate) const OWN: &str = env!("CARGO_BIN_EXE_lateen");

/// Everything that can be chosen.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `ROUNDS`: how often each figure is taken; 3 unless set.
    pub(crate) rounds: usize,
    /// `SECONDS`: how long each measurement lasts; 3 unless set.
    pub(crate) seconds: u32,
    /// `ROWS`: parts of names, of which a row must have one; all rows unless set.
    pub(crate) rows: Vec<String>,
    /// `RATES`: requests per second of the open loop; 1000 and 5000 unless set.
    pub(crate) rates: Vec<u32>,
    /// `LATEEN`: another lateen than this build's.
    pub(crate) lateen: PathBuf,
    /// `LATEEN_BASE`: an older lateen to compare with.
    pub(crate) base: Option<PathBuf>,
    /// `ZTUNNEL`: Istio's node proxy.
    pub(crate) ztunnel: Option<PathBuf>,
    /// `NEBULA`.
    pub(crate) nebula: Option<PathBuf>,
    /// `NEBULA_CERT`: what signs Nebula's certificates; beside `NEBULA` unless set.
    pub(crate) nebula_cert: Option<PathBuf>,
    /// `WIREGUARD_GO`: WireGuard as a program; `wg` must be on the path.
    pub(crate) wireguard: Option<PathBuf>,
    /// `ENVOY`.
    pub(crate) envoy: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// A number that is none, or a program that is not there.
    pub(crate) fn read() -> Result<Self, Fault> {
        let nebula = program("NEBULA")?;
        let sibling = nebula.as_deref().map(|n| n.with_file_name("nebula-cert"));
        Ok(Self {
            rounds: number("ROUNDS", 3)?,
            seconds: number("SECONDS", 3)?,
            rows: list("ROWS").into_iter().map(|r| r.to_lowercase()).collect(),
            rates: rates()?,
            lateen: program("LATEEN")?.unwrap_or_else(|| PathBuf::from(OWN)),
            base: program("LATEEN_BASE")?,
            ztunnel: program("ZTUNNEL")?,
            nebula_cert: program("NEBULA_CERT")?.or(sibling),
            nebula,
            wireguard: program("WIREGUARD_GO")?,
            envoy: program("ENVOY")?,
        })
    }

    /// Whether a row of this name is wanted.
    pub(crate) fn wants(&self, row: &str) -> bool {
        let row = row.to_lowercase();
        self.rows.is_empty() || self.rows.iter().any(|part| row.contains(part))
    }
}

/// `KEEP_RIG`: whether logs and settings of the contenders are left in the temporary directory.
pub(crate) fn keeps_files() -> bool {
    text("KEEP_RIG").is_some()
}

fn text(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

fn list(name: &str) -> Vec<String> {
    let text = text(name).unwrap_or_default();
    let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
    words.map(str::to_owned).collect()
}

fn number<T: std::str::FromStr + PartialOrd + From<u8>>(name: &str, usual: T) -> Result<T, Fault> {
    let Some(text) = text(name) else {
        return Ok(usual);
    };
    let number = text.parse().ok().filter(|n| *n >= T::from(1));
    number.ok_or_else(|| Fault::said(format!("{name}={text}"), "not a number of 1 or more"))
}

fn rates() -> Result<Vec<u32>, Fault> {
    let words = list("RATES");
    if words.is_empty() {
        return Ok(vec![1000, 5000]);
    }
    let rate = |word: &String| {
        let rate = word.parse().ok().filter(|n| (1..=1_000_000).contains(n));
        rate.ok_or_else(|| Fault::said(format!("RATES: {word}"), "not a rate of 1 to 1000000"))
    };
    words.iter().map(rate).collect()
}

/// A program's path, made absolute: it is run from elsewhere.
fn program(name: &str) -> Result<Option<PathBuf>, Fault> {
    let Some(path) = text(name) else {
        return Ok(None);
    };
    let found = Path::new(&path).canonicalize();
    found.map(Some).map_err(Fault::io(format!("{name}={path}")))
}
