//! Actions follow their detection's settled rows: a row that comes is done, a row that goes is
//! undone, and a row that changes (same entity, same tick) is updated. What was there before the
//! action is not acted on. Each finding has one state, readable in `sys.actions`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::writer::LineDelimited;
use serde::{Deserialize, Serialize};
use tidegate_operators::arrange::Bytes;
use tidegate_types::connector::{ActionKind, Changes, Decision, Options, Responder};
use tidegate_types::error::{Error, Result};
use tidegate_types::row::RowCodec;
use tidegate_types::{Clock, Delta, Random, Tick};

pub use self::journal::{ActionEvent, ActionRecord, Journal, Note};
pub use self::log::{ActionLog, ActionState, Entry};
use self::outbox::{Id, Outbox, OutboxState};
use self::text::Text;
use crate::backlog::Backlog;
use crate::changes::consolidate;
use crate::metrics::Metrics;
use crate::seeded::Seeded;

mod journal;
mod log;
mod outbox;
mod text;

/// What the engine itself reads of an action's options; the rest is its connector's.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionOptions {
    pub armed: bool,
    /// Nothing is done or updated before a person approves it.
    pub manual: bool,
    /// What may have been done is not asked for again: a person has to look.
    pub at_most_once: bool,
    /// At most so many requests in so long.
    pub limit: Option<(usize, Duration)>,
}

impl ActionOptions {
    /// Takes `mode`, `approval`, `delivery` and `limit` out of `options`.
    pub fn take(options: &mut Options) -> Result<Self> {
        let mut choice = |name: &str, first: &str, second: &str| match options.remove(name).as_deref() {
            None => Ok(false),
            Some(value) if value == first => Ok(false),
            Some(value) if value == second => Ok(true),
            Some(other) => Err(Error::user(format!("option \"{name}\" is '{other}'")).hint(format!("it is '{first}' or '{second}'"))),
        };
        let armed = !choice("mode", "armed", "dry_run")?;
        let manual = choice("approval", "auto", "manual")?;
        let at_most_once = choice("delivery", "at_least_once", "at_most_once")?;
        let limit = options.remove("limit").map(|limit| parse_limit(&limit)).transpose()?;
        Ok(Self { armed, manual, at_most_once, limit })
    }
}

fn parse_limit(text: &str) -> Result<(usize, Duration)> {
    let parsed = text.split_once('/').and_then(|(count, unit)| {
        let seconds = match unit.trim() {
            "second" => 1,
            "minute" => 60,
            "hour" => 3600,
            "day" => 86_400,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| 0 < *count)?;
        Some((count, Duration::from_secs(seconds)))
    });
    parsed.ok_or_else(|| {
        Error::user(format!("option \"limit\" is '{text}'")).hint("write a number per second, minute, hour or day: '10/minute'")
    })
}

/// Everything one action needs to follow its detection.
pub struct ActionTask {
    pub name: String,
    pub schema: SchemaRef,
    /// The detection's entity column: what makes a changed row the same finding.
    pub entity: Option<usize>,
    /// Findings up to this tick were there before the action: it leaves them alone.
    pub since: Tick,
    pub options: ActionOptions,
    pub responder: Box<dyn Responder>,
    pub log: ActionLog,
    pub journal: Journal,
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub seeded: Seeded,
}

/// What a restart needs of an action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ActionSnapshot {
    pub action: String,
    open: Vec<(Bytes, Id)>,
    outbox: OutboxState,
    entries: Vec<Entry>,
}

/// What brings a tick's changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cause {
    Input,
    /// The detection has a new definition: what it finds in the past is not acted upon. `is_past_whole`: and what it
    /// no longer finds is so because of the definition, and not for want of what it would be found in.
    Definition {
        is_past_whole: bool,
    },
}

/// What to ask of the outside world for one tick's changes.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    kind: ActionKind,
    row: usize,
    replaces: Option<usize>,
}

/// From a detection's changes to findings, and what they ask.
pub struct Follower {
    task: Arc<ActionTask>,
    codec: RowCodec,
    /// The finding of each row that is there, but for those from before the action.
    open: HashMap<Bytes, Id>,
    /// How often a finding's row is there: only the first copy raises it, only the last withdraws it.
    copies: HashMap<Bytes, i64>,
    outbox: Outbox,
}

