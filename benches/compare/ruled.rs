//! Services whose requests a waypoint judges by so many rules.

use std::net::Ipv4Addr;

/// How many rules each has, and how far its address is from that of the service without any.
pub(crate) const SERVICES: [(usize, u8); 2] = [(10, 40), (1_000, 80)];
/// Rules of one policy, at most.
const OF_ONE_POLICY: usize = 500;

/// The address of a service that is judged by policy, of the one beside it.
pub(crate) fn address(of: Ipv4Addr, offset: u8) -> Ipv4Addr {
    let [a, b, c, d] = of.octets();
    Ipv4Addr::new(a, b, c, d.saturating_add(offset))
}

/// So many rules on a service, of which the last lets requests through.
pub(crate) fn policies(service: &str, rules: usize) -> String {
    let rule = |n: usize| {
        let path = match n + 1 == rules {
            true => "/*".to_owned(),
            false => format!("/api/v1/items/{n}/*"),
        };
        format!(
            "  {{ to = [{{ operation = {{ methods = [\"GET\"], paths = [\"{path}\"] }} }}] }},\n"
        )
    };
    let all: Vec<String> = (0..rules).map(rule).collect();
    let policies = all.chunks(OF_ONE_POLICY).enumerate().map(|(n, rules)| {
        format!(
            "\n[[authorization-policy]]\nname = \"{service}-{n}\"\n\
             target-refs = [{{ kind = \"Service\", name = \"{service}\" }}]\nrules = [\n{}]\n",
            rules.concat()
        )
    });
    policies.collect()
}
