//! `watch` sink, which only the demo has: follows a detection as it settles,
//! and keeps score against what the story knows to be true.
//!
//! Options   detection (its name), entity (its entity column)
//! Sees      every closed tick, so also a finding that lasts one tick
//! Judges    found: an attack's entity was seen. Missed: an attack complete by
//!           then was not. False: anything else was seen, but for a look-alike
//!           that the story itself withdraws, once it is withdrawn

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use tidegate_testdata::{Role, Truth};
use tidegate_types::connector::{Changes, Progress, Sink, SinkSpec, Writer};
use tidegate_types::error::{Error, Result};

/// Comings and goings kept for the screen.
const RECENT_MAX: usize = 20;

/// A tick, and when it was seen.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub tick: u64,
    pub wall: Instant,
}

/// One entity's finding.
#[derive(Debug)]
struct Sighting {
    /// Rows of the detection that name it; open while above 0.
    rows: i64,
    first: Moment,
    was_withdrawn: bool,
}

/// A finding that appeared or was withdrawn.
#[derive(Debug, Clone)]
pub struct News {
    pub tick: u64,
    pub detection: String,
    pub entity: String,
    pub is_open: bool,
}

/// What was seen, over all detections.
#[derive(Default)]
pub struct Score {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    detections: BTreeMap<String, BTreeMap<String, Sighting>>,
    recent: VecDeque<News>,
    /// Comings and goings so far.
    count: u64,
}

impl Score {
    fn open(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Findings that came or went so far.
    pub fn count(&self) -> u64 {
        self.open().count
    }

    /// Entities with an open finding.
    pub fn open_findings(&self, detection: &str) -> usize {
        self.open().detections.get(detection).map_or(0, |seen| seen.values().filter(|sighting| sighting.rows > 0).count())
    }

    /// The last comings and goings, the newest first.
    pub fn recent(&self) -> Vec<News> {
        self.open().recent.iter().cloned().collect()
    }

    /// One line per scenario, by the time `until_ms` of the story.
    ///
    /// `arrived`: when a moment of the story came, in the machine's time.
    pub fn judge(&self, truths: &[Truth], until_ms: i64, arrived: impl Fn(i64) -> Instant) -> Vec<Line> {
        let scenarios: BTreeSet<_> = truths.iter().map(|truth| (truth.scenario, truth.pilot, truth.detection)).collect();
        let seen = self.open();
        let nothing = BTreeMap::new();
        let lines = scenarios.into_iter().map(|(scenario, pilot, detection)| {
            let told: Vec<&Truth> = truths.iter().filter(|truth| truth.scenario == scenario).collect();
            let sightings = seen.detections.get(detection).unwrap_or(&nothing);
            Line { scenario, pilot, detection, ..judge(sightings, &told, until_ms, &arrived) }
        });
        lines.collect()
    }
}

impl Seen {
    fn note(&mut self, detection: &str, entity: String, moment: Moment, diff: i64) {
        let sightings = self.detections.entry(detection.into()).or_default();
        let sighting = sightings.entry(entity.clone()).or_insert(Sighting { rows: 0, first: moment, was_withdrawn: false });
        let was_open = sighting.rows > 0;
        sighting.rows += diff;
        let is_open = sighting.rows > 0;
        if was_open == is_open {
            return;
        }
        sighting.was_withdrawn |= was_open;
        self.count += 1;
        self.recent.truncate(RECENT_MAX - 1);
        self.recent.push_front(News { tick: moment.tick, detection: detection.into(), entity, is_open });
    }
}

/// A scenario's line of the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub scenario: &'static str,
    pub pilot: &'static str,
    pub detection: &'static str,
    pub injected: usize,
    pub found: usize,
    pub missed: usize,
    pub wrong: usize,
    pub withdrawn: usize,
    /// Medians, from the last event needed to the finding.
    pub wall_ms: Option<u64>,
    pub story_ms: Option<u64>,
}

fn judge(sightings: &BTreeMap<String, Sighting>, truths: &[&Truth], until_ms: i64, arrived: &impl Fn(i64) -> Instant) -> Line {
    let mut line = Line::default();
    let (mut wall_ms, mut story_ms) = (Vec::new(), Vec::new());
    for truth in truths.iter().filter(|truth| truth.role == Role::Attack && truth.complete_ms <= until_ms) {
        line.injected += 1;
        match sightings.get(&truth.entity) {
            None => line.missed += 1,
            Some(sighting) => {
                line.found += 1;
                wall_ms.push(sighting.first.wall.saturating_duration_since(arrived(truth.complete_ms)).as_millis() as u64);
                story_ms.push((sighting.first.tick as i64 - truth.complete_ms).max(0) as u64);
            }
        }
    }
    for (entity, sighting) in sightings {
        line.withdrawn += usize::from(sighting.was_withdrawn && sighting.rows <= 0);
        line.wrong += usize::from(is_wrong(entity, sighting, truths, until_ms));
    }
    Line { wall_ms: median(wall_ms), story_ms: median(story_ms), ..line }
}

