//! Annotations: those of Istio's with a meaning here. Others are the operator's own, and say nothing
//! to the mesh.

use crate::config::diagnose::{Code, Diagnostic};
use crate::config::read::{Table, Value};
use crate::config::suggest;

/// The annotations of a resource while it is being read.
pub(super) struct Annotations<'a> {
    table: Option<Table<'a>>,
    known: Vec<&'static str>,
}

impl<'a> Annotations<'a> {
    /// Reads the `annotations` table.
    pub(super) fn read(table: &Table<'a>) -> Self {
        Self {
            table: table.optional("annotations", Value::nested),
            known: Vec::new(),
        }
    }

    /// One that has a meaning to this kind of resource.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value<'a>> {
        self.known.push(name);
        let mut entries = self.table.as_ref()?.entries();
        entries.find_map(|(key, value)| (key.value == name).then_some(value))
    }

    /// Reports those of Istio's that nobody took, and what is no text.
    pub(super) fn finish(self) {
        for (key, value) in self.table.iter().flat_map(Table::entries) {
            let name = key.value;
            let own = self.known.contains(&name) || value.text().is_none();
            let of_istio = name.starts_with("istio.io/") || name.starts_with("ambient.istio.io/");
            if own || !of_istio {
                continue;
            }
            let finding = Diagnostic::new(
                Code::UnknownKey,
                key.place,
                format!("annotation `{name}` means nothing here"),
            );
            let meant = suggest::closest(name, self.known.iter().copied());
            value.report(match meant {
                Some(meant) => finding
                    .label(format!("did you mean `{meant}`?"))
                    .help(format!("write `{meant}` instead")),
                None => finding.label("no such annotation").help("take it out"),
            });
        }
    }
}
