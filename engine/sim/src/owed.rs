//! What is owed to the world in the end: all is read, all is written, all is acted on, each once.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_runtime::Snapshot;

use crate::oracle::{Look, conservation, counted, entity, equal, hold, sorted};
use crate::world::{World, finding_as_text};

const LEDGERS: [(&str, &str); 2] = [("totals", "per_key"), ("findings", "excess")];
const SCROLL: (&str, &str) = ("matches", "joined");

/// All that waits in the world was read, and whoever waits for an answer has it.
pub fn is_read(world: &World, look: &Look) -> Result<(), String> {
    let (fed, posted) = (world.fed(), world.requests());
    let all = fed.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    hold(look.fed == all, || format!("{} of {all} rows of the feed are there", look.fed))?;
    let all = posted.iter().flatten().count();
    hold(look.posted == all, || format!("{} of {all} posted rows are there", look.posted))?;
    let acknowledged = world.acknowledged().fed;
    hold(acknowledged == fed.len(), || format!("{acknowledged} of {} rows of the feed are acknowledged", fed.len()))?;
    let unanswered = world.unanswered();
    hold(unanswered == 0, || format!("{unanswered} clients still wait"))
}

/// The sinks hold what their views hold.
pub fn is_written(world: &World, snapshot: &Snapshot) -> Result<(), String> {
    for (sink, view) in LEDGERS {
        equal(sink, &counted(&world.ledger(sink).rows), sorted(&snapshot.relations[view]))?;
    }
    let (sink, view) = SCROLL;
    equal(sink, &counted(&world.scroll(sink).rows()), sorted(&snapshot.relations[view]))
}

/// The clerk and the striker hold what is found and theirs (`wanted`, by entity); who warns has a limit,
/// and holds no more than that.
pub fn is_acted(world: &World, wanted: &BTreeMap<i64, String>, requests: &[Request]) -> Result<(), String> {
    let held = world.clerk("hold").held.into_values().map(|row| (entity(&row), row)).collect();
    hold(*wanted == held, || format!("hold holds {held:?}, and should hold {wanted:?}: {requests:?}"))?;
    let warned = world.clerk("warn").held;
    let surplus: Vec<&String> = warned.values().filter(|row| !wanted.contains_key(&entity(row))).collect();
    hold(surplus.is_empty(), || format!("warn holds {surplus:?}, which nobody finds: {requests:?}"))?;
    let strike = world.clerk("strike");
    let is_doubt = |id: &str| requests.iter().any(|request| request.id == id && request.is_doubt());
    let unknown: Vec<&String> = strike.unclear.iter().filter(|id| !is_doubt(id)).collect();
    hold(unknown.is_empty(), || format!("{unknown:?} of strike are unclear, and not in doubt: {requests:?}"))?;
    let held = strike.held.into_values().map(|row| (entity(&row), row)).collect();
    is_struck(wanted, &held, requests)
}

/// What the striker holds, as far as nothing is in doubt, and nobody said that it was not done.
fn is_struck(wanted: &BTreeMap<i64, String>, held: &BTreeMap<i64, String>, requests: &[Request]) -> Result<(), String> {
    let entities = |is: fn(&Request) -> bool| requests.iter().filter(|request| is(request)).map(|request| entity(&request.row)).collect();
    let doubted: BTreeSet<i64> = entities(Request::is_doubt);
    let not_done: BTreeSet<i64> = entities(|request| request.has_failed("do"));
    let not_updated: BTreeSet<i64> = entities(|request| request.has_failed("update"));
    let is_held = |id: &i64, row: &String| held.get(id).is_some_and(|held| held == row || not_updated.contains(id));
    let missing = wanted.iter().filter(|(id, row)| !doubted.contains(id) && !not_done.contains(id) && !is_held(id, row));
    let missing: Vec<&String> = missing.map(|(_, row)| row).collect();
    let surplus = held.iter().filter(|(id, _)| !doubted.contains(id) && !wanted.contains_key(id));
    let surplus: Vec<&String> = surplus.map(|(_, row)| row).collect();
    hold(missing.is_empty() && surplus.is_empty(), || format!("strike lacks {missing:?} and holds {surplus:?}: {requests:?}"))
}

/// The metrics count what is there.
pub fn is_conserved(world: &World, registry: &prometheus::Registry, look: &Look) -> Result<(), String> {
    let dead = world.fed().iter().filter(|row| row.is_none()).count() as u64;
    let events = [("committed_rows", look.on_time as u64), ("late_rows", look.late as u64), ("dead_letters", dead)];
    conservation(registry, "events", events)?;
    conservation(registry, "posts", [("committed_rows", look.posted as u64), ("late_rows", 0), ("dead_letters", 0)])
}

/// A finding's request as the engine sees it.
#[derive(Debug)]
pub struct Request {
    action: String,
    state: String,
    pub kind: String,
    error: String,
    pub id: String,
    /// Of the finding: id, key, amount, most.
    pub row: String,
}

impl Request {
    pub const QUERY: &str = "SELECT action, state, kind, error, id, finding FROM sys.actions";

    pub fn parse(row: &str) -> Self {
        let mut cells = row.splitn(6, '|').map(str::to_string);
        let mut cell = || cells.next().unwrap_or_default();
        let (action, state, kind, error, id) = (cell(), cell(), cell(), cell(), cell());
        Self { action, state, kind, error, id, row: finding_as_text(&serde_json::from_str(&cell()).unwrap_or_default()) }
    }

    pub fn is_doubt(&self) -> bool {
        self.action == "strike" && self.state == "in_doubt"
    }

    fn has_failed(&self, kind: &str) -> bool {
        self.action == "strike" && self.state == "failed" && self.kind == kind
    }

    /// What is shown is the request in doubt, not one that came after it.
    pub fn is_plain(&self) -> bool {
        !self.error.starts_with("an earlier request")
    }
}
