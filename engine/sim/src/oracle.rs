//! What must be true, computed by code of its own from what the world knows.
//!
//! I1, I3  what was acknowledged, or seen at a closed tick, is there ever after; rows come in order, once
//! I4      all relations read at one tick equal their queries over the inputs read at that tick
//! I10     received = committed + late + dead-lettered + repeated + rejected, per source
//! I12     ticks increase, whatever the clock does

use std::collections::{BTreeMap, BTreeSet};

use tidegate_runtime::Snapshot;
use tidegate_types::Tick;

use crate::world::{Acknowledged, Event, World, rows_as_text};

/// The relations that are read together.
pub const RELATIONS: [&str; 7] = ["mirror", "events_late", "posted", "limits", "per_key", "joined", "excess"];
pub const LATE_VIEW: &str = "tops";

/// What is known of the engine's state, from what it answered.
#[derive(Default)]
pub struct Oracle {
    pub limits: BTreeMap<String, i64>,
    pub bias: i64,
    /// Whether the view that is born late is there.
    pub has_late_view: bool,
    /// Open findings that are not the actions': a new definition found them in the past.
    before: BTreeSet<i64>,
    seen: Seen,
    tick: Tick,
}

/// What was seen at some closed tick.
#[derive(Default)]
struct Seen {
    tick: Tick,
    fed: usize,
    late: BTreeSet<String>,
    posted: BTreeSet<i64>,
}

/// What one read showed.
pub struct Look {
    /// So many of the feed's rows, garbage included.
    pub fed: usize,
    pub dead: usize,
    pub late: usize,
    pub on_time: usize,
    pub posted: usize,
}

impl Oracle {
    pub fn relations(&self) -> Vec<String> {
        let late = self.has_late_view.then_some(LATE_VIEW);
        RELATIONS.into_iter().chain(late).map(str::to_string).collect()
    }

    /// A commit was answered.
    pub fn committed(&mut self, tick: Tick) -> Result<(), String> {
        let last = std::mem::replace(&mut self.tick, tick);
        hold(last < tick, || format!("I12: tick {tick} is committed after tick {last}"))
    }

    /// A bound was set, or lifted.
    pub fn limited(&mut self, on_time: &[Event]) {
        let open = self.open(on_time);
        self.before.retain(|id| open.contains(id));
    }

    /// The detection's definition was replaced: what the new one finds in the past is not the actions'.
    pub fn rearmed(&mut self, bias: i64, fed: &[Event]) {
        let old = self.open(fed);
        self.bias = bias;
        let open = self.open(fed);
        self.before.retain(|id| open.contains(id));
        self.before.extend(open.difference(&old));
    }

    fn open(&self, fed: &[Event]) -> BTreeSet<i64> {
        self.findings(fed).iter().map(|row| entity(row)).collect()
    }

    /// What actions hold of the detection's rows, by entity.
    pub fn wanted(&self, snapshot: &Snapshot) -> BTreeMap<i64, String> {
        let rows = snapshot.relations.get("excess").map(sorted).unwrap_or_default();
        rows.into_iter().map(|row| (entity(&row), row)).filter(|(id, _)| !self.before.contains(id)).collect()
    }

    /// Holds a read against the world, and against its own inputs. `acknowledged`: before the read.
    pub fn look(&mut self, world: &World, acknowledged: &Acknowledged, snapshot: &Snapshot) -> Result<Look, String> {
        let rows = |name: &str| snapshot.relations.get(name).map(sorted).unwrap_or_default();
        hold(self.seen.tick <= snapshot.tick, || format!("I12: a read at tick {} after one at {}", snapshot.tick, self.seen.tick))?;
        self.seen.tick = snapshot.tick;
        let (on_time, look) = self.look_at_feed(world, acknowledged, &rows("mirror"), &rows("events_late"))?;
        let posted = self.look_at_door(world, acknowledged, &rows("posted"))?;
        let limits: Vec<String> = self.limits.iter().map(|(key, most)| format!("{key}|{most}")).collect();
        equal("limits", &rows("limits"), limits)?;
        equal("per_key", &rows("per_key"), per_key(&on_time))?;
        equal("joined", &rows("joined"), self.joined(&posted))?;
        equal("excess", &rows("excess"), self.findings(&on_time))?;
        if self.has_late_view {
            equal(LATE_VIEW, &rows(LATE_VIEW), tops(&on_time))?;
        }
        Ok(Look { posted: posted.len(), ..look })
    }

    /// The rows of the feed that were in time, and how far it was read.
    fn look_at_feed(
        &mut self,
        world: &World,
        acknowledged: &Acknowledged,
        mirror: &[String],
        late: &[String],
    ) -> Result<(Vec<Event>, Look), String> {
        let fed = world.fed();
        let late: BTreeSet<String> = late.iter().map(|row| without_time(row)).collect();
        let count = mirror.len() + late.len();
        // Rows come in order, so the first ones are there, whatever garbage is between them.
        let good: Vec<(usize, &Event)> = fed.iter().enumerate().filter_map(|(i, row)| Some((i, row.as_ref()?))).take(count).collect();
        let is_late = |event: &Event| late.contains(&event.text());
        let on_time: Vec<Event> = good.iter().filter(|(_, event)| !is_late(event)).map(|(_, event)| (*event).clone()).collect();
        equal("mirror", mirror, on_time.iter().map(Event::text).collect())?;
        hold(good.len() == count, || format!("I3: {count} rows of the feed are there, and it had {}", good.len()))?;
        let upto = good.last().map_or(0, |(i, _)| i + 1);
        let least = fed[..acknowledged.fed.max(self.seen.fed)].iter().flatten().count();
        hold(least <= count, || format!("I1: {count} rows of the feed are there, and {least} were acknowledged or seen"))?;
        let gone: Vec<&String> = self.seen.late.difference(&late).collect();
        hold(gone.is_empty(), || format!("I2: {gone:?} were late, and no longer are"))?;
        self.seen.fed = upto.max(self.seen.fed);
        let look = Look { fed: upto, dead: upto - count, late: late.len(), on_time: on_time.len(), posted: 0 };
        self.seen.late = late;
        Ok((on_time, look))
    }

