//! Our tables as `nft` lists them.

use serde_json::Value;

use super::error::CaptureError;
use super::netns::Netns;
use super::ruleset::{Family, TABLE};
use super::tool::{Tool, run};

/// Our table of a family as the kernel holds it, without what changes by itself and the elements of its
/// sets; `None` when it is gone.
pub(super) async fn listed_of(ns: &Netns, family: Family) -> Result<Option<Value>, CaptureError> {
    let words = ["-j", "-t", "list", "table", family.name(), TABLE];
    let listing = run(ns, Tool::Nft, &words, "").await;
    let text = match listing {
        Ok(text) => text,
        Err(CaptureError::Refused { said, .. }) if said.contains("No such file") => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let mut value: Value = serde_json::from_str(&text).map_err(|source| CaptureError::Listing {
        program: Tool::Nft.name(),
        source,
    })?;
    settle(&mut value);
    Ok(Some(value))
}

/// Drops handles, which are new each time a rule is made, and what counters have counted.
fn settle(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !matches!(key.as_str(), "handle" | "metainfo" | "counter"));
            map.values_mut().for_each(settle);
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_by_itself_is_no_drift() {
        let listing = |handle: u32, packets: u32, port: u16| {
            let mut value = json!({ "nftables": [
                { "metainfo": { "version": "1.0.6" } },
                { "table": { "family": "inet", "name": "lateen", "handle": handle } },
                { "rule": { "handle": handle + 1, "expr": [
                    { "counter": { "packets": packets, "bytes": packets * 60 } },
                    { "redirect": { "port": port } },
                ] } },
            ] });
            settle(&mut value);
            value
        };
        let first = listing(7, 0, 15001);
        for (name, other, same) in [
            ("applied again", listing(9, 0, 15001), true),
            ("traffic", listing(7, 12, 15001), true),
            ("a rule changed", listing(7, 0, 15002), false),
        ] {
            assert_eq!(first == other, same, "{name}");
        }
    }
}