impl Follower {
    /// `backlog` counts what has no outcome yet.
    pub fn new(task: ActionTask, backlog: Backlog) -> Self {
        let task = Arc::new(task);
        let codec = RowCodec::new(task.schema.clone()).expect("the planner checked the types");
        let outbox = Outbox::new(Arc::clone(&task), backlog);
        Self { task, codec, open: HashMap::new(), copies: HashMap::new(), outbox }
    }

    /// Takes in one tick's changes. Their findings are in `sys.actions` when this returns; what
    /// they ask is carried out by `progress`, once awake.
    pub fn follow(&mut self, tick: Tick, deltas: &[Delta], cause: Cause) {
        let changes = &Changes { tick, delta: consolidate(&self.task.schema, deltas) };
        let rows = self.codec.encode(&changes.delta.rows).expect("the detection's schema");
        let turns: Vec<i64> = rows.iter().zip(changes.delta.diffs.iter()).map(|(row, diff)| self.turn(row, *diff)).collect();
        if changes.tick <= self.task.since {
            return;
        }
        let texts = match rows_as_json(&changes.delta.rows) {
            Ok(texts) => texts,
            Err(error) => return tracing::error!(action = self.task.name, %error, "findings could not be written as JSON"),
        };
        let entities = self.entities(changes);
        let mut left = 0;
        for step in steps(&turns, entities.as_deref()) {
            let (row, text) = (rows.row(step.row), &texts[step.row]);
            match (step.kind, cause) {
                (ActionKind::Do, Cause::Definition { .. }) => {}
                (ActionKind::Do, Cause::Input) => {
                    let lane = entities.as_ref().map_or(row, |entities| &entities[step.row]);
                    self.raise(row, lane.to_vec(), text, changes.tick);
                }
                (ActionKind::Undo, Cause::Definition { is_past_whole: false }) => left += usize::from(self.let_go(row)),
                (ActionKind::Undo, _) => self.withdraw(row, text, changes.tick),
                (ActionKind::Update, cause) => {
                    let old = rows.row(step.replaces.expect("an update replaces a row"));
                    match cause {
                        Cause::Definition { .. } => self.adopt(old, row, text),
                        Cause::Input => self.update(old, row, text, changes.tick),
                    }
                }
            }
        }
        if left != 0 {
            tracing::warn!(action = self.task.name, findings = left, "no longer found, but not undone: their past is no longer all there");
        }
        self.outbox.launch();
    }

    /// What a restart needs of it, and what `sys.actions` says.
    pub fn state(&self) -> ActionSnapshot {
        ActionSnapshot {
            action: self.task.name.clone(),
            open: self.open.iter().map(|(row, id)| (row.clone(), id.clone())).collect(),
            outbox: self.outbox.state(),
            entries: self.task.log.of_action(&self.task.name),
        }
    }

    /// Takes up what an earlier engine left; the detection's rows were followed before.
    pub fn restore(&mut self, state: ActionSnapshot) {
        self.open = state.open.into_iter().collect();
        state.entries.into_iter().for_each(|entry| self.task.log.set(entry));
        self.outbox.restore(state.outbox);
    }

    /// What the log held of it for a while is lost. False: what it asks may be asked for again.
    pub fn disarm(&mut self) -> bool {
        if self.task.options.at_most_once {
            self.outbox.disarm();
        }
        self.task.options.at_most_once
    }

    /// What the log says of a finding's request, and in which tick.
    pub fn repeat(&mut self, record: &ActionRecord, said: Tick) {
        self.outbox.repeat(&record.id, &record.event, said);
    }

    /// What a person says of a finding's request, now that it is durable, and in which tick.
    pub fn decide(&mut self, id: &str, decision: Decision, said: Tick) {
        self.outbox.repeat(id, &ActionEvent::Decision(decision), said);
        self.outbox.launch();
    }

    /// From now on requests are sent: first those that the log knows no outcome of.
    pub fn wake(&mut self) {
        self.outbox.wake();
    }

    /// Waits for what comes next of the requests on the way, and sends more. Cancel safe.
    pub async fn progress(&mut self) {
        self.outbox.progress().await;
    }

    /// No more changes will come: what has no outcome gets one `within` that time, or has failed.
    pub async fn stop(mut self, within: Duration) {
        self.outbox.stop(within).await;
    }

