//! Ticks: one that is open takes in what comes, one that is closing is computed and made durable; then it is visible,
//! everywhere at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_operators::stream::{ErrorRow, Timed};
use tidegate_types::connector::Offset;
use tidegate_types::time::next_tick;
use tidegate_types::{Delta, Tick};
use tokio::sync::OwnedSemaphorePermit;

use super::Coordinator;
use super::statements::shown_name;
use crate::actions::{Cause, Note};
use crate::interface::Hindrance;
use crate::log::record::Record;
use crate::seeded::Bug;
use crate::sources::IN_FLIGHT_BYTES_MAX;
use crate::worker::{Command, Excess, Report};

/// Reasons that are told apart, per view.
const REASONS_MAX: usize = 1_000;
/// Bytes after which a tick closes early.
const TICK_BYTES_MAX: usize = 48 << 20;
/// How often the clock alone moves a view that reads it, and how often it moves nothing but the tick.
pub(super) const HEARTBEAT_TEMPORAL: Duration = Duration::from_millis(50);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(500);
/// A follower that holds up writes for longer is not just behind.
const HELD_UP_MAX: Duration = Duration::from_secs(30);

pub(super) struct OpenTick {
    pub(super) tick: Tick,
    since: Instant,
    pub(super) bytes: usize,
    /// Someone waits for it: do not let it fill.
    urgent: bool,
    pub(super) held: Held,
}

impl OpenTick {
    pub(super) fn new(tick: Tick) -> Self {
        Self { tick, since: Instant::now(), bytes: 0, urgent: false, held: Held::default() }
    }
}

pub(super) struct ClosingTick {
    pub(super) tick: Tick,
    since: Instant,
    closed: Instant,
    /// Workers that are not through.
    waiting: usize,
    /// The log holds it.
    is_durable: bool,
    changes: HashMap<String, BTreeMap<Tick, Vec<Delta>>>,
    /// How much memory dataflows take.
    state: BTreeMap<String, usize>,
    held: Held,
}

/// What is let go when the tick is visible.
#[derive(Default)]
pub(super) struct Held {
    pub(super) permits: Vec<OwnedSemaphorePermit>,
    pub(super) offsets: Vec<(String, Offset)>,
    pub(super) seen: HashMap<String, i64>,
    replies: Vec<Reply>,
}

pub(super) type Reply = Box<dyn FnOnce(&Coordinator, Tick) + Send>;

impl Coordinator {
    /// Sends rows of `relation` to the workers in turn, in pieces that keep all of them busy.
    pub(super) fn distribute(&mut self, relation: &str, reader: Option<&str>, delta: Delta) {
        let tick = self.opened();
        let workers = self.workers.count();
        let piece = delta.len().div_ceil(workers).max(1024);
        let mut from = 0;
        while from < delta.len() {
            let length = piece.min(delta.len() - from);
            let part = Delta::new(delta.rows.slice(from, length), &delta.diffs[from..from + length]);
            let timed = Timed { time: tick, delta: part };
            let command = Command::Rows { relation: relation.to_string(), reader: reader.map(str::to_string), timed };
            self.workers.send(self.next_worker, command);
            self.next_worker = (self.next_worker + 1) % workers;
            from += length;
        }
    }

    /// The open tick, opened now if there is none.
    pub(super) fn opened(&mut self) -> Tick {
        if let Some(open) = &self.open {
            return open.tick;
        }
        let tick = next_tick(self.last_used, self.config.clock.now_ms());
        self.last_used = tick;
        let open = self.open.insert(OpenTick::new(tick));
        if self.closing.is_none() {
            self.health.lock().behind_since = Some(open.since);
        }
        tick
    }

    /// Says to the log what happens in the open tick.
    pub(super) fn say(&mut self, record: impl FnOnce() -> Record) {
        let tick = self.opened();
        if let Some(log) = self.log.as_ref().filter(|_| !self.replaying) {
            log.append(tick, record());
        }
    }

    /// `reply` is called when the tick that is open now is visible.
    pub(super) fn when_closed(&mut self, reply: Reply) {
        self.opened();
        let open = self.open.as_mut().expect("opened above");
        open.urgent = true;
        open.held.replies.push(reply);
    }

