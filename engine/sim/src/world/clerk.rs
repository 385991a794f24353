//! The clerk: does what actions ask, once per key. Some answers are lost, some requests fail, some
//! are the last thing a machine asked for. The striker is a clerk whom nobody may ask twice.
//!
//! Promise  a key always asks for the same, and what is held is not done again under another; one
//!          finding holds an entity at a time; the striker is asked once, and never again for a
//!          finding of which it is unclear whether it acted

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::Value;
use tidegate_types::connector::{ActionFailure, ActionKind, ActionRequest, Responder};

use super::{Line, State, failure};

#[derive(Debug, Clone, Default)]
pub struct Clerk {
    /// What was done under each key.
    done: BTreeMap<String, ActionRequest>,
    /// Per finding, the row that holds: id, key, amount, most.
    pub held: BTreeMap<String, String>,
    /// Findings of which the engine cannot know what became of a request.
    pub unclear: BTreeSet<String>,
}

pub fn responder(line: Line, is_once: bool) -> Box<dyn Responder> {
    Box::new(Desk { line, is_once })
}

struct Desk {
    line: Line,
    is_once: bool,
}

#[async_trait]
impl Responder for Desk {
    async fn send(&self, request: &ActionRequest) -> Result<(), ActionFailure> {
        let Self { line, is_once } = self;
        line.act(|state| answer(state, line, *is_once, request)).await
    }

    fn supports(&self, _: ActionKind) -> bool {
        true
    }
}

fn answer(state: &mut State, line: &Line, is_once: bool, request: &ActionRequest) -> Result<(), ActionFailure> {
    let name = request.action.clone();
    let clerk = state.clerks.entry(name.clone()).or_default();
    if is_once && (clerk.unclear.contains(&request.id) || clerk.done.contains_key(&request.key)) {
        state.breaks(format!("{name} is asked again for what may be done: {request:?}"));
    }
    if state.chance(12) {
        return Err(failure("it cannot be reached", false));
    }
    let (is_lost, is_last) = (state.chance(10), state.chance(20));
    if is_lost || is_last {
        state.clerks.get_mut(&name).expect("entered above").unclear.insert(request.id.clone());
    }
    let is_done = !(is_lost || is_last) || state.chance(2);
    if is_done {
        act(state, is_once, request);
    }
    if is_last {
        let crash = state.crash();
        line.disk.crash(crash);
    }
    if is_lost { Err(failure("no answer", true)) } else { Ok(()) }
}

fn act(state: &mut State, is_once: bool, request: &ActionRequest) {
    let clerk = state.clerks.get_mut(&request.action).expect("entered before");
    if let Some(before) = clerk.done.insert(request.key.clone(), request.clone()) {
        if before != *request {
            state.breaks(format!("I7: one key, two requests: {before:?} and {request:?}"));
        }
        return;
    }
    let row = finding_as_text(&request.finding);
    let entity = row.split('|').next().unwrap_or_default().to_string();
    let is_again = request.kind == ActionKind::Do && clerk.held.contains_key(&request.id);
    match request.kind {
        ActionKind::Undo => drop(clerk.held.remove(&request.id)),
        ActionKind::Do | ActionKind::Update => drop(clerk.held.insert(request.id.clone(), row)),
    }
    let holders = clerk.held.iter().filter(|(_, row)| row.split('|').next() == Some(&entity)).count();
    if 1 < holders && !is_once {
        state.breaks(format!("{} does {entity} twice: {request:?}", request.action));
    }
    if is_again && !is_once {
        state.breaks(format!("I7: {} does again what it holds, under another key: {request:?}", request.action));
    }
}

/// A finding's id, key, amount and bound.
pub fn finding_as_text(finding: &Value) -> String {
    let cell = |name: &str| match &finding[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    ["id", "key", "amount", "most"].map(cell).join("|")
}