    /// 1 where `diff` brings the row's first copy, -1 where it takes the last, else 0.
    fn turn(&mut self, row: &[u8], diff: i64) -> i64 {
        let copies = self.copies.entry(row.to_vec()).or_default();
        let before = *copies;
        *copies += diff;
        let after = *copies;
        if after == 0 {
            self.copies.remove(row);
        }
        i64::from(0 < after) - i64::from(0 < before)
    }

    fn entities(&self, changes: &Changes) -> Option<Vec<Bytes>> {
        let column = self.task.entity?;
        let field = Field::new("entity", self.task.schema.field(column).data_type().clone(), true);
        let codec = RowCodec::new(Arc::new(Schema::new(vec![field]))).expect("the planner checked the types");
        let rows = codec.encode_columns(&[changes.delta.rows.column(column).clone()], changes.delta.len()).expect("the column's type");
        Some(rows.iter().map(<[u8]>::to_vec).collect())
    }

    fn raise(&mut self, row: &[u8], lane: Bytes, text: &Text, tick: Tick) {
        let id = id(&self.task.name, row, tick);
        self.open.insert(row.to_vec(), id.clone());
        self.outbox.raise(id, lane, text.clone(), tick);
    }

    fn withdraw(&mut self, row: &[u8], text: &Text, tick: Tick) {
        if let Some(id) = self.open.remove(row) {
            self.outbox.withdraw(&id, text.clone(), tick);
        }
    }

    /// What was asked for it stays as it is. False: nothing was.
    fn let_go(&mut self, row: &[u8]) -> bool {
        let finding = self.open.remove(row);
        finding.iter().for_each(|id| self.outbox.let_go(id));
        finding.is_some()
    }

    fn adopt(&mut self, old: &[u8], row: &[u8], text: &Text) {
        if let Some(id) = self.open.remove(old) {
            self.outbox.adopt(&id, text.clone());
            self.open.insert(row.to_vec(), id);
        }
    }

    // A finding from before the action stays one, however it changes.
    fn update(&mut self, old: &[u8], row: &[u8], text: &Text, tick: Tick) {
        if let Some(id) = self.open.remove(old) {
            self.outbox.update(&id, text.clone(), tick);
            self.open.insert(row.to_vec(), id);
        }
    }
}

/// Of what raised a finding: no other finding ever has it, whatever somebody writes into their rows.
fn id(action: &str, row: &[u8], tick: Tick) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(action.len() as u64).to_le_bytes()).update(action.as_bytes()).update(&tick.to_le_bytes()).update(row);
    Id::from(hasher.finalize().to_hex()[..32].to_string())
}

/// Which rows to undo, update and do. A retraction and an insertion of one entity are one update.
fn steps(diffs: &[i64], entities: Option<&[Bytes]>) -> Vec<Step> {
    let entity = |row: usize| entities.map_or(Err(row), |entities| Ok(&entities[row]));
    let mut gone: BTreeMap<std::result::Result<&Bytes, usize>, VecDeque<usize>> = BTreeMap::new();
    for (i, _) in diffs.iter().enumerate().filter(|(_, diff)| **diff < 0) {
        gone.entry(entity(i)).or_default().push_back(i);
    }
    let mut steps = Vec::new();
    for (i, _) in diffs.iter().enumerate().filter(|(_, diff)| 0 < **diff) {
        let replaces = gone.get_mut(&entity(i)).and_then(VecDeque::pop_front);
        let kind = if replaces.is_some() { ActionKind::Update } else { ActionKind::Do };
        steps.push(Step { kind, row: i, replaces });
    }
    let undone = gone.into_values().flatten().map(|row| Step { kind: ActionKind::Undo, row, replaces: None });
    let mut all: Vec<Step> = undone.collect();
    all.sort_by_key(|step| step.row);
    all.extend(steps);
    all
}

