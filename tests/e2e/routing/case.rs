//! Rows of the table: a configuration, what is asked under it, and what is expected.

use super::Bench;

/// Requests, and facts about their answers.
type Asks = Vec<(&'static str, &'static [&'static str])>;
/// What cannot be said by single requests; the complaints.
type Further = Box<dyn Fn(&Bench) -> Vec<String>>;

/// A row.
pub(super) struct Case {
    /// Its number in the specification, and the configuration in its words.
    name: &'static str,
    rules: String,
    gateway: &'static str,
    settings: &'static str,
    asks: Asks,
    further: Vec<Further>,
}

impl Case {
    pub(super) fn new(name: &'static str, rules: impl Into<String>) -> Self {
        Self {
            name,
            rules: rules.into(),
            gateway: "nodes = [\"gate-1\"]",
            settings: "",
            asks: Vec::new(),
            further: Vec::new(),
        }
    }

    /// With another gateway.
    pub(super) fn gateway(mut self, gateway: &'static str) -> Self {
        self.gateway = gateway;
        self
    }

    /// With another line of `[mesh]`.
    pub(super) fn mesh(mut self, settings: &'static str) -> Self {
        self.settings = settings;
        self
    }

    /// Asks once.
    pub(super) fn ask(mut self, asked: &'static str, facts: &'static [&'static str]) -> Self {
        self.asks.push((asked, facts));
        self
    }

    /// Does more than asking once.
    pub(super) fn also(mut self, further: impl Fn(&Bench) -> Vec<String> + 'static) -> Self {
        self.further.push(Box::new(further));
        self
    }

    /// All that is not as expected.
    fn complaints(&self, bench: &Bench) -> Vec<String> {
        if let Err(reason) = bench.enforce(&self.rules, self.gateway, self.settings) {
            return vec![format!("{}: {reason}", self.name)];
        }
        let mut complaints = Vec::new();
        for (asked, facts) in &self.asks {
            let answer = bench.ask(asked);
            let wrong: Vec<&&str> = facts.iter().filter(|fact| !answer.is(fact)).collect();
            if !wrong.is_empty() {
                complaints.push(format!("{asked:?}: not {wrong:?} but {answer:?}"));
            }
        }
        for further in &self.further {
            complaints.extend(further(bench));
        }
        let name = self.name;
        complaints.iter().map(|c| format!("{name}: {c}")).collect()
    }
}

/// Tries every row.
pub(super) fn try_all(cases: &[Case]) {
    let bench = Bench::new();
    let begun = std::time::Instant::now();
    let complaints = cases.iter().flat_map(|case| case.complaints(&bench));
    let complaints: Vec<String> = complaints.collect();
    assert!(
        complaints.is_empty(),
        "{} complaints about {} rows, after {:?}:\n{}",
        complaints.len(),
        cases.len(),
        begun.elapsed(),
        complaints.join("\n")
    );
}

/// A complaint unless it holds.
pub(super) fn unless(holds: bool, complaint: impl FnOnce() -> String) -> Vec<String> {
    match holds {
        true => Vec::new(),
        false => vec![complaint()],
    }
}
