//! Nothing lost, nothing twice: scenarios by seed, each disk operation failing once, and rot.
//!
//! With the feature `seeded-bugs` also: bugs that are put in, each found.
//!
//! `TIDEGATE_SIM_SEEDS=10000` runs more, `TIDEGATE_SIM_FROM=9000` beside it only those from there on;
//! `TIDEGATE_SIM_SEED=17` replays one. Threads race, so a
//! replay has the same plan and the same faults, and may need several tries to meet the same end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_runtime::{Engine, Witness};
use tidegate_sim::disk::{Crash, Fault, SimDisk};
use tidegate_sim::machine::{Power, SimClock};
use tidegate_sim::process::{Process, Setting};
use tidegate_sim::scenario::{Failure, Report, SETUP, simulate, simulate_plan};
use tidegate_sim::schedule::{KEYS, Plan, START_MS};
use tidegate_sim::world::{Event, Ledger, World};
use tidegate_types::Disk;
use tidegate_types::error::Error;

#[path = "simulate/room.rs"]
mod room;
#[cfg(feature = "seeded-bugs")]
#[path = "simulate/seeded.rs"]
mod seeded;

const SEEDS: u64 = 200;
const FLIPS: u64 = 1000;

/// Scenarios at once: most of the time they wait for each other's threads, or for a full disk.
const AT_ONCE: usize = 6;

/// Cases between two lines about how far it is.
const PROGRESS_EVERY: usize = 500;

#[test]
fn scenarios_keep_every_promise() {
    let seeds: Vec<u64> = match number("TIDEGATE_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (number("TIDEGATE_SIM_FROM").unwrap_or(0)..number("TIDEGATE_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let reports = each(&seeds, |seed| simulate(*seed));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (boots, operations, looks) = (sum(|report| report.boots), sum(|report| report.operations), sum(|report| report.looks));
    println!("{} scenarios: {boots} boots, {operations} disk operations, {looks} looks", seeds.len());
}

#[test]
fn any_disk_operation_may_fail_once() {
    let faults = [Fault::Error, Fault::Full, Fault::Crash(Crash::PowerCut), Fault::Crash(Crash::Kill)];
    let (calm, _) = simulate_plan(Plan::reference(None)).unwrap_or_else(|failure| panic!("{failure}"));
    let cases: Vec<(u64, Fault)> = (1..=calm.exposed).flat_map(|n| faults.map(|fault| (n, fault))).collect();
    each(&cases, |case| {
        simulate_plan(Plan::reference(Some(*case))).map_err(|failure| Failure { what: format!("{case:?}: {}", failure.what), ..failure })
    });
    println!("{} operations, each failing in {} ways", calm.exposed, faults.len());
}

/// Each flipped bit of a finished run's folder is refused by the file's name, at the start or where
/// the row is needed that it is in, or changes nothing.
#[test]
fn no_rot_goes_unnoticed() {
    let rest = Rest::new();
    let calm = rest.state(&rest.disk, false).expect("nothing is wrong with it");
    let flips = number("TIDEGATE_SIM_FLIPS").unwrap_or(FLIPS);
    let outcomes = each(&(0..flips).collect::<Vec<_>>(), |flip| {
        let (path, bit) = rest.place(*flip);
        let disk = rest.disk.copy(&Power::default());
        disk.flip(&path, bit);
        let verdict = verdict(rest.state(&disk, false), &path, &calm);
        verdict.map_err(|what| Failure { seed: *flip, what: format!("bit {bit} of {}: {what}", path.display()), story: Vec::new() })
    });
    let refused = outcomes.iter().filter(|outcome| **outcome).count();
    println!("{flips} flipped bits: {refused} refused, {} without an effect", outcomes.len() - refused);
}

/// A file that somebody removes is missed at the start, or where its rows are needed, or nothing is missed.
#[test]
fn no_missing_file_goes_unnoticed() {
    let rest = Rest::new();
    let calm = rest.state(&rest.disk, false).expect("nothing is wrong with it");
    let mut refused = Vec::new();
    for (path, _) in &rest.files {
        let disk = rest.disk.copy(&Power::default());
        disk.remove(path).unwrap();
        match rest.state(&disk, false) {
            Ok(state) => assert_eq!(state, calm, "without {}", path.display()),
            Err(_) => refused.push(path),
        }
    }
    let segments = rest.files.iter().map(|(path, _)| path).filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let segments: Vec<_> = segments.collect();
    assert!(1 < segments.len(), "there is but one segment");
    let unnoticed: Vec<_> = segments.iter().filter(|segment| !refused.contains(segment)).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
    println!("{} of {} files are missed", refused.len(), rest.files.len());
}

/// Whether rot was refused. Errors: it was neither that nor harmless.
fn verdict(state: Result<State, String>, path: &Path, calm: &State) -> Result<bool, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match state {
        Err(refusal) if refusal.contains(&*name) => Ok(true),
        Err(refusal) => Err(format!("refused without its name: {refusal}")),
        Ok(state) if state == *calm => Ok(false),
        Ok(state) => Err(format!("{state:?} instead of {calm:?}")),
    }
}

