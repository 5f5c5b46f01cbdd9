//! What the words of a question name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Step, step};
use crate::config::did_you_mean;
use crate::model::names::{Asker, Names};
use crate::model::service::Service;
use crate::model::view::View;
use crate::model::workload::Workload;

/// A question that names something that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The client is not written as one.
    #[error("`{0}` is no workload; write it as namespace/name, as in shop/web-1")]
    Client(String),
    /// There is no such client.
    #[error("the mesh has no workload `{name}`{hint}")]
    NoClient {
        /// The name.
        name: String,
        /// What may have been meant, with what comes before it.
        hint: String,
    },
    /// The destination is not written as one.
    #[error("`{0}` is no destination; write it as host:port, as in cart.shop.mesh.internal:80")]
    Destination(String),
    /// There is no such service.
    #[error("the mesh has no service `{name}`{hint}")]
    NoService {
        /// The name.
        name: String,
        /// What may have been meant, with what comes before it.
        hint: String,
    },
    /// The service cannot be connected to by its name.
    #[error("service `{0}` has no address; name one of its workloads' addresses")]
    NoAddress(String),
    /// The request is none.
    #[error("`{0}` is no part of a request")]
    Request(String),
}

/// Where a connection is meant to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address.
    pub address: SocketAddr,
    /// The service by whose name it was found.
    named: Option<Arc<Service>>,
}

impl Destination {
    /// How the name came to the address, where there was one.
    pub(super) fn step(&self) -> Option<Step> {
        let service = self.named.as_ref()?;
        let text = format!(
            "{} is service {} at {}",
            service.key.hostname,
            service.key,
            self.address.ip()
        );
        Some(step("name", text))
    }
}

/// The workload called `namespace/name`.
pub(super) fn workload<'v>(view: &'v View, text: &str) -> Result<&'v Arc<Workload>, QuestionError> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or_else(|| QuestionError::Client(text.to_owned()))?;
    let mut all = view.workloads();
    let called = |w: &&Arc<Workload>| &*w.namespace == namespace && &*w.name == name;
    all.find(called).ok_or_else(|| {
        let known: Vec<String> = view
            .workloads()
            .map(|w| format!("{}/{}", w.namespace, w.name))
            .collect();
        QuestionError::NoClient {
            name: text.to_owned(),
            hint: hint(text, &known),
        }
    })
}

/// `host:port`, as `source` would resolve it: a name as its node answers it, or an address.
pub(super) fn destination(
    (view, names): (&View, &Names),
    source: &Workload,
    text: &str,
) -> Result<Destination, QuestionError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Destination {
            address: SocketAddr::new(address.ip().to_canonical(), address.port()),
            named: None,
        });
    }
    let malformed = || QuestionError::Destination(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_no_number| malformed())?;
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if host.is_empty() || host.parse::<IpAddr>().is_ok() {
        return Err(malformed());
    }
    let service = service((view, names), source, &host)?;
    let family = |a: &&crate::model::service::NetworkAddress| {
        let own = source
            .addresses
            .iter()
            .any(|o| o.is_ipv4() == a.address.is_ipv4());
        own && a.network == source.network
    };
    let vips = &service.vips;
    let vip = vips.iter().find(family).or_else(|| vips.first());
    let vip = vip.ok_or_else(|| QuestionError::NoAddress(service.key.to_string()))?;
    Ok(Destination {
        address: SocketAddr::new(vip.address, port),
        named: Some(Arc::clone(service)),
    })
}

fn service<'v>(
    (view, names): (&'v View, &Names),
    source: &Workload,
    host: &'v str,
) -> Result<&'v Arc<Service>, QuestionError> {
    let named = names.find(view, Asker::from(source), host);
    // One without an address is not answered for, but can be told of.
    let known = || view.service_named(host, &source.namespace);
    let service = named.map(|named| named.service).or_else(known);
    service.ok_or_else(|| {
        let known: Vec<String> = view
            .services()
            .map(|s| match host.matches('.').count() {
                0 => s.name.to_string(),
                1 => format!("{}.{}", s.name, s.key.namespace),
                _ => s.key.hostname.to_string(),
            })
            .collect();
        QuestionError::NoService {
            name: host.to_owned(),
            hint: hint(host, &known),
        }
    })
}

fn hint(name: &str, known: &[String]) -> String {
    match did_you_mean(name, known.iter().map(String::as_str)) {
        Some(guess) => format!("; {guess}"),
        None => String::new(),
    }
}