    /// The rows of the door's requests, each of which is there whole or not at all.
    fn look_at_door(&mut self, world: &World, acknowledged: &Acknowledged, rows: &[String]) -> Result<Vec<Event>, String> {
        let ids: BTreeSet<i64> = rows.iter().map(|row| entity(row)).collect();
        let requests = world.requests();
        let there: Vec<&Vec<Event>> = requests.iter().filter(|request| request.iter().any(|row| ids.contains(&row.id))).collect();
        let expected: Vec<Event> = there.into_iter().flatten().cloned().collect();
        equal("posted", rows, expected.iter().map(Event::text).collect())?;
        let owed: BTreeSet<i64> = acknowledged.posted.iter().copied().chain(self.seen.posted.iter().copied()).collect();
        let gone: Vec<&i64> = owed.difference(&ids).collect();
        hold(gone.is_empty(), || format!("I1: {gone:?} were acknowledged or seen, and are gone"))?;
        self.seen.posted = ids;
        Ok(expected)
    }

    /// posts JOIN limits.
    fn joined(&self, posted: &[Event]) -> Vec<String> {
        posted.iter().filter_map(|row| Some(format!("{}|{}", row.text(), self.limits.get(&row.key)?))).collect()
    }

    /// The detection's rows: events above their key's bound.
    pub fn findings(&self, on_time: &[Event]) -> Vec<String> {
        let finding = |event: &Event| {
            let most = self.limits.get(&event.key)?;
            (*most < event.amount + self.bias).then(|| format!("{}|{most}", event.text()))
        };
        on_time.iter().filter_map(finding).collect()
    }
}

/// count(*), sum(amount) GROUP BY key.
fn per_key(events: &[Event]) -> Vec<String> {
    let mut groups: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for event in events {
        let group = groups.entry(&event.key).or_default();
        *group = (group.0 + 1, group.1 + event.amount);
    }
    groups.iter().map(|(key, (count, sum))| format!("{key}|{count}|{sum}")).collect()
}

/// max(amount) GROUP BY key.
fn tops(events: &[Event]) -> Vec<String> {
    let mut groups: BTreeMap<&str, i64> = BTreeMap::new();
    for event in events {
        let top = groups.entry(&event.key).or_insert(event.amount);
        *top = event.amount.max(*top);
    }
    groups.iter().map(|(key, top)| format!("{key}|{top}")).collect()
}

/// Rows received and what became of them, as the metrics count them: I10.
pub fn conservation(registry: &prometheus::Registry, source: &str, expected: [(&str, u64); 3]) -> Result<(), String> {
    let counts = counts(registry, source);
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let parts = ["committed_rows", "late_rows", "dead_letters", "repeated_rows", "rejected_rows"].map(count);
    let received = count("received_rows");
    hold(received == parts.iter().sum::<u64>(), || format!("I10: {source} received {received} rows, and they became {parts:?}"))?;
    expected.iter().try_for_each(|(name, expected)| {
        hold(count(name) == *expected, || format!("I10: {source} counts {} {name}, and there are {expected}", count(name)))
    })
}

fn counts(registry: &prometheus::Registry, source: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for family in registry.gather() {
        let Some(name) = family.name().strip_prefix("tidegate_source_").and_then(|name| name.strip_suffix("_total")) else { continue };
        let of_source = family.get_metric().iter().find(|metric| metric.get_label().iter().any(|label| label.value() == source));
        counts.extend(of_source.map(|metric| (name.to_string(), metric.get_counter().get_value() as u64)));
    }
    counts
}

/// The id that a row begins with.
pub fn entity(row: &str) -> i64 {
    row.split('|').next().and_then(|id| id.parse().ok()).unwrap_or_default()
}

/// Each row as often as it is counted, sorted.
pub fn counted(rows: &BTreeMap<String, i64>) -> Vec<String> {
    rows.iter().flat_map(|(row, count)| std::iter::repeat_n(row.clone(), (*count).max(0) as usize)).collect()
}

pub fn sorted(rows: &arrow::array::RecordBatch) -> Vec<String> {
    let mut rows = rows_as_text(rows);
    rows.sort();
    rows
}

/// `actual` is sorted, `expected` need not be.
pub fn equal(what: &str, actual: &[String], mut expected: Vec<String>) -> Result<(), String> {
    expected.sort();
    hold(actual == expected, || format!("{what} is {actual:?}, and should be {expected:?}"))
}

pub fn hold(is_true: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_true { Ok(()) } else { Err(otherwise()) }
}

fn without_time(row: &str) -> String {
    row.rsplit_once('|').map_or(row, |(row, _)| row).to_string()
}