/// Whoever accepts the loss goes on from some earlier tick, and what is left is whole. That is for the
/// newest segment: what is behind a snapshot is rows alone.
#[test]
fn what_is_lost_to_rot_can_be_given_up() {
    let rest = Rest::new();
    let (path, length) = rest.files.iter().rfind(|(path, _)| path.extension().is_some_and(|ending| ending == "log")).expect("a segment");
    for bit in (0..8 * length).step_by(1999) {
        let disk = rest.disk.copy(&Power::default());
        disk.flip(path, bit);
        rest.state(&disk.copy(&Power::default()), false).expect_err("it is damaged");
        let begun = rest
            .state(&disk, true)
            .unwrap_or_else(|error| panic!("bit {bit} of {} ({length} bytes): {error}; {:?}", path.display(), rest.files));
        let next = rest.state(&disk.copy(&Power::default()), false).expect("what is left is whole");
        assert_eq!(begun, next, "bit {bit} of {}", path.display());
        let is_kept = |(path, length): &(PathBuf, u64)| path.extension().is_some_and(|ending| ending == "lost") && 0 < *length;
        assert!(disk.files().iter().any(is_kept), "bit {bit} of {}: what was cut off is gone", path.display());
    }
}

/// A damaged snapshot is passed over, if that is accepted, for what is older: nothing is lost where all of that is there.
#[test]
fn a_damaged_snapshot_can_be_passed_over() {
    let rest = Rest::new();
    let calm = rest.state(&rest.disk.copy(&Power::default()), false).expect("nothing is wrong with it");
    let mut snapshots = rest.files.iter().filter(|(path, _)| path.extension().is_some_and(|ending| ending == "snapshot"));
    let (path, length) = snapshots.next_back().expect("a snapshot");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for bit in (0..8 * length).step_by(*length as usize) {
        let disk = rest.disk.copy(&Power::default());
        disk.flip(path, bit);
        let refusal = rest.state(&disk.copy(&Power::default()), false).expect_err("it is damaged");
        assert!(refusal.contains(&*name) && refusal.contains("--accept-loss"), "bit {bit}: {refusal}");
        let begun = rest.state(&disk, true).unwrap_or_else(|error| panic!("bit {bit}: {error}; {:?}", rest.files));
        assert_eq!(begun, calm, "bit {bit}");
        let next = rest.state(&disk.copy(&Power::default()), false).expect("nobody finds it any more");
        assert_eq!(next, calm, "bit {bit}");
    }
    let (first, _) = rest.files.iter().find(|(path, _)| path.extension().is_some_and(|ending| ending == "log")).expect("a segment");
    let disk = rest.disk.copy(&Power::default());
    disk.flip(path, 0);
    disk.remove(first).unwrap();
    let refusal = rest.state(&disk, true).expect_err("nothing older is there");
    assert!(refusal.contains(&*name) && refusal.contains(&*first.file_name().unwrap_or_default().to_string_lossy()), "{refusal}");
}

/// Rows of each relation that is there.
type State = BTreeMap<String, Vec<String>>;

/// What a finished run left.
struct Rest {
    disk: SimDisk,
    files: Vec<(PathBuf, u64)>,
}

impl Rest {
    fn new() -> Self {
        let (_, disk) = simulate_plan(Plan::reference(None)).unwrap_or_else(|failure| panic!("{failure}"));
        // One more start and stop, so that nothing is left behind the last commit.
        let rest = Self { disk: disk.copy(&Power::default()), files: Vec::new() };
        rest.state(&rest.disk, false).expect("nothing is wrong with it");
        let disk = rest.disk.copy(&Power::default());
        Self { files: disk.files(), disk }
    }

