//! A specification of processes, as the rows of `states` and `transitions`, to follow cases against.
//!
//! Reads     YAML, a document per process: its name, its states and its transitions, with the columns of those
//!           tables as keys. What is left out is NULL, false, or `stay`
//! Prints    CREATE TABLE for both tables, and INSERTs
//! Errors    not YAML; a key that is no column, by name and line; two processes or states of one name; a
//!           process in which no case begins; a transition from or to what is no state; a timeout out of a
//!           state that has no `max_dwell_ms`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;
use tidegate_types::error::{Error, Result, did_you_mean};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    pub process: String,
    pub states: Vec<State>,
    #[serde(default)]
    pub transitions: Vec<Transition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub state: String,
    #[serde(default)]
    pub is_initial: bool,
    #[serde(default)]
    pub is_final: bool,
    pub min_dwell_ms: Option<i64>,
    pub max_dwell_ms: Option<i64>,
    #[serde(default)]
    pub on_unexpected: OnUnexpected,
}

/// What a step does that no transition allows.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnexpected {
    #[default]
    Stay,
    Reset,
    Absorb,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transition {
    pub from_state: String,
    pub activity: String,
    pub to_state: String,
    pub role: Option<String>,
    /// It comes once the most time in the state it leaves has passed.
    #[serde(default)]
    pub is_timeout: bool,
}

/// The statements for a file of YAML, with a newline at the end.
pub fn import(path: &Path) -> Result<String> {
    Ok(statements(&processes(&read(path)?, &path.display().to_string())?))
}

/// The text of a file to import.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::user(format!("cannot read {}: {error}", path.display())).hint("is it there, and in UTF-8?"))
}

fn processes(text: &str, file: &str) -> Result<Vec<Process>> {
    let documents = serde_norway::Deserializer::from_str(text);
    let processes = documents.map(|document| Process::deserialize(document).map_err(|error| unread(&error, file)));
    let processes: Vec<Process> = processes.collect::<Result<_>>()?;
    sound(&processes).map_err(|error| error.at(file, 0, 0))?;
    Ok(processes)
}

fn unread(error: &serde_norway::Error, file: &str) -> Error {
    let said = error.to_string();
    let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
    let message = said.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&said);
    let hint = "a document has process, states and transitions, and in these the columns of their tables";
    Error::user(message).hint(hint).at(file, line as u64, column as u64)
}

fn sound(processes: &[Process]) -> Result<()> {
    if processes.is_empty() {
        return Err(Error::user("there is no process").hint("write process: NAME, and its states and transitions below"));
    }
    if let Some(twin) = repeated(processes.iter().map(|process| process.process.as_str())) {
        return Err(Error::user(format!("two processes are named \"{twin}\"")).hint("name each as the events' process does"));
    }
    processes.iter().try_for_each(follows)
}

/// Whether cases can be followed against it.
fn follows(process: &Process) -> Result<()> {
    let name = &process.process;
    if let Some(twin) = repeated(process.states.iter().map(|state| state.state.as_str())) {
        return Err(Error::user(format!("two states of \"{name}\" are named \"{twin}\"")).hint("write its bounds in one of them"));
    }
    if !process.states.iter().any(|state| state.is_initial) {
        return Err(Error::user(format!("no case of \"{name}\" begins")).hint("write is_initial: true at a state"));
    }
    let states: BTreeMap<&str, &State> = process.states.iter().map(|state| (state.state.as_str(), state)).collect();
    for Transition { from_state, activity, to_state, is_timeout, .. } in &process.transitions {
        let what = format!("transition \"{activity}\" of \"{name}\"");
        for (does, wanted) in [("comes from", from_state), ("leads to", to_state)] {
            if !states.contains_key(wanted.as_str()) {
                let error = Error::user(format!("{what} {does} \"{wanted}\", which is no state of it"));
                return Err(match did_you_mean(wanted, states.keys().copied()) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None => error.hint("write it among its states"),
                });
            }
        }
        if *is_timeout && states[from_state.as_str()].max_dwell_ms.is_none() {
            let error = Error::user(format!("{what} is a timeout, and \"{from_state}\" has no max_dwell_ms"));
            return Err(error.hint("write how long a case may be in that state"));
        }
    }
    Ok(())
}

fn repeated<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    names.find(|name| !seen.insert(*name))
}

/// The tables and all rows of them.
pub fn statements(processes: &[Process]) -> String {
    let mut sql = TABLES.to_string();
    processes.iter().for_each(|process| write_process(&mut sql, process));
    sql
}

const TABLES: &str = "\
CREATE TABLE states (
  process TEXT, state TEXT, is_initial BOOLEAN, is_final BOOLEAN,
  min_dwell_ms BIGINT, max_dwell_ms BIGINT, on_unexpected TEXT,
  PRIMARY KEY (process, state)
);
CREATE TABLE transitions (process TEXT, from_state TEXT, activity TEXT, to_state TEXT, role TEXT, is_timeout BOOLEAN);
";