/// Whether a finding should not have been, or no longer be.
fn is_wrong(entity: &str, sighting: &Sighting, truths: &[&Truth], until_ms: i64) -> bool {
    let mut told = truths.iter().filter(|truth| truth.entity == entity);
    !told.any(|truth| match (truth.role, truth.withdrawn_ms) {
        (Role::Attack, _) => true,
        (Role::LookAlike, Some(withdrawn_ms)) => sighting.rows <= 0 || until_ms < withdrawn_ms,
        (Role::LookAlike, None) => false,
    })
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

pub struct Watch {
    detection: String,
    /// The entity's column.
    column: usize,
    score: Arc<Score>,
}

impl Watch {
    pub fn new(spec: &SinkSpec, score: Arc<Score>) -> Result<Self> {
        let option = |name: &str| {
            let missing = || Error::engine(format!("sink \"{}\" needs the option \"{name}\"", spec.name));
            spec.options.get(name).cloned().ok_or_else(missing)
        };
        let (detection, entity) = (option("detection")?, option("entity")?);
        let column =
            spec.schema.index_of(&entity).map_err(|_| Error::engine(format!("detection \"{detection}\" has no column \"{entity}\"")))?;
        Ok(Self { detection, column, score })
    }

    fn entities(&self, rows: &RecordBatch) -> Result<Vec<String>> {
        let options = FormatOptions::default();
        let failed = |error| Error::engine(format!("the entities of \"{}\" cannot be shown: {error}", self.detection));
        let formatter = ArrayFormatter::try_new(rows.column(self.column), &options).map_err(failed)?;
        Ok((0..rows.num_rows()).map(|row| formatter.value(row).to_string()).collect())
    }
}

#[async_trait]
impl Sink for Watch {
    async fn resume(&mut self, _: &Writer) -> Result<Progress> {
        Ok(Progress::Unknown)
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        for Changes { tick, delta } in changes {
            let moment = Moment { tick: *tick, wall: Instant::now() };
            // A row that replaces another of its entity is no coming and no going.
            let mut net = BTreeMap::new();
            for (entity, diff) in self.entities(&delta.rows)?.into_iter().zip(delta.diffs.iter()) {
                *net.entry(entity).or_insert(0) += diff;
            }
            let mut seen = self.score.open();
            for (entity, diff) in net {
                seen.note(&self.detection, entity, moment, diff);
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(entity: &str, role: Role, complete_ms: i64, withdrawn_ms: Option<i64>) -> Truth {
        let entity = entity.to_string();
        Truth { scenario: "L1", pilot: "logistics", detection: "rogue_scanner", entity, role, complete_ms, withdrawn_ms }
    }

    #[test]
    fn found_missed_wrong_and_withdrawn() {
        let truths = [
            truth("attack", Role::Attack, 1_000, None),
            truth("unseen", Role::Attack, 1_500, None),
            truth("later", Role::Attack, 9_000, None),
            truth("late credential", Role::LookAlike, 1_000, Some(3_000)),
            truth("never withdrawn", Role::LookAlike, 1_000, Some(3_000)),
            truth("not withdrawn yet", Role::LookAlike, 1_000, Some(8_000)),
            truth("clean", Role::LookAlike, 1_000, None),
        ];
        let score = Score::default();
        let start = Instant::now();
        let note = |entity: &str, tick: u64, diff: i64| {
            score.open().note("rogue_scanner", entity.into(), Moment { tick, wall: start }, diff);
        };
        note("attack", 1_200, 2);
        note("attack", 1_300, -1);
        note("late credential", 1_100, 1);
        note("late credential", 3_100, -1);
        note("never withdrawn", 1_100, 1);
        note("not withdrawn yet", 1_100, 1);
        note("clean", 1_100, 1);
        note("unknown", 1_100, 1);
        let lines = score.judge(&truths, 5_000, |_| start);
        let expected = Line {
            scenario: "L1",
            pilot: "logistics",
            detection: "rogue_scanner",
            injected: 2,
            found: 1,
            missed: 1,
            wrong: 3,
            withdrawn: 1,
            wall_ms: Some(0),
            story_ms: Some(200),
        };
        assert_eq!(lines, [expected]);
        assert_eq!(score.open_findings("rogue_scanner"), 5);
        assert_eq!(score.count(), 7);
        assert!(!score.recent().iter().find(|news| news.entity == "late credential").unwrap().is_open);
    }

    #[test]
    fn nothing_seen_is_no_median() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3, 1, 2]), Some(2));
    }
}
