//! Addresses of services that declare none.
//!
//! A service keeps the address it had. A new one starts from a hash of its key and takes the next
//! free address, so that its address depends on other services only where two hashes meet, and two
//! control planes that start from nothing agree.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::{CompileError, Warning, is_host};
use crate::model::declaration::{Mesh, ServiceEntry};
use crate::model::service::ServiceKey;

/// Which address each service without a declared one has: at most one per family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignments(BTreeMap<ServiceKey, Vec<IpAddr>>);

impl Assignments {
    /// The addresses of a service; empty when none are assigned.
    pub fn of(&self, key: &ServiceKey) -> &[IpAddr] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether one of these addresses is assigned.
    pub(super) fn meets<'a>(&self, addresses: impl Iterator<Item = &'a IpAddr>) -> bool {
        let addresses: HashSet<&IpAddr> = addresses.collect();
        let mut assigned = self.0.values().flatten();
        !addresses.is_empty() && assigned.any(|address| addresses.contains(address))
    }

    /// All of them, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceKey, &[IpAddr])> {
        self.0
            .iter()
            .map(|(key, addresses)| (key, addresses.as_slice()))
    }
}

impl FromIterator<(ServiceKey, Vec<IpAddr>)> for Assignments {
    fn from_iter<I: IntoIterator<Item = (ServiceKey, Vec<IpAddr>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// Gives every service in `wanting` its addresses, keeping those of `previous` that still fit.
pub(super) fn assign(
    mesh: &Mesh,
    wanting: &[&ServiceKey],
    previous: &Assignments,
    warnings: &mut Vec<Warning>,
) -> Result<Assignments, CompileError> {
    let ranges = first_of_each_family(&mesh.settings.service_range);
    let mut wanting = wanting.to_vec();
    if wanting.is_empty() {
        return Ok(Assignments::default());
    }
    wanting.sort();
    if let (true, Some(service)) = (ranges.is_empty(), wanting.first()) {
        return Err(CompileError::NoRange {
            service: (*service).clone(),
        });
    }
    let mut taken = declared(mesh);
    let mut kept: BTreeMap<ServiceKey, Vec<IpAddr>> = BTreeMap::new();
    for key in &wanting {
        let mut mine = Vec::with_capacity(ranges.len());
        for address in previous.of(key) {
            let range = ranges.iter().find(|range| range.contains(address));
            match range.is_some() && taken.insert(*address) {
                true => mine.push(*address),
                false => warnings.push(Warning::AddressMoved {
                    service: (*key).clone(),
                    from: *address,
                }),
            }
        }
        kept.insert((*key).clone(), mine);
    }
    // Newcomers only after everyone has kept what they had.
    for (key, mine) in &mut kept {
        for range in &ranges {
            if mine.iter().any(|address| range.contains(address)) {
                continue;
            }
            let address =
                free(*range, key, &taken).ok_or_else(|| CompileError::RangeExhausted {
                    service: key.clone(),
                    range: *range,
                })?;
            taken.insert(address);
            mine.push(address);
        }
        mine.sort();
    }
    Ok(Assignments(kept))
}

fn first_of_each_family(ranges: &[IpNet]) -> Vec<IpNet> {
    let v4 = ranges.iter().find(|r| matches!(r, IpNet::V4(_)));
    let v6 = ranges.iter().find(|r| matches!(r, IpNet::V6(_)));
    [v4, v6]
        .into_iter()
        .flatten()
        .map(|range| range.trunc())
        .collect()
}

fn declared(mesh: &Mesh) -> HashSet<IpAddr> {
    let services = mesh.services.iter().flat_map(|s| &s.addresses);
    let gateways = mesh.gateways.iter().flat_map(|g| &g.addresses);
    let entries = mesh.service_entries.iter();
    let services = services.chain(gateways).copied();
    let services = services.chain(entries.flat_map(ServiceEntry::single_addresses));
    let workloads = mesh.workloads.iter().flat_map(|w| &w.addresses);
    let nodes = mesh.nodes.values().flat_map(|n| &n.addresses);
    services.chain(workloads.chain(nodes).copied()).collect()
}

/// The first free address of `range` at or after the one `key` hashes to, wrapping round.
fn free(range: IpNet, key: &ServiceKey, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
    let (first, count) = hosts(range);
    let start = hash(key) % count;
    // One more probe than there are taken addresses meets a free one or has seen the whole range.
    let probes = count.min(taken.len() as u128 + 1);
    (0..probes)
        .map(|step| match count - start {
            to_end if step >= to_end => step - to_end,
            _ => start + step,
        })
        .map(|offset| nth(range, first.wrapping_add(offset)))
        .find(|address| is_host(*address) && !taken.contains(address))
}

/// First host address of a range, as an integer, and how many there are. In ranges of more than
/// two addresses the first is left out (network, or subnet-router anycast), and so is IPv4's last.
fn hosts(range: IpNet) -> (u128, u128) {
    let (first, bits, last_out) = match range {
        IpNet::V4(net) => (
            u128::from(u32::from(net.network())),
            net.max_prefix_len() - net.prefix_len(),
            1,
        ),
        IpNet::V6(net) => (
            u128::from(net.network()),
            net.max_prefix_len() - net.prefix_len(),
            0,
        ),
    };
    let size = 1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX);
    match size {
        1 | 2 => (first, size),
        _ => (first + 1, size - 1 - last_out),
    }
}

fn nth(range: IpNet, value: u128) -> IpAddr {
    match range {
        // The value lies inside the range, so it fits.
        IpNet::V4(_) => IpAddr::V4(u32::try_from(value).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(value.into()),
    }
}

fn hash(key: &ServiceKey) -> u128 {
    let digest = Sha256::digest(key.to_string());
    let mut head = [0; 16];
    head.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(head)
}