fn write_process(sql: &mut String, process: &Process) {
    let name = quoted(&process.process);
    let states = process.states.iter().map(|state| {
        let bound = |bound: Option<i64>| bound.map_or("NULL".to_string(), |bound| bound.to_string());
        let (low, high) = (bound(state.min_dwell_ms), bound(state.max_dwell_ms));
        let State { is_initial, is_final, on_unexpected, .. } = state;
        format!("  ({name}, {}, {is_initial}, {is_final}, {low}, {high}, '{}')", quoted(&state.state), on_unexpected.name())
    });
    insert(sql, "states", states.collect());
    let transitions = process.transitions.iter().map(|transition| {
        let [from, activity, to] = [&transition.from_state, &transition.activity, &transition.to_state].map(|name| quoted(name));
        let role = transition.role.as_deref().map_or("NULL".to_string(), quoted);
        format!("  ({name}, {from}, {activity}, {to}, {role}, {})", transition.is_timeout)
    });
    insert(sql, "transitions", transitions.collect());
}

impl OnUnexpected {
    fn name(self) -> &'static str {
        match self {
            Self::Stay => "stay",
            Self::Reset => "reset",
            Self::Absorb => "absorb",
        }
    }
}

fn insert(sql: &mut String, table: &str, rows: Vec<String>) {
    if !rows.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(sql, "\nINSERT INTO {table} VALUES\n{};\n", rows.join(",\n"));
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use tidegate_testdata::malformed::run;

    use super::*;

    const RENTAL: &str = "\
process: rental
states:
  - { state: asked, is_initial: true }
  - state: out
    max_dwell_ms: 604800000
    on_unexpected: absorb
  - { state: back, is_final: true, min_dwell_ms: 1 }
transitions:
  - { from_state: asked, activity: hand over, to_state: out, role: clerk }
  - { from_state: out, activity: don't, to_state: back }
  - { from_state: out, activity: overdue, to_state: back, is_timeout: true }
";

    fn refused(text: &str) -> String {
        processes(text, "rental.yaml").expect_err("refused").to_string()
    }

    #[test]
    fn each_key_is_a_column() {
        let sql = statements(&processes(RENTAL, "rental.yaml").expect("a process"));
        assert_eq!(
            sql.split_once("is_timeout BOOLEAN);\n").expect("the tables").1,
            "
INSERT INTO states VALUES
  ('rental', 'asked', true, false, NULL, NULL, 'stay'),
  ('rental', 'out', false, false, NULL, 604800000, 'absorb'),
  ('rental', 'back', false, true, 1, NULL, 'stay');

INSERT INTO transitions VALUES
  ('rental', 'asked', 'hand over', 'out', 'clerk', false),
  ('rental', 'out', 'don''t', 'back', NULL, false),
  ('rental', 'out', 'overdue', 'back', NULL, true);
"
        );
    }

    #[test]
    fn a_document_is_a_process() {
        let two = format!("{RENTAL}---\nprocess: sale\nstates: [{{ state: sold, is_initial: true, is_final: true }}]\n");
        let sql = statements(&processes(&two, "rental.yaml").expect("two processes"));
        assert!(sql.ends_with("\nINSERT INTO states VALUES\n  ('sale', 'sold', true, true, NULL, NULL, 'stay');\n"), "{sql}");
        let twins = format!("{RENTAL}---\n{RENTAL}");
        assert_eq!(refused(&twins), "rental.yaml: two processes are named \"rental\"\nhint: name each as the events' process does");
    }

    #[test]
    fn unknown_keys_are_refused_by_name_and_line() {
        let unknown = |known: &str, other: &str| refused(&RENTAL.replacen(known, other, 1));
        let state = unknown("max_dwell_ms", "max_dwell");
        assert!(state.starts_with("rental.yaml:5:5: ") && state.contains("unknown field `max_dwell`"), "{state}");
        let transition = unknown("role", "rolle");
        assert!(transition.starts_with("rental.yaml:9:") && transition.contains("unknown field `rolle`"), "{transition}");
        let top = unknown("transitions", "steps");
        assert!(top.starts_with("rental.yaml:8:1: ") && top.contains("unknown field `steps`"), "{top}");
        let policy = unknown("absorb", "ignore");
        assert!(policy.starts_with("rental.yaml:6:") && policy.contains("unknown variant `ignore`"), "{policy}");
        let bound = unknown("604800000", "a week");
        assert!(bound.starts_with("rental.yaml:5:") && bound.contains("expected i64"), "{bound}");
        assert!(unknown("process: rental\n", "").contains("missing field `process`"));
        let torn = refused("process: [");
        assert!(torn.starts_with("rental.yaml:"), "{torn}");
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let with = |known: &str, other: &str| refused(&RENTAL.replacen(known, other, 1));
        assert_eq!(
            with("to_state: back }", "to_state: bakc }"),
            "rental.yaml: transition \"don't\" of \"rental\" leads to \"bakc\", which is no state of it\nhint: did you mean \"back\"?"
        );
        assert_eq!(
            with("    max_dwell_ms: 604800000\n", ""),
            "rental.yaml: transition \"overdue\" of \"rental\" is a timeout, and \"out\" has no max_dwell_ms\n\
            hint: write how long a case may be in that state"
        );
        assert_eq!(
            with("is_initial: true", "is_initial: false"),
            "rental.yaml: no case of \"rental\" begins\nhint: write is_initial: true at a state"
        );
        assert_eq!(
            with("state: back, is_final", "state: out, is_final"),
            "rental.yaml: two states of \"rental\" are named \"out\"\nhint: write its bounds in one of them"
        );
    }

    #[test]
    fn of_any_text_there_are_statements_or_a_reason() {
        run("specification", 4, &[RENTAL, "---\n", "- &a [*a]\n", "process: rental\n"], |input, _| {
            if let Err(error) = processes(&String::from_utf8_lossy(input), "rental.yaml") {
                assert!(!error.message.is_empty());
            }
        });
    }
}