fn rows_as_json(rows: &RecordBatch) -> Result<Vec<Text>> {
    let failed = |error: &dyn std::fmt::Display| Error::engine(error.to_string());
    let mut bytes = Vec::new();
    let mut writer = tidegate_types::json::writer().build::<_, LineDelimited>(&mut bytes);
    writer.write(rows).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))?;
    drop(writer);
    let lines = std::str::from_utf8(&bytes).map_err(|error| failed(&error))?;
    Ok(lines.lines().map(Text::from).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::DataType;
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use tidegate_types::connector::{ActionFailure, ActionRequest};
    use tidegate_types::{MachineRandom, WallClock};

    use super::*;

    #[test]
    fn no_two_findings_have_one_id() {
        let rows = (0..50_000_u64).map(u64::to_be_bytes);
        let mut ids: Vec<Id> = rows.flat_map(|row| [id("a", &row, 1), id("a", &row, 2), id("b", &row, 1)]).collect();
        ids.extend([id("ab", b"c", 1), id("a", b"bc", 1)]);
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    const SOON: Duration = Duration::from_secs(20);

    /// What the partner does with one attempt; where the script says nothing, it does as asked.
    #[derive(Clone, Copy)]
    enum Answer {
        Refuses,
        Unreachable,
        Unclear,
        Later(u64),
        Hangs,
        HangsAWhile,
        UnreachableAfterAWhile,
    }

    /// The other side, by its script: the answers to each request, such as "do a1".
    #[derive(Default)]
    struct Partner {
        script: Mutex<HashMap<String, VecDeque<Answer>>>,
        seen: Mutex<Vec<String>>,
        in_flight: AtomicUsize,
        in_flight_max: AtomicUsize,
        has_no_undo: bool,
    }

    struct Line(Arc<Partner>);

    #[async_trait]
    impl Responder for Line {
        async fn send(&self, request: &ActionRequest) -> Result<(), ActionFailure> {
            let row = |row: &serde_json::Value| format!("{}{}", row["entity"].as_str().unwrap(), row["n"]);
            let key = format!("{} {}", request.kind.as_str(), row(&request.finding));
            let previous = request.previous.as_ref().map(|previous| format!(" for {}", row(previous))).unwrap_or_default();
            self.0.seen.lock().push(format!("{key}{previous}"));
            self.0.in_flight_max.fetch_max(self.0.in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let answer = self.0.script.lock().get_mut(&key).and_then(VecDeque::pop_front);
            let outcome = carry_out(answer).await;
            self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
            outcome
        }

        fn supports(&self, kind: ActionKind) -> bool {
            kind != ActionKind::Undo || !self.0.has_no_undo
        }
    }

    async fn carry_out(answer: Option<Answer>) -> Result<(), ActionFailure> {
        let failure = |retryable, retry_after_ms, may_be_done| {
            Err(ActionFailure { message: "as scripted".into(), retryable, retry_after_ms, may_be_done })
        };
        match answer {
            None => Ok(()),
            Some(Answer::Refuses) => failure(false, None, false),
            Some(Answer::Unreachable) => failure(true, None, false),
            Some(Answer::Unclear) => failure(true, None, true),
            Some(Answer::Later(ms)) => failure(true, Some(ms), false),
            Some(Answer::Hangs) => std::future::pending().await,
            Some(Answer::HangsAWhile) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(())
            }
            Some(Answer::UnreachableAfterAWhile) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                failure(true, None, false)
            }
        }
    }

    struct Bench {
        follower: Follower,
        partner: Arc<Partner>,
        log: ActionLog,
        backlog: Backlog,
        tick: Tick,
    }

    impl Bench {
        fn new(script: &[(&str, &[Answer])]) -> Self {
            Self::with(script, None, false)
        }

        fn with(script: &[(&str, &[Answer])], limit: Option<(usize, Duration)>, has_no_undo: bool) -> Self {
            let mut bench = Self::asleep(script, limit, has_no_undo, Journal::default());
            bench.follower.wake();
            bench
        }

        /// One whose log is still being read.
        fn asleep(script: &[(&str, &[Answer])], limit: Option<(usize, Duration)>, has_no_undo: bool, journal: Journal) -> Self {
            Self::of(script, ActionOptions { armed: true, manual: false, at_most_once: false, limit }, has_no_undo, journal)
        }

        /// One that says what it would do.
        fn dry(options: ActionOptions, has_no_undo: bool) -> Self {
            let mut bench = Self::of(&[], options, has_no_undo, Journal::default());
            bench.follower.wake();
            bench
        }

        fn of(script: &[(&str, &[Answer])], options: ActionOptions, has_no_undo: bool, journal: Journal) -> Self {
            let script = script.iter().map(|(key, answers)| (key.to_string(), answers.iter().copied().collect())).collect();
            let partner = Arc::new(Partner { script: Mutex::new(script), has_no_undo, ..Partner::default() });
            let fields = vec![Field::new("entity", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
            let (log, backlog) = (ActionLog::default(), Backlog::default());
            let task = ActionTask {
                name: "hold".into(),
                schema: Arc::new(Schema::new(fields)),
                entity: Some(0),
                since: 10,
                options,
                responder: Box::new(Line(Arc::clone(&partner))),
                log: log.clone(),
                journal,
                metrics: Metrics::new(),
                clock: Arc::new(WallClock),
                random: Arc::new(MachineRandom),
                seeded: Seeded::default(),
            };
            let follower = Follower::new(task, backlog.clone());
            Self { follower, partner, log, backlog, tick: 10 }
        }

        /// One tick after the action was created.
        fn follow(&mut self, rows: &[(&str, i64, i64)]) {
            self.tick += 1;
            self.follow_at(self.tick, rows, Cause::Input);
        }

        fn follow_at(&mut self, tick: Tick, rows: &[(&str, i64, i64)], cause: Cause) {
            let entities = StringArray::from_iter_values(rows.iter().map(|row| row.0));
            let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
            let schema = Arc::clone(&self.follower.task.schema);
            let batch = RecordBatch::try_new(schema, vec![Arc::new(entities), Arc::new(numbers)]).unwrap();
            let delta = Delta::new(batch, rows.iter().map(|row| row.2).collect::<Vec<_>>());
            self.follower.follow(tick, &[delta], cause);
        }

        /// Until `count` attempts were made, and what is known of them now is taken in.
        async fn until_seen(&mut self, count: usize) {
            while self.partner.seen.lock().len() < count {
                let _ = tokio::time::timeout(Duration::from_millis(5), self.follower.progress()).await;
            }
            while tokio::time::timeout(Duration::from_millis(5), self.follower.progress()).await.is_ok() {}
        }

        async fn until_idle(&mut self) {
            let all = async {
                while self.backlog.bytes() != 0 {
                    self.follower.progress().await;
                }
            };
            tokio::time::timeout(SOON, all).await.expect("all have an outcome");
        }

        fn seen(&self) -> Vec<String> {
            self.partner.seen.lock().clone()
        }

        /// kind, state and error of each finding.
        fn states(&self) -> Vec<String> {
            let rows = self.log.rows();
            let text = |name: &str, i: usize| rows.column_by_name(name).unwrap().as_string::<i32>().value(i).to_string();
            (0..rows.num_rows()).map(|i| format!("{} {} {}", text("kind", i), text("state", i), text("error", i)).trim().into()).collect()
        }
    }

    #[tokio::test]
    async fn what_was_done_is_undone_whatever_became_of_updates() {
        let mut refused = Bench::new(&[("update a2", &[Answer::Refuses])]);
        let mut limited = Bench::with(&[], Some((1, Duration::from_secs(3600))), false);
        for bench in [&mut refused, &mut limited] {
            for changes in [&[("a", 1, 1)][..], &[("a", 1, -1), ("a", 2, 1)], &[("a", 2, -1)]] {
                bench.follow(changes);
                bench.until_idle().await;
            }
            assert_eq!(bench.states(), ["undo undone"]);
            assert_eq!(bench.seen().last().unwrap(), "undo a1", "what the other side holds is undone");
        }
        assert_eq!(refused.seen(), ["do a1", "update a2 for a1", "undo a1"]);
        assert_eq!(limited.seen(), ["do a1", "undo a1"]);
    }

    #[tokio::test]
    async fn a_dry_run_says_what_would_have_been_done() {
        let options = ActionOptions { armed: false, manual: false, at_most_once: false, limit: None };
        let limited = ActionOptions { limit: Some((2, Duration::from_secs(3600))), ..options.clone() };
        for (has_no_undo, undone) in [(false, "undo dry_run"), (true, "undo skipped withdrawn, but has no undo_url: what was done stays")] {
            let mut bench = Bench::dry(limited.clone(), has_no_undo);
            bench.follow(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]);
            bench.until_idle().await;
            assert_eq!(bench.states(), ["do dry_run", "do dry_run", "do limited over its limit"]);
            bench.follow(&[("a", 1, -1), ("c", 1, -1)]);
            bench.until_idle().await;
            let mut states = bench.states();
            states.sort();
            let mut expected = ["do dry_run", undone, "undo skipped withdrawn before it was done"];
            expected.sort_unstable();
            assert_eq!(states, expected);
            assert!(bench.seen().is_empty());
        }
        let mut manual = Bench::dry(ActionOptions { manual: true, ..options }, false);
        manual.follow(&[("a", 1, 1)]);
        manual.until_idle().await;
        assert_eq!(manual.states(), ["do dry_run"]);
    }

    #[tokio::test]
    async fn only_what_may_have_been_done_is_undone() {
        let unclear = Answer::Unclear;
        let cases: [(&[Answer], &[&str], &str); 4] = [
            (&[unclear, Answer::Refuses], &["do a1", "do a1", "undo a1"], "undo undone"),
            (&[unclear, Answer::Later(60_000)], &["do a1", "do a1"], "undo pending"),
            (&[Answer::Refuses], &["do a1"], "undo skipped withdrawn before it was done"),
            (&[Answer::Unreachable, Answer::Refuses], &["do a1", "do a1"], "undo skipped withdrawn before it was done"),
        ];
        for (answers, seen, state) in cases {
            let mut bench = Bench::new(&[("do a1", answers)]);
            bench.follow(&[("a", 1, 1)]);
            bench.until_seen(answers.len()).await;
            bench.follow(&[("a", 1, -1)]);
            bench.until_seen(seen.len()).await;
            assert_eq!(bench.seen(), seen);
            // Behind it stands what the other side had said, where that was known by then.
            assert!(bench.states()[0].starts_with(state), "{:?}", bench.states());
        }
    }

    /// The log holds all that it is told, at once.
    fn kept_log() -> (Journal, Arc<Mutex<Vec<ActionRecord>>>) {
        let (notes, mut noted) = tokio::sync::mpsc::unbounded_channel();
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        tokio::spawn(async move {
            while let Some(Note { record, durable }) = noted.recv().await {
                kept.lock().push(record);
                let _ = durable.map(|durable| durable.send(()));
            }
        });
        (Journal::new(Some(notes)), records)
    }

    #[tokio::test]
    async fn a_restart_knows_what_may_have_been_done_by_an_attempt_before_the_last() {
        let (journal, records) = kept_log();
        let mut bench = Bench::asleep(&[("do a1", &[Answer::Unclear, Answer::UnreachableAfterAWhile])], None, false, journal);
        bench.follower.wake();
        bench.follow(&[("a", 1, 1)]);
        bench.until_seen(2).await;
        bench.follow(&[("a", 1, -1)]);
        bench.until_idle().await;
        assert_eq!(bench.seen(), ["do a1", "do a1", "undo a1"]);
        // The engine ended before it said that it would undo.
        let is_undo = |record: &ActionRecord| matches!(record.event, ActionEvent::Intent { kind: ActionKind::Undo, .. });
        let records: Vec<ActionRecord> = records.lock().iter().take_while(|record| !is_undo(record)).cloned().collect();
        let (intent, outcome) = records.split_at(1);
        let mut next = Bench::asleep(&[], None, false, Journal::default());
        next.follow(&[("a", 1, 1)]);
        intent.iter().for_each(|record| next.follower.repeat(record, 20));
        next.follow(&[("a", 1, -1)]);
        outcome.iter().for_each(|record| next.follower.repeat(record, 20));
        next.follower.wake();
        next.until_idle().await;
        assert_eq!((next.seen(), next.states()), (vec!["undo a1".to_string()], vec!["undo undone".to_string()]));
    }

    #[tokio::test]
    async fn a_restart_knows_when_each_was_settled() {
        let (journal, records) = kept_log();
        let mut bench = Bench::asleep(&[("do b1", &[Answer::Refuses])], None, false, journal);
        bench.follower.wake();
        let findings = [("a", 1, 1), ("b", 1, 1)];
        bench.follow(&findings);
        bench.until_idle().await;
        // Long enough to tell, and for the log to hold it.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut next = Bench::asleep(&[], None, false, Journal::default());
        next.follow(&findings);
        records.lock().iter().for_each(|record| next.follower.repeat(record, 20));
        let settled = |bench: &Bench| -> Vec<Option<u64>> { bench.log.of_action("hold").iter().map(|entry| entry.settled_ms).collect() };
        assert_eq!((next.states(), settled(&next)), (bench.states(), settled(&bench)));
        assert!(settled(&bench).len() == 2 && settled(&bench).iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn a_failure_after_a_restart_says_nothing_of_the_attempt_before_it() {
        let intent = ActionEvent::Intent {
            request: 1,
            kind: ActionKind::Do,
            row: r#"{"entity":"a","n":1}"#.to_string(),
            previous: None,
            tick: 20,
            at_ms: 0,
        };
        let mut bench = Bench::asleep(&[("do a1", &[Answer::Later(200)])], None, false, Journal::default());
        bench.follow(&[("a", 1, 1)]);
        let id = bench.log.rows()["id"].as_string::<i32>().value(0).to_string();
        bench.follower.repeat(&ActionRecord { action: "hold".into(), id, event: intent }, 20);
        bench.follower.wake();
        bench.until_seen(1).await;
        bench.follow(&[("a", 1, -1)]);
        bench.until_idle().await;
        assert_eq!(bench.seen(), ["do a1", "undo a1"]);
        assert_eq!(bench.states(), ["undo undone"]);
    }

    #[tokio::test]
    async fn the_newest_takes_the_place_of_what_waits() {
        let mut bench = Bench::new(&[("do a1", &[Answer::Later(200)]), ("do b1", &[Answer::Later(200)])]);
        bench.follow(&[("a", 1, 1), ("b", 1, 1)]);
        bench.until_seen(2).await;
        assert_eq!(bench.states(), ["do pending as scripted", "do pending as scripted"]);
        bench.follow(&[("a", 1, -1), ("b", 1, -1), ("b", 2, 1), ("c", 1, 1)]);
        bench.until_idle().await;
        assert_eq!(bench.seen(), ["do a1", "do b1", "do c1", "do b2"]);
        assert_eq!(bench.states(), ["undo skipped withdrawn before it was done", "do done", "do done"]);
    }

    #[tokio::test]
    async fn a_withdrawal_waits_for_the_request_on_its_way() {
        let mut bench = Bench::new(&[("do a1", &[Answer::HangsAWhile])]);
        bench.follow(&[("a", 1, 1)]);
        bench.until_seen(1).await;
        bench.follow(&[("a", 1, -1)]);
        bench.follow(&[("a", 1, 1)]);
        assert_eq!(bench.states(), ["undo pending", "do pending"]);
        bench.until_idle().await;
        assert_eq!(bench.seen(), ["do a1", "undo a1", "do a1"]);
        assert_eq!(bench.states(), ["undo undone", "do done"]);
    }

    #[tokio::test]
    async fn findings_go_at_once_within_bounds_and_are_seen_while_others_hang() {
        let names: Vec<String> = (0..40).map(|i| format!("e{i:02}_")).collect();
        let script: Vec<(String, [Answer; 1])> = names.iter().map(|name| (format!("do {name}1"), [Answer::HangsAWhile])).collect();
        let script: Vec<(&str, &[Answer])> = script.iter().map(|(key, answers)| (&key[..], &answers[..])).collect();
        let mut bench = Bench::new(&script);
        bench.follow(&names.iter().map(|name| (&name[..], 1, 1)).collect::<Vec<_>>());
        assert_eq!(bench.states(), vec!["do pending"; 40]);
        assert!(40 * 1024 < bench.backlog.bytes());
        bench.until_idle().await;
        assert_eq!(bench.states(), vec!["do done"; 40]);
        assert_eq!(bench.partner.in_flight_max.load(Ordering::SeqCst), 16);
    }

    #[tokio::test]
    async fn what_was_there_before_the_action_is_left_alone() {
        let mut bench = Bench::new(&[]);
        bench.follow_at(10, &[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)], Cause::Input);
        bench.follow(&[("a", 1, -1), ("b", 1, -1), ("b", 2, 1), ("c", 1, 1), ("d", 1, 1)]);
        bench.follow(&[("b", 2, -1), ("c", 1, -2)]);
        bench.until_idle().await;
        assert_eq!((bench.seen(), bench.states()), (vec!["do d1".to_string()], vec!["do done".to_string()]));
    }

    #[tokio::test]
    async fn what_a_new_definition_has_no_past_for_stays_done() {
        for is_past_whole in [true, false] {
            let mut bench = Bench::new(&[]);
            bench.follow(&[("a", 1, 1), ("b", 1, 1)]);
            bench.until_idle().await;
            bench.follow_at(20, &[("a", 1, -1), ("b", 1, -1), ("b", 2, 1), ("c", 1, 1)], Cause::Definition { is_past_whole });
            bench.until_idle().await;
            let of_a = if is_past_whole { "undo undone" } else { "do done" };
            assert_eq!(bench.states(), [of_a, "do done"]);
            // Found again by what comes later, it is another finding.
            bench.tick = 20;
            bench.follow(&[("a", 1, 1), ("b", 2, -1)]);
            bench.until_idle().await;
            assert_eq!(bench.states(), [of_a, "undo undone", "do done"]);
            assert_eq!(bench.follower.open.len(), 1);
        }
    }

    #[tokio::test]
    async fn what_may_have_been_asked_for_in_a_lost_log_waits_for_a_person() {
        let mut bench = Bench::asleep(&[], None, false, Journal::default());
        bench.follow(&[("a", 1, 1)]);
        bench.follower.outbox.disarm();
        bench.follower.wake();
        bench.follow(&[("b", 1, 1)]);
        bench.until_idle().await;
        let waits = "do awaiting_approval it may have been asked for in what the log lost: APPROVE ACTION, or create the action again";
        assert_eq!((bench.seen(), bench.states()), (Vec::new(), vec![waits.to_string(); 2]));
        let id = bench.log.rows()["id"].as_string::<i32>().value(0).to_string();
        bench.follower.decide(&id, Decision::Approve, 30);
        bench.until_idle().await;
        assert_eq!((bench.seen(), bench.states()), (vec!["do a1".to_string()], vec!["do done".to_string(), waits.to_string()]));
        let mut next = Bench::asleep(&[], None, false, Journal::default());
        next.follower.restore(bench.follower.state());
        next.follower.wake();
        next.tick = 40;
        next.follow(&[("c", 1, 1)]);
        next.until_idle().await;
        assert_eq!((next.seen(), next.states().last().cloned()), (Vec::new(), Some(waits.to_string())));
    }

    #[tokio::test]
    async fn a_stop_waits_for_nobody_for_ever() {
        let mut bench = Bench::new(&[("do a1", &[Answer::Hangs]), ("do b1", &[Answer::Later(60_000)])]);
        bench.follow(&[("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]);
        bench.follower.outbox.stop(Duration::from_millis(50)).await;
        let failed = "do failed the engine stopped, or the action was dropped";
        assert_eq!((bench.states(), bench.backlog.bytes()), (vec![failed.into(), failed.into(), "do done".to_string()], 0));
    }

    #[tokio::test]
    async fn without_an_undo_what_was_done_stays_and_that_is_said() {
        let mut bench = Bench::with(&[], None, true);
        bench.follow(&[("a", 1, 1)]);
        bench.until_idle().await;
        bench.follow(&[("a", 1, -1)]);
        assert_eq!(bench.states(), ["undo skipped withdrawn, but has no undo_url: what was done stays"]);
        assert_eq!((bench.seen(), bench.backlog.bytes()), (vec!["do a1".to_string()], 0));
    }

    #[tokio::test]
    async fn copies_raise_once_and_withdraw_once() {
        let mut bench = Bench::new(&[]);
        for change in [2, -1, 1, -1, -1] {
            bench.follow(&[("a", 1, change)]);
            bench.until_idle().await;
        }
        assert_eq!(bench.seen(), ["do a1", "undo a1"]);
    }

    #[test]
    fn a_changed_row_is_one_update() {
        let entities = [b"a".to_vec(), b"b".to_vec(), b"a".to_vec(), b"c".to_vec()];
        let steps = steps(&[-1, -1, 1, 1], Some(&entities));
        let kinds: Vec<(ActionKind, usize, Option<usize>)> = steps.iter().map(|step| (step.kind, step.row, step.replaces)).collect();
        assert_eq!(kinds, [(ActionKind::Undo, 1, None), (ActionKind::Update, 2, Some(0)), (ActionKind::Do, 3, None)]);
    }

    #[test]
    fn options_are_checked() {
        let options = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Options>();
        let taken = ActionOptions::take(&mut options(&[("mode", "dry_run"), ("limit", "10/minute")])).unwrap();
        assert_eq!(taken, ActionOptions { armed: false, manual: false, at_most_once: false, limit: Some((10, Duration::from_secs(60))) });
        assert!(ActionOptions::take(&mut options(&[("limit", "many")])).is_err());
        assert!(ActionOptions::take(&mut options(&[("approval", "maybe")])).unwrap_err().to_string().contains("'auto' or 'manual'"));
    }
}
