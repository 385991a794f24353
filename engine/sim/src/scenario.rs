//! Carries out a plan: one engine after the other on one machine, whatever happens to it, and the
//! oracle asked at each look and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_runtime::{Engine, Response, Snapshot};
use tidegate_types::error::Error;

use crate::disk::{Crash, SimDisk};
use crate::machine::{Power, SimClock};
use crate::oracle::{LATE_VIEW, Look, Oracle, hold, sorted};
use crate::owed::{self, Request};
use crate::process::{FOLDER, Process, SOON, Setting};
use crate::schedule::{BootPlan, Plan, START_MS, Step};
use crate::world::{Event, World, rows_as_text};

/// What a scenario went through.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub boots: u64,
    /// Disk operations.
    pub operations: u64,
    /// Those before nothing went wrong any more.
    pub exposed: u64,
    pub looks: u64,
    /// Hash of all disk operations.
    pub trace: String,
}

/// A promise that was broken, and what led to it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}\n  {}", self.seed, self.what, self.story.join("\n  "))
    }
}

/// Boots in a row that may fail before the machine gets a calm one.
const NESTED_MAX: u32 = 3;

/// Where so many ticks, in so long, change nothing of what is missing, it will not come.
const STALLED_TICKS: u32 = 100;
const STALLED: Duration = Duration::from_secs(5);

const DETECTION: &str = "CREATE OR REPLACE DETECTION excess WITH (entity = 'id') AS SELECT e.id, e.key, e.amount, l.most \
                         FROM events e JOIN limits l ON e.key = l.key WHERE l.most < e.amount";

/// The relations, sinks and actions of every scenario, by name.
pub const SETUP: [(&str, &str); 14] = [
    (
        "events",
        "CREATE SOURCE events (id BIGINT, key TEXT, amount BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1 seconds') \
         WITH (connector = 'feed')",
    ),
    ("posts", "CREATE SOURCE posts (id BIGINT, key TEXT, amount BIGINT) WITH (connector = 'door')"),
    ("limits", "CREATE TABLE limits (key TEXT PRIMARY KEY, most BIGINT)"),
    ("mirror", "CREATE MATERIALIZED VIEW mirror AS SELECT id, key, amount FROM events"),
    ("posted", "CREATE MATERIALIZED VIEW posted AS SELECT id, key, amount FROM posts"),
    ("per_key", "CREATE MATERIALIZED VIEW per_key AS SELECT key, count(*) AS n, sum(amount) AS total FROM events GROUP BY key"),
    ("joined", "CREATE MATERIALIZED VIEW joined AS SELECT p.id, p.key, p.amount, l.most FROM posts p JOIN limits l ON p.key = l.key"),
    ("excess", DETECTION),
    ("totals", "CREATE SINK totals FROM per_key WITH (connector = 'ledger')"),
    ("findings", "CREATE SINK findings FROM excess WITH (connector = 'ledger')"),
    ("matches", "CREATE SINK matches FROM joined WITH (connector = 'scroll')"),
    ("hold", "CREATE ACTION hold FROM excess WITH (connector = 'clerk')"),
    ("strike", "CREATE ACTION strike FROM excess WITH (connector = 'striker', delivery = 'at_most_once')"),
    ("warn", "CREATE ACTION warn FROM excess WITH (connector = 'clerk', limit = '2/day')"),
];

/// Runs the scenario of a seed. Errors: a broken promise, or an engine that does not go on.
pub fn simulate(seed: u64) -> Result<Report, Failure> {
    Scenario::new(Plan::seeded(seed)).run()
}

/// Runs a plan, and hands out the disk it leaves.
pub fn simulate_plan(plan: Plan) -> Result<(Report, SimDisk), Failure> {
    let mut scenario = Scenario::new(plan);
    let report = scenario.run()?;
    Ok((report, scenario.disk))
}

