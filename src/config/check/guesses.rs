//! What may have been meant by names that are not declared.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::mesh::did_you_mean;

/// Unknown names looked for among the known ones. A directory that has lost its nodes would
/// otherwise compare every workload's with every other name.
const MOST_GUESSES: usize = 50;

/// Guesses made so far, each made once.
#[derive(Default)]
pub(super) struct Guesses {
    made: HashMap<Arc<str>, Option<String>>,
}

impl Guesses {
    /// The known name that this one is a misspelling of, as help.
    pub(super) fn meant<'a>(
        &mut self,
        name: &Arc<str>,
        known: impl Iterator<Item = &'a str>,
    ) -> Option<String> {
        self.meant_as(name, name, known)
    }

    /// The same for a name that is looked for among others elsewhere; `key` tells the two apart.
    pub(super) fn meant_as<'a>(
        &mut self,
        key: &Arc<str>,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Option<String> {
        if let Some(made) = self.made.get(key) {
            return made.clone();
        }
        if self.made.len() >= MOST_GUESSES {
            return None;
        }
        let guess = did_you_mean(name, known);
        self.made.insert(Arc::clone(key), guess.clone());
        guess
    }
}
