//! What sources bring: judged, said to the log, counted, and sent to the workers.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMillisecondType;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use tidegate_plan::catalog::WatermarkRule;
use tidegate_types::Delta;
use tidegate_types::connector::{Offset, Resume, SourceBatch};
use tidegate_types::error::Result;
use tokio::sync::OwnedSemaphorePermit;

use super::{Coordinator, SourceStatus, late_name};
use crate::log::record::{Arrived, Record};
use crate::seeded::Bug;
use crate::sources::{Arrival, ArrivalEvent, judge};

/// Dead letters kept for reading.
const DEAD_LETTERS_MAX: usize = 10_000;

impl Coordinator {
    pub(super) fn arrived(&mut self, arrival: Arrival) {
        let Some(state) = self.sources.get_mut(&arrival.source) else { return };
        match arrival.event {
            ArrivalEvent::Batch(batch, permit) => return self.accept(&arrival.source, batch, Some(permit)),
            ArrivalEvent::End => state.status = SourceStatus::Ended,
            ArrivalEvent::Failed(error) => {
                tracing::error!(source = arrival.source, %error, "the source failed and is no longer read");
                state.status = SourceStatus::Failed(error.to_string());
            }
        }
        self.metrics.source_up.with_label_values(&[&arrival.source]).set(0);
    }

    /// Judges a batch, and takes it into the open tick.
    pub(super) fn accept(&mut self, name: &str, batch: SourceBatch, permit: Option<OwnedSemaphorePermit>) {
        self.opened();
        let now_ms = self.config.clock.now_ms() as i64;
        let state = &self.sources[name];
        let (on_time, late, seen) = match state.rule {
            Some(rule) => {
                let judged = judge(batch.rows, rule, self.watermarks[state.index], now_ms);
                (judged.on_time, judged.late, judged.seen)
            }
            None => (batch.rows, None, None),
        };
        let latest = latest(&on_time, state.rule);
        let SourceBatch { dead, offset, repeated, rejected, ids, bytes, .. } = batch;
        let (source, generation) = (name.to_string(), state.generation);
        let arrived = Arrived { source, generation, on_time, late, dead, repeated, rejected, offset, ids, seen, latest };
        self.say(|| Record::Arrived(Box::new(arrived.clone())));
        self.metrics.source_received_bytes.with_label_values(&[name]).inc_by(bytes as u64);
        let open = self.open.as_mut().expect("opened above");
        open.bytes += bytes;
        open.held.permits.extend(permit);
        open.held.offsets.push((name.to_string(), arrived.offset.clone()));
        self.take_in(arrived);
    }

    /// Counts a judged batch, and sends its rows on at the open tick.
    pub(super) fn take_in(&mut self, arrived: Arrived) {
        let tick = self.opened();
        let Arrived { source: name, on_time, late, dead, repeated, rejected, offset, ids, seen, .. } = arrived;
        let late_rows = late.as_ref().map_or(0, RecordBatch::num_rows) as u64;
        let counts = Counts { committed: on_time.num_rows() as u64, late: late_rows, dead: dead.len() as u64, repeated, rejected };
        let state = self.sources.get_mut(&name).expect("the caller looked");
        state.counts.add(&counts);
        let is_forgetful = self.replaying && self.config.seeded.has(Bug::IdsForgotten);
        state.resume_at(offset, if is_forgetful { Vec::new() } else { ids });
        self.count(&name, &counts);
        self.dead_letters.extend(dead.into_iter().map(|letter| (tick, name.clone(), letter)));
        let surplus = self.dead_letters.len().saturating_sub(DEAD_LETTERS_MAX);
        self.dead_letters.drain(..surplus);
        if let Some(seen) = seen {
            let open = self.open.as_mut().expect("opened above");
            let latest = open.held.seen.entry(name.clone()).or_insert(seen);
            *latest = seen.max(*latest);
        }
        if on_time.num_rows() != 0 {
            self.distribute(&name, None, Delta::insertions(on_time));
        }
        if let Some(late) = late {
            self.distribute(&late_name(&name), None, Delta::insertions(late));
        }
    }

    pub(super) fn count(&self, name: &str, counts: &Counts) {
        let labels = &[name];
        self.metrics.source_received_rows.with_label_values(labels).inc_by(counts.received());
        self.metrics.source_committed_rows.with_label_values(labels).inc_by(counts.committed);
        self.metrics.source_late_rows.with_label_values(labels).inc_by(counts.late);
        self.metrics.source_dead_letters.with_label_values(labels).inc_by(counts.dead);
        self.metrics.source_repeated_rows.with_label_values(labels).inc_by(counts.repeated);
        self.metrics.source_rejected_rows.with_label_values(labels).inc_by(counts.rejected);
    }

    pub(super) fn start_sources(&mut self) -> Result<()> {
        self.started = true;
        let waiting = self.sources.iter().filter(|(_, state)| state.status == SourceStatus::Created);
        let names: Vec<String> = waiting.map(|(name, _)| name.clone()).collect();
        let started = names.iter().try_for_each(|name| self.start_source(name));
        // Not only with the next tick, for which somebody may have to be let in first.
        self.tell_health();
        started
    }

    pub(super) fn start_source(&mut self, name: &str) -> Result<()> {
        if self.config.dry || self.is_past() {
            return Ok(());
        }
        // Only where nothing can be created later is it known which columns nobody reads.
        let wanted = (!self.keeps_history()).then(|| self.columns_wanted(name));
        let state = self.sources.get_mut(name).expect("the caller looked");
        if let Some(wanted) = wanted {
            state.spec.columns_wanted = wanted;
        }
        let source = self.connectors.source(&state.spec)?;
        let (acknowledge, task) = crate::sources::read(name.to_string(), source, Arc::clone(&self.in_flight), self.arrivals.clone());
        state.acknowledge = Some(acknowledge);
        state.task = Some(task);
        state.status = SourceStatus::Running;
        self.metrics.source_up.with_label_values(&[name]).set(1);
        Ok(())
    }
}

/// The largest event time of the rows; the last there is where some row has none; None: no rows.
fn latest(rows: &RecordBatch, rule: Option<WatermarkRule>) -> Option<i64> {
    let Some(rule) = rule else { return (rows.num_rows() != 0).then_some(i64::MAX) };
    let times = rows.column(rule.column).as_primitive::<TimestampMillisecondType>();
    if times.null_count() != 0 { Some(i64::MAX) } else { arrow::compute::max(times) }
}

/// Rows a source brought, by what became of them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counts {
    pub committed: u64,
    pub late: u64,
    pub dead: u64,
    pub repeated: u64,
    pub rejected: u64,
}

impl Counts {
    pub(super) fn received(&self) -> u64 {
        self.committed + self.late + self.dead + self.repeated + self.rejected
    }

    fn add(&mut self, more: &Self) {
        self.committed += more.committed;
        self.late += more.late;
        self.dead += more.dead;
        self.repeated += more.repeated;
        self.rejected += more.rejected;
    }
}

impl super::SourceState {
    /// Where the source goes on after a restart.
    fn resume_at(&mut self, offset: Offset, ids: Vec<String>) {
        let resume = self.spec.resume.get_or_insert_default();
        if !offset.0.is_empty() {
            resume.offset = offset;
        }
        resume.ids.extend(ids);
        let surplus = resume.ids.len().saturating_sub(Resume::IDS_MAX);
        resume.ids.drain(..surplus);
    }
}
