//! Sets and maps of our table: what changes in the rules while the chains stay as they are.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{Family, TABLE};

/// A set, or a map, of our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Collection {
    pub(super) name: String,
    /// Its type, as it is declared.
    pub(super) of: &'static str,
    pub(super) elements: BTreeMap<String, Element>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// What a map gives for it.
    pub(super) value: Option<u32>,
    /// What the key stands for now: of a cgroup its number.
    pub(super) id: u64,
}

impl Collection {
    pub(super) fn new(name: impl Into<String>, of: &'static str) -> Self {
        Self {
            name: name.into(),
            of,
            elements: BTreeMap::new(),
        }
    }

    fn kind(&self) -> &'static str {
        match self.of.contains(" : ") {
            true => "map",
            false => "set",
        }
    }

    /// Adds an element; of two with the same key the first stays.
    pub(super) fn add(&mut self, key: String, value: Option<u32>, id: u64) {
        self.elements.entry(key).or_insert(Element { value, id });
    }

    fn listed(&self) -> Option<String> {
        list(&self.elements)
    }

    /// Makes it what it is from whatever it held. Not element by element: a cgroup that is gone has no
    /// name any more.
    pub(super) fn refilling(&self, family: Family) -> String {
        let (kind, name) = (self.kind(), &self.name);
        let mut text = format!("flush {kind} {family} {TABLE} {name}\n");
        if let Some(elements) = self.listed() {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "add element {family} {TABLE} {name} {elements}");
        }
        text
    }

    /// Makes it what it is from what it was, by what has gone and what has come.
    pub(super) fn turning(&self, family: Family, then: &Self) -> String {
        let beside = |these: &Self, others: &Self| -> BTreeMap<String, Element> {
            let pairs = these.elements.iter();
            let differ = pairs.filter(|(key, element)| others.elements.get(*key) != Some(element));
            differ.map(|(k, e)| (k.clone(), e.clone())).collect()
        };
        let name = &self.name;
        let mut text = String::new();
        for (word, elements) in [("delete", beside(then, self)), ("add", beside(self, then))] {
            if let Some(elements) = list(&elements) {
                let _infallible =
                    writeln!(text, "{word} element {family} {TABLE} {name} {elements}");
            }
        }
        text
    }
}

fn list(elements: &BTreeMap<String, Element>) -> Option<String> {
    let element = |(key, element): (&String, &Element)| match element.value {
        Some(value) => format!("{key} : {value:#x}"),
        None => key.clone(),
    };
    let elements: Vec<_> = elements.iter().map(element).collect();
    (!elements.is_empty()).then(|| format!("{{ {} }}", elements.join(", ")))
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\t{} {} {{", self.kind(), self.name)?;
        writeln!(f, "\t\ttype {};", self.of)?;
        if let Some(elements) = self.listed() {
            writeln!(f, "\t\telements = {elements}")?;
        }
        writeln!(f, "\t}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &[(&str, Option<u32>)]) -> Collection {
        let mut set = Collection::new("some", "inet_service : inet_service");
        for (key, value) in keys {
            set.add((*key).to_owned(), *value, 0);
        }
        set
    }

    #[test]
    fn what_has_gone_goes_before_what_has_come() {
        for (name, then, now, want) in [
            ("nothing", &[("1", None)][..], &[("1", None)][..], ""),
            (
                "come and gone",
                &[("1", None), ("2", None)],
                &[("2", None), ("3", None), ("4", None)],
                "delete element inet lateen some { 1 }\nadd element inet lateen some { 3, 4 }\n",
            ),
            (
                "another value",
                &[("1", Some(1))],
                &[("1", Some(31))],
                "delete element inet lateen some { 1 : 0x1 }\n\
                 add element inet lateen some { 1 : 0x1f }\n",
            ),
            (
                "emptied",
                &[("1", None)],
                &[],
                "delete element inet lateen some { 1 }\n",
            ),
        ] {
            assert_eq!(set(now).turning(Family::Inet, &set(then)), want, "{name}");
        }
    }
}