    /// Closes the open tick when it is due, or an empty one when the clock alone must move.
    pub(super) fn advance(&mut self) {
        if self.closing.is_some() || self.is_reliving() {
            return;
        }
        let due = match &self.open {
            Some(open) => open.urgent || self.is_pausing || self.config.tick <= open.since.elapsed() || TICK_BYTES_MAX <= open.bytes,
            // What a full follower says gets its tick, or it would never have less to do.
            None if self.is_pausing || self.is_past() || self.waits_for_followers() => false,
            None => {
                let temporal = self.kept.values().any(|kept| kept.node.is_temporal())
                    || self.followers.values().any(|follow| follow.node.is_temporal());
                let heartbeat = if temporal { HEARTBEAT_TEMPORAL } else { HEARTBEAT_IDLE };
                // A tick is later than the one before even where the clock stands still; what reads the clock
                // must not see it go by that.
                let has_moved = !temporal || self.last_used < self.config.clock.now_ms();
                has_moved && heartbeat.max(self.config.tick) <= self.last_tick_at.elapsed()
            }
        };
        if due {
            self.close();
        }
    }

    pub(super) fn waits_for_followers(&self) -> bool {
        self.followers.values().any(|follow| follow.queue.is_full())
    }

    /// Notes since when writes wait for a follower. Being behind passes; one that takes nothing may have to be dropped.
    pub(super) fn note_held_up(&mut self) {
        let full = self.followers.iter().find(|(_, follow)| follow.queue.is_full());
        if full.is_some() == self.held_up.is_some() {
            return;
        }
        self.held_up = full.map(|(name, follow)| {
            let place = if follow.kind == "action" { "sys.actions" } else { "sys.sinks" };
            let reason = format!("input and writes wait for {} \"{}\", which takes nothing: see {place}", follow.kind, shown_name(name));
            Hindrance { from: Instant::now() + HELD_UP_MAX, reason }
        });
        self.tell_health();
    }

    pub(super) fn close(&mut self) {
        self.opened();
        let open = self.open.take().expect("opened above");
        for (name, seen) in &open.held.seen {
            let state = &self.sources[name];
            let watermark = seen.saturating_sub(state.rule.expect("only ruled sources are seen").lateness_ms);
            let known = &mut self.watermarks[state.index];
            *known = Some(known.map_or(watermark, |known| known.max(watermark)));
            self.metrics.source_watermark.with_label_values(&[name]).set(known.unwrap_or(0) as f64 / 1000.0);
        }
        let watermarks: Arc<[Option<i64>]> = self.watermarks.clone().into();
        self.workers.broadcast(&Command::Close { tick: open.tick, watermarks, compact: self.last_closed });
        let is_logged = self.log.is_some() && !self.replaying;
        let delivered = if is_logged { self.newly_delivered() } else { BTreeMap::new() };
        if let Some(log) = self.log.as_ref().filter(|_| is_logged) {
            log.commit(open.tick, delivered);
        }
        self.closing = Some(ClosingTick {
            tick: open.tick,
            since: open.since,
            closed: Instant::now(),
            waiting: self.workers.count(),
            is_durable: !is_logged,
            changes: HashMap::new(),
            state: BTreeMap::new(),
            held: open.held,
        });
        self.health.lock().closing_since = Some(Instant::now());
        self.last_tick_at = Instant::now();
    }

    /// Followers that got further since the last commit, and how far.
    fn newly_delivered(&mut self) -> BTreeMap<String, Tick> {
        let mut news = BTreeMap::new();
        for (name, follow) in &self.followers {
            let upto = follow.queue.delivered();
            if self.delivered.insert(name.clone(), upto) != Some(upto) && upto != 0 {
                news.insert(name.clone(), upto);
            }
        }
        news
    }

    /// Whether followers got further than the log knows; without one nobody asks.
    pub(super) fn has_news(&self) -> bool {
        self.log.is_some()
            && self.followers.iter().any(|(name, follow)| self.delivered.get(name).copied().unwrap_or(0) < follow.queue.delivered())
    }

    pub(super) fn note(&mut self, note: Note) {
        let Note { record, durable } = note;
        self.say(|| Record::Action(record));
        if let Some(durable) = durable {
            self.when_closed(Box::new(move |_, _| {
                let _ = durable.send(());
            }));
        }
    }

    pub(super) fn reported(&mut self, report: Report) {
        let Some(closing) = self.closing.as_mut().filter(|closing| closing.tick == report.tick) else { return };
        closing.waiting -= 1;
        if closing.waiting == 0 {
            self.to_replay += closing.closed.elapsed();
        }
        for (name, tick, deltas) in report.changes {
            closing.changes.entry(name).or_default().entry(tick).or_default().extend(deltas);
        }
        for (name, bytes) in report.state {
            *closing.state.entry(name).or_default() += bytes;
        }
        for (view, rows) in report.errors {
            let known = self.errors.entry(view.clone()).or_default();
            rows.into_iter().for_each(|(row, diff)| count_error(known, row, diff));
            self.metrics.view_errors.with_label_values(&[&view]).set(known.values().sum());
        }
        self.see();
    }