struct Scenario {
    plan: Plan,
    power: Power,
    disk: SimDisk,
    world: World,
    clock: Arc<SimClock>,
    process: Option<Process>,
    oracle: Oracle,
    /// Nothing goes wrong any more.
    is_calm: bool,
    report: Report,
    story: Vec<String>,
}

impl Scenario {
    fn new(plan: Plan) -> Self {
        let power = Power::default();
        let world = World::seeded(plan.seed);
        if !plan.is_troubled {
            world.calm();
        }
        let disk = SimDisk::seeded(plan.seed, &power);
        disk.mount(Path::new(FOLDER));
        Self {
            disk,
            world,
            clock: Arc::new(SimClock::new(START_MS)),
            process: None,
            oracle: Oracle::default(),
            is_calm: false,
            report: Report::default(),
            story: Vec::new(),
            power,
            plan,
        }
    }

    fn run(&mut self) -> Result<Report, Failure> {
        let done = self.play();
        if let Some(process) = self.process.take() {
            process.end();
        }
        done.map_err(|what| Failure { seed: self.plan.seed, what, story: std::mem::take(&mut self.story) })?;
        (self.report.operations, self.report.trace) = (self.disk.operations(), self.disk.trace());
        Ok(self.report.clone())
    }

    fn play(&mut self) -> Result<(), String> {
        for (name, statement) in SETUP {
            self.carry_out(statement, |scenario| scenario.stands(name, None))?;
        }
        for step in self.plan.steps.clone() {
            self.tell(format!("{step:?}"));
            self.step(step)?;
            self.unbroken()?;
        }
        self.end()
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Feed(rows) => self.world.feed(rows),
            Step::Post(rows) => self.world.post(rows),
            Step::Limit(key, most) => return self.limit(&key, most),
            Step::Rearm(bias) => return self.rearm(bias),
            Step::LateView => {
                let statement =
                    format!("CREATE OR REPLACE MATERIALIZED VIEW {LATE_VIEW} AS SELECT key, max(amount) AS top FROM events GROUP BY key");
                self.carry_out(&statement, |scenario| scenario.stands(LATE_VIEW, None))?;
                self.oracle.has_late_view = true;
            }
            Step::DropLateView => {
                let statement = format!("DROP MATERIALIZED VIEW IF EXISTS {LATE_VIEW}");
                self.carry_out(&statement, |scenario| Ok(scenario.stands(LATE_VIEW, None)?.map(|stands| !stands)))?;
                self.oracle.has_late_view = false;
            }
            Step::Resolve => return self.resolve(),
            Step::Commit => drop(self.commit()?),
            Step::Checkpoint => drop(self.ask(async |engine| engine.execute("CHECKPOINT", "sim").await)?),
            Step::Look => drop(self.look()?),
            Step::Clock(by_ms) => self.clock.step(by_ms),
            Step::Crash(crash) => self.crash(crash),
            Step::Stop => self.stop()?,
            Step::Fault(n, fault) => self.disk.fail_at(n, fault),
            Step::Fill(left, refusals) => self.disk.fill(left, refusals),
        }
        Ok(())
    }

    /// Nothing goes wrong any more: all that is owed must come to be, also over a last restart.
    fn end(&mut self) -> Result<(), String> {
        self.is_calm = true;
        self.world.calm();
        self.disk.calm();
        self.report.exposed = self.disk.operations();
        self.settle()?;
        self.resolve()?;
        self.settle()?;
        self.stop()?;
        self.settle()
    }

    // The table: what it holds is known before the next step.
    fn limit(&mut self, key: &str, most: Option<i64>) -> Result<(), String> {
        let before = self.oracle.limits.clone();
        let mut after = before.clone();
        let statement = match (before.contains_key(key), most) {
            (false, Some(most)) => format!("INSERT INTO limits VALUES ('{key}', {most})"),
            (true, Some(most)) => format!("UPDATE limits SET most = {most} WHERE key = '{key}'"),
            (true, None) => format!("DELETE FROM limits WHERE key = '{key}'"),
            (false, None) => return Ok(()),
        };
        match most {
            Some(most) => drop(after.insert(key.to_string(), most)),
            None => drop(after.remove(key)),
        }
        self.carry_out(&statement, |scenario| scenario.table_is(&before, &after))?;
        self.oracle.limits = after;
        let on_time = self.on_time()?;
        self.oracle.limited(&on_time);
        Ok(())
    }

    /// A person looks at the striker's side, and says what became of what is in doubt.
    fn resolve(&mut self) -> Result<(), String> {
        let Some(requests) = self.requests()? else { return Ok(()) };
        for request in requests.into_iter().filter(|request| request.is_doubt() && request.is_plain()) {
            let held = self.world.clerk("strike").held.get(&request.id).cloned();
            let is_done = if request.kind == "undo" { held.is_none() } else { held.as_ref() == Some(&request.row) };
            self.tell(format!("-- {request:?}, done: {is_done}"));
            let statement = format!("RESOLVE ACTION '{}' AS {}", request.id, if is_done { "DONE" } else { "NOT DONE" });
            self.world.resolve("strike", &request.id);
            self.carry_out(&statement, |scenario| {
                let requests = scenario.requests()?;
                Ok(requests.map(|requests| !requests.iter().any(|other| other.id == request.id && other.is_doubt())))
            })?;
        }
        Ok(())
    }

    fn requests(&mut self) -> Result<Option<Vec<Request>>, String> {
        Ok(self.query(Request::QUERY)?.map(|rows| rows.iter().map(|row| Request::parse(row)).collect()))
    }

    /// Whether the table is as after the statement. Errors: it is neither so nor as before.
    fn table_is(&mut self, before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> Result<Option<bool>, String> {
        let Some(rows) = self.query("SELECT key, most FROM limits")? else { return Ok(None) };
        let as_text = |limits: &BTreeMap<String, i64>| limits.iter().map(|(key, most)| format!("{key}|{most}")).collect::<Vec<_>>();
        match () {
            () if rows == as_text(after) => Ok(Some(true)),
            () if rows == as_text(before) => Ok(Some(false)),
            () => Err(format!("limits is {rows:?}; it was {before:?}, to be {after:?}")),
        }
    }

    fn rearm(&mut self, bias: i64) -> Result<(), String> {
        self.settle_inputs()?;
        let (statement, fed) = (detection(bias), self.on_time()?);
        self.carry_out(&statement, |scenario| scenario.stands("excess", Some(&statement)))?;
        self.oracle.rearmed(bias, &fed);
        Ok(())
    }

    /// Runs the statement until it is done: after a crash `is_done` says whether it is (None: the
    /// process is down again).
    fn carry_out(&mut self, statement: &str, mut is_done: impl FnMut(&mut Self) -> Result<Option<bool>, String>) -> Result<(), String> {
        loop {
            if self.process.is_none() {
                self.boot()?;
                match is_done(self)? {
                    None => continue,
                    Some(true) => return Ok(()),
                    Some(false) => {}
                }
            }
            let text = statement.to_string();
            if self.ask(async move |engine| engine.execute(&text, "sim").await)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Whether there is something of that name, and with that definition.
    fn stands(&mut self, name: &str, definition: Option<&str>) -> Result<Option<bool>, String> {
        if let Some(definition) = definition {
            let Some(rows) = self.query("SELECT name, definition FROM sys.views")? else { return Ok(None) };
            return Ok(Some(rows.iter().any(|row| *row == format!("{name}|{definition}"))));
        }
        for list in ["SHOW RELATIONS", "SHOW SINKS", "SHOW ACTIONS"] {
            let Some(rows) = self.query(list)? else { return Ok(None) };
            if rows.iter().any(|row| row.split('|').next() == Some(name)) {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    fn query(&mut self, sql: &'static str) -> Result<Option<Vec<String>>, String> {
        let responses = self.ask(async move |engine| engine.execute(sql, "sim").await)?;
        let rows = |response: &Response| match response {
            Response::Rows { batches, .. } => batches.iter().flat_map(rows_as_text).collect(),
            Response::Done { .. } => Vec::new(),
        };
        Ok(responses.map(|responses| {
            let mut rows: Vec<String> = responses.iter().flat_map(rows).collect();
            rows.sort();
            rows
        }))
    }

    /// None: the process went down, and was to; nothing is known of the request.
    fn ask<T>(&mut self, request: impl AsyncFnOnce(&Engine) -> Result<T, Error>) -> Result<Option<T>, String> {
        if self.process.is_none() {
            self.boot()?;
        }
        let process = self.process.as_ref().expect("booted above");
        match process.ask(&self.disk, request) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if !self.disk.is_on() || self.disk.is_faulted() => {
                let error = error.map_or_else(|| "the power went".to_string(), |error| error.to_string());
                self.tell(format!("-- down: {error}"));
                self.crash(Crash::Kill);
                Ok(None)
            }
            // Refused before anything happened; that ticks go on is what finds out when there is room.
            Err(Some(error)) if error.message.contains("too full to take more in") => {
                drop(process.ask(&self.disk, async |engine| engine.commit().await));
                self.tell(format!("-- refused: {}", error.message));
                Ok(None)
            }
            Err(error) => {
                let error = error.map_or_else(|| "no answer".to_string(), |error| error.to_string());
                Err(format!("the engine fails by itself: {error}; its health: {}", process.engine.health().reason))
            }
        }
    }

    fn boot(&mut self) -> Result<(), String> {
        for attempt in 0.. {
            let planned = self.plan.boots.get(self.report.boots as usize).or(self.plan.boots.last());
            let BootPlan { workers, fault } = *planned.expect("a plan has a boot");
            self.report.boots += 1;
            self.disk = self.disk.reboot(&self.power, Crash::Kill);
            match fault {
                Some((n, fault)) if attempt < NESTED_MAX && !self.is_calm => self.disk.fail_at(n, fault),
                _ if NESTED_MAX <= attempt => self.disk.calm(),
                _ => {}
            }
            self.tell(format!("-- boot {} with {workers} workers, {fault:?}", self.report.boots));
            match self.start(workers) {
                Ok(()) => return Ok(()),
                Err(error) if !self.disk.is_on() || self.disk.is_faulted() => self.tell(format!("-- down: {error}")),
                Err(error) => return Err(format!("it does not start: {error}")),
            }
        }
        unreachable!("attempts have no end")
    }

    /// An engine that is through with its recovery, and reads its sources.
    fn start(&mut self, workers: usize) -> Result<(), String> {
        let Plan { is_driven, is_frugal, bug: seeded, .. } = self.plan;
        let setting = Setting { seed: self.plan.seed + self.report.boots, workers, is_driven, accept_loss: false, is_frugal, seeded };
        let process = Process::start(&self.disk, &self.world, &self.clock, setting).map_err(|error| error.to_string())?;
        let ready = process.ask(&self.disk, async |engine| {
            engine.start_sources().await?;
            engine.commit().await
        });
        match ready {
            Ok(tick) => {
                self.process = Some(process);
                self.oracle.committed(tick)
            }
            Err(error) => {
                process.end();
                Err(error.map_or_else(|| "the power went".to_string(), |error| error.to_string()))
            }
        }
    }

    fn crash(&mut self, crash: Crash) {
        self.disk.crash(crash);
        if let Some(process) = self.process.take() {
            process.end();
        }
    }

    fn stop(&mut self) -> Result<(), String> {
        if self.process.is_some() && self.ask(async |engine| engine.shutdown().await)?.is_some() {
            self.crash(Crash::PowerCut);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<bool, String> {
        match self.ask(async |engine| engine.commit().await)? {
            Some(tick) => self.oracle.committed(tick).map(|()| true),
            None => Ok(false),
        }
    }

    /// Reads all views at one tick, and holds them against the oracle.
    fn look(&mut self) -> Result<Option<(Look, Snapshot)>, String> {
        let (acknowledged, names) = (self.world.acknowledged(), self.oracle.relations());
        let Some(snapshot) = self.ask(async move |engine| engine.snapshot(&names).await)? else { return Ok(None) };
        self.report.looks += 1;
        let look = self.oracle.look(&self.world, &acknowledged, &snapshot)?;
        Ok(Some((look, snapshot)))
    }

    /// The feed's rows that were in time, of those that were read.
    fn on_time(&mut self) -> Result<Vec<Event>, String> {
        loop {
            if let Some((_, snapshot)) = self.look()? {
                let there: BTreeSet<String> = sorted(&snapshot.relations["mirror"]).into_iter().collect();
                return Ok(self.world.fed().into_iter().flatten().filter(|event| there.contains(&event.text())).collect());
            }
        }
    }

    /// Until all that waits in the world has been read.
    fn settle_inputs(&mut self) -> Result<(), String> {
        self.until(|scenario| {
            let look = if scenario.commit()? { scenario.look()? } else { None };
            Ok(look.map(|(look, _)| owed::is_read(&scenario.world, &look)))
        })
    }

    /// Until all that is owed has come to be.
    fn settle(&mut self) -> Result<(), String> {
        self.until(Self::owed)
    }

    /// Tries until nothing is missing (None: the process went down). Errors: what still is, when time is
    /// up, or when nothing comes of waiting.
    fn until(&mut self, mut missing: impl FnMut(&mut Self) -> Result<Option<Result<(), String>>, String>) -> Result<(), String> {
        let begun = Instant::now();
        let mut stall = Stall { missing: String::new(), since: begun, ticks: 0 };
        loop {
            match missing(self)? {
                Some(Ok(())) => return Ok(()),
                Some(Err(missing)) if SOON < begun.elapsed() || stall.lasts(&missing) => return Err(missing),
                None if SOON < begun.elapsed() => return Err("the process does not stay up".into()),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
            self.unbroken()?;
        }
    }

    /// What is still missing outside. None: the process went down.
    fn owed(&mut self) -> Result<Option<Result<(), String>>, String> {
        if !self.commit()? {
            return Ok(None);
        }
        let Some((look, snapshot)) = self.look()? else { return Ok(None) };
        let Some(requests) = self.requests()? else { return Ok(None) };
        let Some(process) = &self.process else { return Ok(None) };
        let (world, wanted) = (&self.world, self.oracle.wanted(&snapshot));
        let owed = owed::is_read(world, &look).and_then(|()| owed::is_written(world, &snapshot));
        let owed = owed.and_then(|()| owed::is_acted(world, &wanted, &requests));
        Ok(Some(owed.and_then(|()| owed::is_conserved(world, &process.engine.registry(), &look))))
    }

    fn unbroken(&self) -> Result<(), String> {
        let broken = self.world.broken();
        hold(broken.is_empty(), || broken.join("\n"))
    }

    fn tell(&mut self, line: String) {
        self.story.push(line);
    }
}

/// How long the same has been missing.
struct Stall {
    missing: String,
    since: Instant,
    ticks: u32,
}

impl Stall {
    /// After one more tick.
    fn lasts(&mut self, missing: &str) -> bool {
        if self.missing != missing {
            *self = Self { missing: missing.to_string(), since: Instant::now(), ticks: 0 };
        }
        self.ticks += 1;
        STALLED_TICKS < self.ticks && STALLED < self.since.elapsed()
    }
}

fn detection(bias: i64) -> String {
    format!("{DETECTION} + {bias}")
}