    /// A bit, each as likely as any other.
    fn place(&self, seed: u64) -> (PathBuf, u64) {
        let total: u64 = self.files.iter().map(|(_, length)| length).sum();
        let mut bit = StdRng::seed_from_u64(seed).random_range(0..8 * total);
        for (path, length) in &self.files {
            match bit.checked_sub(8 * length) {
                Some(behind) => bit = behind,
                None => return (path.clone(), bit),
            }
        }
        unreachable!("a bit within all lengths")
    }

    /// What an engine shows that starts on the disk. Errors: why it does not.
    fn state(&self, disk: &SimDisk, accept_loss: bool) -> Result<State, String> {
        let (world, clock) = (World::seeded(0), Arc::new(SimClock::new(START_MS)));
        world.calm();
        let process =
            Process::start(disk, &world, &clock, Setting { accept_loss, ..Setting::driven(1) }).map_err(|error| error.to_string())?;
        let text = |error: Option<Error>| error.map_or_else(|| "the power went".to_string(), |error| error.to_string());
        let state = process.ask(disk, Self::read_all_history).and_then(|()| {
            let relations = process.engine.relations();
            let kept = relations.iter().filter(|relation| relation.readable && !relation.kind.starts_with("system"));
            process.rows(disk, &kept.map(|relation| &relation.name[..]).collect::<Vec<_>>())
        });
        let stopped = process.ask(disk, async |engine| engine.shutdown().await);
        process.end();
        stopped.map_err(text).and(state.map_err(text))
    }

    /// Views that are born now need all rows that sources ever brought.
    async fn read_all_history(engine: &Engine) -> Result<(), Error> {
        for source in ["events", "posts"] {
            let view = format!("CREATE OR REPLACE MATERIALIZED VIEW all_{source} AS SELECT id, key, amount FROM {source}");
            if engine.relations().iter().any(|relation| relation.name == source) {
                engine.execute(&view, "sim").await?;
            }
        }
        Ok(())
    }
}

/// I5: what a tick changes does not depend on how many workers compute it.
#[test]
fn ticks_say_the_same_for_any_number_of_workers() {
    let counts: Vec<usize> = (1..=4).collect();
    let ledgers = counts.iter().map(|workers| ledgers(*workers));
    let ledgers: Vec<_> = ledgers.collect();
    assert!(ledgers[0].iter().all(|ledger| 20 < ledger.ticks.len()), "{ledgers:?}");
    for (workers, other) in counts.iter().zip(&ledgers) {
        for (one, other) in ledgers[0].iter().zip(other) {
            assert_eq!(one.ticks, other.ticks, "1 and {workers} workers");
        }
    }
}

/// What is written to the ledgers of one run, rows pushed one tick after the other.
fn ledgers(workers: usize) -> [Ledger; 2] {
    let power = Power::default();
    let (disk, world, clock) = (SimDisk::seeded(0, &power), World::seeded(0), Arc::new(SimClock::new(START_MS)));
    world.calm();
    let process = Process::start(&disk, &world, &clock, Setting::driven(workers)).expect("an empty disk");
    let done = process.ask(&disk, async |engine| {
        // Without actions: what they say takes ticks of its own, whenever it comes.
        for (_, statement) in &SETUP[..11] {
            engine.execute(statement, "sim").await?;
        }
        for (i, rows) in pushes(&mut StdRng::seed_from_u64(0)).into_iter().enumerate() {
            clock.step(if i % 5 == 4 { -1000 } else { 10 });
            engine.push("events", rows).await?;
            let statement = match i {
                0..5 => format!("INSERT INTO limits VALUES ('{}', {})", KEYS[i], 20 * i),
                _ => format!("UPDATE limits SET most = {} WHERE key = '{}'", i * 7 % 100, KEYS[i % 5]),
            };
            engine.execute(&statement, "sim").await?;
        }
        engine.shutdown().await
    });
    process.end();
    done.expect("nothing goes wrong");
    ["totals", "findings"].map(|name| world.ledger(name))
}

/// Batches of some rows each for the feed.
fn pushes(random: &mut StdRng) -> Vec<RecordBatch> {
    let column = |name: &str, kind| Field::new(name, kind, true);
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        column("id", DataType::Int64),
        column("key", DataType::Utf8),
        column("amount", DataType::Int64),
        column("ts", time),
    ]));
    let mut event = |id: i64| {
        let key = KEYS[random.random_range(0..KEYS.len())].to_string();
        Event { id, key, amount: random.random_range(0..100), ts: START_MS as i64 + id - random.random_range(0..2000) }
    };
    (0..30).map(|push| Event::batch(&schema, &(0..6).map(|i| event(6 * push + i)).collect::<Vec<_>>())).collect()
}

