//! Our own messages beside what Istio's say (`spec/control-plane.md` §2): stock proxies pass them over.

use prost::{DecodeError, Message};

use crate::wire::proto::workload::Extension;

/// A message of `lateen.v1` that is sent as an extension.
pub(super) trait Extends: Message + Default {
    /// The extension's name.
    const NAME: &'static str;
    /// The message's, in its package.
    const MESSAGE: &'static str;
}

pub(super) fn encode<M: Extends>(message: &M) -> Extension {
    Extension {
        name: M::NAME.to_owned(),
        config: Some(prost_types::Any {
            type_url: format!("type.googleapis.com/lateen.v1.{}", M::MESSAGE),
            value: message.encode_to_vec(),
        }),
    }
}

/// The message of its kind among `extensions`, if it is there.
pub(super) fn decode<M: Extends>(extensions: &[Extension]) -> Option<Result<M, DecodeError>> {
    let ours = extensions.iter().find(|e| e.name == M::NAME)?;
    Some(M::decode(&*ours.config.as_ref()?.value))
}
