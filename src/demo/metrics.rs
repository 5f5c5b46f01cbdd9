//! Reads the flows of the mesh out of Prometheus text: who talked to whom, as whom, how much.

use std::collections::BTreeMap;

/// One flow as the client's node reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The client workload.
    pub source: String,
    /// The service addressed, or the server workload where there is none.
    pub service: String,
    /// The server workload.
    pub destination: String,
    /// Who the client proved to be.
    pub source_principal: String,
    /// Who the server proved to be.
    pub destination_principal: String,
    /// `mutual_tls` or `unknown`.
    pub security: String,
}

/// How much a flow carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Volume {
    /// Connections begun.
    pub connections: u64,
    /// Bytes both ways.
    pub bytes: u64,
}

/// The flows of a metrics page, as reported at the source.
pub fn flows(text: &str) -> BTreeMap<Flow, Volume> {
    let mut flows: BTreeMap<Flow, Volume> = BTreeMap::new();
    for line in text.lines() {
        let Some((name, labels, value)) = sample(line) else {
            continue;
        };
        if labels.get("reporter").map(String::as_str) != Some("source") {
            continue;
        }
        let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
        let flow = Flow {
            source: label("source_workload"),
            service: label("destination_service_name"),
            destination: label("destination_workload"),
            source_principal: label("source_principal"),
            destination_principal: label("destination_principal"),
            security: label("connection_security_policy"),
        };
        let volume = flows.entry(flow).or_default();
        match name {
            "istio_tcp_connections_opened_total" => volume.connections += value,
            "istio_tcp_sent_bytes_total" | "istio_tcp_received_bytes_total" => {
                volume.bytes += value
            }
            _ => {}
        }
    }
    flows.retain(|_flow, volume| volume.connections > 0);
    flows
}

/// Name, labels and value of a line; `None` for comments and what is no whole number.
fn sample(line: &str) -> Option<(&str, BTreeMap<String, String>, u64)> {
    let (name, rest) = line.split_once('{')?;
    let (labels, value) = rest.rsplit_once('}')?;
    let value = value.split_whitespace().next()?.parse().ok()?;
    let mut map = BTreeMap::new();
    for pair in labels.split("\",") {
        let (key, value) = pair.split_once("=\"")?;
        map.insert(key.to_owned(), value.trim_end_matches('"').to_owned());
    }
    Some((name, map, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_added_up_from_the_source_side() {
        let labels = |reporter: &str, extra: &str| {
            format!(
                "{{reporter=\"{reporter}\",source_workload=\"web\",destination_workload=\"cart-1\",connection_security_policy=\"mutual_tls\"{extra}}}"
            )
        };
        let text = format!(
            "# HELP x y\nistio_tcp_connections_opened_total{} 3\nistio_tcp_sent_bytes_total{} 10\n\
             istio_tcp_received_bytes_total{} 5\nistio_tcp_connections_opened_total{} 9\nistio_build{{a=\"b\"}} 1\n",
            labels("source", ""),
            labels("source", ""),
            labels("source", ""),
            labels("destination", ""),
        );
        let flows = flows(&text);
        assert_eq!(flows.len(), 1);
        let (flow, volume) = flows.into_iter().next().unwrap();
        assert_eq!(
            (flow.source.as_str(), flow.destination.as_str()),
            ("web", "cart-1")
        );
        assert_eq!(
            volume,
            Volume {
                connections: 3,
                bytes: 15
            }
        );
    }
}