/// The same seed asks the same of the disk, where nobody's threads race: what the harness is worth.
#[test]
fn the_same_seed_leaves_the_same_trace() {
    let trace = |seed| {
        let power = Power::default();
        let (disk, world, clock) = (SimDisk::seeded(seed, &power), World::seeded(seed), Arc::new(SimClock::new(START_MS)));
        let process = Process::start(&disk, &world, &clock, Setting { seed, ..Setting::driven(2) }).expect("an empty disk");
        let done = process.ask(&disk, async |engine| {
            for (_, statement) in &SETUP[..8] {
                engine.execute(statement, "sim").await?;
            }
            for rows in pushes(&mut StdRng::seed_from_u64(seed)) {
                clock.step(10);
                engine.push("events", rows).await?;
            }
            engine.shutdown().await
        });
        process.end();
        done.expect("nothing goes wrong");
        disk.trace()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// A folder that the engine made outlives a power cut, as all that was acknowledged in it.
#[test]
fn a_new_folder_outlives_a_power_cut() {
    for seed in 0..20 {
        let power = Power::default();
        let (disk, world, clock) = (SimDisk::seeded(seed, &power), World::seeded(seed), Arc::new(SimClock::new(START_MS)));
        let process = Process::start(&disk, &world, &clock, Setting::driven(1)).expect("an empty disk");
        let done = process.ask(&disk, async |engine| engine.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)", "sim").await);
        process.end();
        done.expect("nothing goes wrong");
        let disk = disk.reboot(&power, Crash::PowerCut);
        let process = Process::start(&disk, &world, &clock, Setting::driven(1)).expect("a whole folder");
        let rows = process.rows(&disk, &["t"]);
        process.end();
        assert!(rows.is_ok(), "seed {seed}: {rows:?}");
    }
}

/// A view that is created, or replaced, over rows that the disk does not give: it is refused, or the engine
/// ends. What is acknowledged after that is as durable as ever, and nobody sees half of the rows.
#[test]
fn a_statement_that_cannot_read_the_log_costs_nothing_else() {
    let created = "CREATE MATERIALIZED VIEW top AS SELECT key, max(amount) AS top FROM events GROUP BY key";
    let replaced = "CREATE OR REPLACE MATERIALIZED VIEW mirror AS SELECT id, key, amount FROM events WHERE 0 <= amount";
    let reader = "CREATE MATERIALIZED VIEW reader AS SELECT id FROM mirror";
    let mut refused = 0;
    for (statement, n) in [created, replaced].into_iter().flat_map(|statement| (1..=6).map(move |n| (statement, n))) {
        let power = Power::default();
        let (disk, world, clock) = (SimDisk::seeded(n, &power), World::seeded(n), Arc::new(SimClock::new(START_MS)));
        let process = Process::start(&disk, &world, &clock, Setting::driven(2)).expect("an empty disk");
        let mut pushes = pushes(&mut StdRng::seed_from_u64(n)).into_iter();
        let mut push = || pushes.next().expect("there are thirty");
        let [first, second] = [push(), push()];
        let begun = process.ask(&disk, async |engine| {
            for statement in SETUP[..6].iter().map(|(_, statement)| *statement).chain([reader]) {
                engine.execute(statement, "sim").await?;
            }
            engine.push("events", first).await
        });
        begun.expect("nothing goes wrong yet");
        let rows = |process: &Process, disk| process.rows(disk, &["mirror", "reader", "events_late"]);
        let before = rows(&process, &disk).expect("nothing goes wrong yet");
        disk.fail_at(n, Fault::Error);
        refused += u64::from(process.ask(&disk, async |engine| engine.execute(statement, "sim").await).is_err());
        if let Ok(now) = rows(&process, &disk) {
            assert_eq!(now, before, "{statement}: operation {n}");
        }
        let acknowledged = process.ask(&disk, async |engine| engine.push("events", second).await).is_ok();
        process.end();
        let disk = disk.reboot(&power, Crash::PowerCut);
        let process = Process::start(&disk, &world, &clock, Setting::driven(2)).expect("the log is whole");
        let after = rows(&process, &disk).expect("nothing goes wrong any more");
        process.end();
        let count = |rows: &State| rows["mirror"].len() + rows["events_late"].len();
        let owed = count(&before) + if acknowledged { 6 } else { 0 };
        assert!(owed <= count(&after), "{statement}: operation {n}: {before:?}, then {after:?}");
        assert_eq!(after["mirror"].len(), after["reader"].len(), "{statement}: operation {n}");
    }
    assert!(4 < refused, "{refused} statements met the fault");
}

/// A row that makes a worker panic is back in the dead letters after four starts, alone, whatever else
/// its tick held; and it stays there.
#[test]
fn a_row_that_a_worker_fails_on_is_put_aside() {
    say_what_runs_when_the_process_ends();
    let poison: Witness = Arc::new(|relation, delta| {
        let ids = delta.rows.column_by_name("id").and_then(|ids| ids.as_primitive_opt::<Int64Type>());
        let is_met = relation == "events" && ids.is_some_and(|ids| ids.values().contains(&POISON));
        assert!(!is_met, "this row is poison");
    });
    for (seed, workers) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
        let power = Power::default();
        let (disk, world, clock) = (SimDisk::seeded(seed, &power), World::seeded(seed), Arc::new(SimClock::new(START_MS)));
        let start = |disk: &SimDisk| Process::watched(disk, &world, &clock, Setting::driven(workers), Some(Arc::clone(&poison)));
        let batches = pushes(&mut StdRng::seed_from_u64(seed));
        let process = start(&disk).expect("an empty disk");
        let failed = process.ask(&disk, async |engine| {
            for (_, statement) in &SETUP[..6] {
                engine.execute(statement, "sim").await?;
            }
            for rows in batches {
                clock.step(10);
                engine.push("events", rows).await?;
            }
            Ok(())
        });
        process.end();
        assert!(failed.is_err(), "seed {seed}: the poison was not met");
        let (mut starts, mut disk) = (0, disk);
        let rows = loop {
            starts += 1;
            disk = disk.reboot(&power, Crash::Kill);
            let process = start(&disk).expect("the log is whole");
            let rows = process.rows(&disk, &["mirror", "per_key", "sys.dead_letter"]);
            process.end();
            match rows {
                Ok(rows) => break rows,
                Err(error) => assert!(starts < 4, "seed {seed}: {error:?}"),
            }
        };
        let letters = &rows["sys.dead_letter"];
        assert!(letters.len() == 1 && letters[0].contains("this row is poison"), "seed {seed}: {letters:?}");
        // All rows of the pushes up to the poison's, on time or late, but for the poison.
        let disk = disk.reboot(&power, Crash::Kill);
        let process = start(&disk).expect("the log is whole");
        let mut again = process.rows(&disk, &["mirror", "per_key", "sys.dead_letter", "events_late"]).expect("nothing fails any more");
        process.end();
        let late = again.remove("events_late").unwrap_or_default();
        assert_eq!(again["mirror"].len() + late.len(), (POISON as usize / 6 + 1) * 6 - 1, "seed {seed}: {again:?}");
        assert_eq!(again, rows, "seed {seed}");
    }
}

const POISON: i64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs all, a few at once; names each that failed.
fn each<T: Sync + Debug, R: Send>(cases: &[T], run: impl Fn(&T) -> Result<R, Failure> + Sync) -> Vec<R> {
    say_what_runs_when_the_process_ends();
    let (next, done, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let fail = |failure: String| {
        // Past the capture of test output: a long run says at once what it finds.
        let _ = writeln!(std::io::stderr(), "{failure}");
        failures.lock().push(failure);
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    RUNNING.lock().insert(format!("{case:?}"));
                    match std::panic::catch_unwind(AssertUnwindSafe(|| run(case))) {
                        Ok(Ok(report)) => {
                            let mut done = done.lock();
                            done.push(report);
                            if done.len().is_multiple_of(PROGRESS_EVERY) {
                                println!("{} of {}", done.len(), cases.len());
                            }
                        }
                        Ok(Err(failure)) => fail(failure.to_string()),
                        Err(panic) => fail(format!("{case:?}: panicked: {:?}", panic.downcast_ref::<String>())),
                    }
                    RUNNING.lock().remove(&format!("{case:?}"));
                }
            });
        }
    });
    let failures = failures.into_inner();
    let firsts: Vec<&str> = failures.iter().filter_map(|failure| failure.lines().next()).collect();
    assert!(failures.is_empty(), "{} of {} failed, as said above:\n{}", failures.len(), cases.len(), firsts.join("\n"));
    done.into_inner()
}

static RUNNING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A panic on a thread that no test waits for says which seeds were running.
fn say_what_runs_when_the_process_ends() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            usual(info);
            // Past the capture of test output, which would be lost.
            let _ = writeln!(std::io::stderr(), "{info}\nrunning: {:?}", *RUNNING.lock());
        }));
    });
}
