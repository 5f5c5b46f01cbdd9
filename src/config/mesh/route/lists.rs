//! Lists with a limit, and lists in which a name counts once.

use std::sync::Arc;

use crate::config::diagnose::Code;
use crate::config::read::Value;
use crate::config::source::At;

/// Gateway API's limit on most lists.
pub(super) const MOST: usize = 16;

/// A list, as far as its items can be read; more of `what` than `most` are reported.
pub(in crate::config::mesh) fn at_most<'a, T>(
    value: &Value<'a>,
    most: usize,
    what: &str,
    help: &str,
    mut read: impl FnMut(&Value<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut count = 0;
    let list = value.list(|item| {
        count += 1;
        read(item)
    })?;
    if count > most {
        let message = format!("has {count} {what}, at most {most}");
        value.reject(Code::TooLarge, &message, "too many", help);
    }
    Some(list)
}

/// Names that a list has had so far.
#[derive(Default)]
pub(super) struct Seen(Vec<Arc<str>>);

impl Seen {
    /// Whether a name is new; one that is not is reported at the item that has it.
    pub(super) fn is_new(&mut self, item: &Value<'_>, name: &At<Arc<str>>) -> bool {
        if !self.0.contains(&name.value) {
            self.0.push(Arc::clone(&name.value));
            return true;
        }
        item.reject(
            Code::NoEffect,
            &format!("has `{}` twice, and the first counts", name.value),
            "has no effect",
            "take out one of the two",
        );
        false
    }
}