    pub(super) fn durable(&mut self, tick: Tick) {
        if let Some(closing) = self.closing.as_mut().filter(|closing| closing.tick == tick) {
            closing.is_durable = true;
            self.see();
        }
    }

    /// Makes the closing tick visible, if all is done that it waits for.
    fn see(&mut self) {
        let is_hasty = self.config.seeded.has(Bug::VisibleBeforeDone);
        if let Some(closed) = self.closing.take_if(|closing| (closing.waiting == 0 || is_hasty) && closing.is_durable) {
            self.visible(closed);
        }
    }

    /// A tick is visible everywhere: followers get its changes, waiters their answer.
    fn visible(&mut self, mut closed: ClosingTick) {
        self.last_closed = closed.tick;
        // What was stopped within the tick is not through with it.
        closed.changes.retain(|name, _| !self.stopped.contains_key(name));
        self.tell_takeovers(closed.tick, &mut closed.changes);
        for (name, ticks) in closed.changes {
            for (tick, deltas) in ticks {
                match self.followers.get_mut(&name) {
                    Some(follow) => follow.queue.push(tick, deltas, Cause::Input),
                    None => self.count_findings(&name, &deltas),
                }
            }
        }
        if !self.replaying {
            for follow in self.followers.values_mut().filter(|follow| follow.queue.is_new()) {
                follow.queue.start(&self.writer, follow.created, closed.tick);
            }
        }
        for (source, offset) in closed.held.offsets {
            if let Some(acknowledge) = self.sources.get(&source).and_then(|state| state.acknowledge.as_ref()) {
                let _ = acknowledge.send(offset);
            }
        }
        for (name, bytes) in closed.state {
            if self.kept.contains_key(&name) && !self.stopped.contains_key(&name) {
                self.metrics.view_state_bytes.with_label_values(&[&name]).set(bytes as i64);
            }
            if self.config.state_bytes_max < bytes {
                self.exceeds(&name, Excess::Kept(bytes));
            }
        }
        closed.held.replies.into_iter().for_each(|reply| reply(self, closed.tick));
        self.metrics.ticks.inc();
        self.metrics.tick_seconds.observe(closed.since.elapsed().as_secs_f64());
        self.metrics.tick_time.set(closed.tick as f64 / 1000.0);
        self.metrics.in_flight_bytes.set((IN_FLIGHT_BYTES_MAX - self.in_flight.available_permits()) as i64);
        let mut health = self.health.lock();
        health.tick = closed.tick;
        health.lag_ms = closed.since.elapsed().as_millis() as u64;
        health.behind_since = self.open.as_ref().map(|open| open.since);
        health.closing_since = None;
        drop(health);
        self.tell_health();
    }

    fn count_findings(&self, detection: &str, deltas: &[Delta]) {
        let Some(kept) = self.kept.get(detection) else { return };
        let net = crate::changes::consolidate(&kept.node.schema, deltas);
        if self.replaying {
            return self.metrics.findings_open.with_label_values(&[detection]).add(net.diffs.iter().sum());
        }
        let raised: i64 = net.diffs.iter().filter(|diff| 0 < **diff).sum();
        let withdrawn: i64 = net.diffs.iter().filter(|diff| **diff < 0).sum();
        self.metrics.findings_raised.with_label_values(&[detection]).inc_by(raised as u64);
        self.metrics.findings_withdrawn.with_label_values(&[detection]).inc_by(-withdrawn as u64);
        self.metrics.findings_open.with_label_values(&[detection]).add(raised + withdrawn);
    }
}

/// Beyond so many reasons the others are one.
fn count_error(known: &mut BTreeMap<ErrorRow, i64>, row: ErrorRow, diff: i64) {
    let is_apart = known.contains_key(&row) || (0 < diff && known.len() < REASONS_MAX);
    let row = if is_apart { row } else { ErrorRow { reason: "other reasons".into(), ..row } };
    let count = known.entry(row.clone()).or_default();
    *count += diff;
    if *count == 0 {
        known.remove(&row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_however_many_reasons_there_are() {
        let (mut known, row) = (BTreeMap::new(), |i: usize| ErrorRow { operator: "project", reason: i.to_string() });
        (0..3 * REASONS_MAX).for_each(|i| count_error(&mut known, row(i), 2));
        assert_eq!((known.len(), known.values().sum::<i64>()), (REASONS_MAX + 1, 6 * REASONS_MAX as i64));
        (0..3 * REASONS_MAX).rev().for_each(|i| count_error(&mut known, row(i), -2));
        assert_eq!(known, BTreeMap::new());
    }
}
