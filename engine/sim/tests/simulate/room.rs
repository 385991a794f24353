//! Where the disk gives no room, or not back what it was given, while the engine runs: what does not need it goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tidegate_runtime::{Engine, Response};
use tidegate_sim::disk::{Crash, SimDisk};
use tidegate_sim::machine::{Power, SimClock};
use tidegate_sim::process::{Process, Setting};
use tidegate_sim::scenario::SETUP;
use tidegate_sim::schedule::START_MS;
use tidegate_sim::world::{Event, World};
use tidegate_types::Disk;
use tidegate_types::error::{Error, Fault};

use super::{State, pushes};

/// A machine with an engine, and nothing wrong with either.
struct Calm {
    power: Power,
    disk: SimDisk,
    world: World,
    clock: Arc<SimClock>,
    setting: Setting,
}

impl Calm {
    fn new(is_frugal: bool) -> Self {
        let power = Power::default();
        let (disk, world, clock) = (SimDisk::seeded(0, &power), World::seeded(0), Arc::new(SimClock::new(START_MS)));
        world.calm();
        Self { power, disk, world, clock, setting: Setting { is_frugal, ..Setting::driven(1) } }
    }

    fn start(&self) -> Result<Process, Error> {
        Process::start(&self.disk, &self.world, &self.clock, self.setting)
    }

    /// With sources that are read.
    fn set_up(&self) -> Process {
        let process = self.start().expect("an empty disk");
        let done = process.ask(&self.disk, async |engine| {
            for (_, statement) in &SETUP[..6] {
                engine.execute(statement, "sim").await?;
            }
            engine.start_sources().await
        });
        done.expect("nothing goes wrong yet");
        process
    }

    fn rows(&self, process: &Process) -> State {
        process.rows(&self.disk, &["mirror", "per_key", "events_late"]).expect("reads go on")
    }

    /// What is worth knowing of a statement.
    fn notices(&self, process: &Process, statement: &str) -> Vec<String> {
        let answered = process.ask(&self.disk, async |engine| engine.execute(statement, "sim").await);
        let answer = answered.expect("nothing goes wrong").pop().expect("one answer");
        let (Response::Done { notices, .. } | Response::Rows { notices, .. }) = answer;
        notices
    }

    /// Until so many are held for an action, and a while longer.
    fn until_held(&self, process: &Process, action: &str, count: usize) {
        let settled = process.ask(&self.disk, async |engine| {
            let mut ticks = 0;
            while ticks < TICKS_LONGER {
                engine.commit().await?;
                tokio::time::sleep(Duration::from_millis(1)).await;
                ticks = if self.world.clerk(action).held.len() == count { ticks + 1 } else { 0 };
            }
            Ok(())
        });
        settled.expect("it comes to that");
    }

    /// What another engine shows after the power went.
    fn restarted(&mut self, process: Process) -> State {
        process.end();
        self.disk = self.disk.reboot(&self.power, Crash::PowerCut);
        let process = self.start().expect("the log is whole");
        let rows = self.rows(&process);
        process.end();
        rows
    }

    /// Oldest first, with their lengths.
    fn snapshots(&self) -> Vec<(PathBuf, u64)> {
        let mut files = self.disk.files();
        files.retain(|(path, _)| path.extension().is_some_and(|ending| ending == "snapshot"));
        files
    }
}

/// In which what is wrong would show.
const TICKS_LONGER: u32 = 20;

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn where_no_file_can_be_made_only_snapshots_wait() {
    let mut calm = Calm::new(false);
    let process = calm.set_up();
    let mut pushes = pushes(&mut StdRng::seed_from_u64(0)).into_iter();
    let [first, second] = [(); 2].map(|()| pushes.next().expect("there are thirty"));
    let disk = calm.disk.clone();
    let done = process.ask(&calm.disk, async |engine| {
        engine.push("events", first).await?;
        disk.crowd(true);
        let asked = engine.clone();
        let snapshot = tokio::spawn(async move { asked.checkpoint().await });
        until(|| engine.health().reason.contains("no file can be made")).await;
        assert!(engine.health().ready, "input goes on");
        assert_eq!(engine.input_waits_for(), None);
        engine.push("events", second).await?;
        engine.execute("CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM events", "sim").await?;
        assert!(!snapshot.is_finished(), "it waits until files can be made");
        disk.crowd(false);
        snapshot.await.expect("it does not panic")?;
        until(|| engine.health().reason.is_empty()).await;
        Ok(())
    });
    done.expect("nothing fails for it");
    assert_eq!(calm.snapshots().len(), 1);
    let before = calm.rows(&process);
    assert_eq!(calm.restarted(process), before);
}

#[test]
fn who_asks_for_a_snapshot_is_told_what_it_waits_for() {
    let calm = Calm::new(false);
    let process = calm.set_up();
    let first = pushes(&mut StdRng::seed_from_u64(0)).into_iter().next().expect("there are thirty");
    let disk = calm.disk.clone();
    let done = process.ask(&calm.disk, async |engine| {
        engine.push("events", first).await?;
        disk.crowd(true);
        let error = engine.checkpoint().await.expect_err("no file can be made");
        assert!(error.fault == Fault::NoRoom && error.message.contains("no file can be made"), "{error}");
        disk.crowd(false);
        until(|| engine.health().reason.is_empty()).await;
        engine.checkpoint().await
    });
    done.expect("there is one in the end");
    assert!(!calm.snapshots().is_empty());
}

/// What came before is still with the operating system's memory, which is full, when the sink wants to read it.
#[test]
fn reads_go_on_where_the_disk_fills_up_as_a_sink_is_made() {
    let mut calm = Calm::new(false);
    let process = calm.set_up();
    let mut pushes = pushes(&mut StdRng::seed_from_u64(0)).into_iter();
    let first = pushes.next().expect("there are thirty");
    let disk = calm.disk.clone();
    let done = process.ask(&calm.disk, async |engine| {
        engine.execute("CREATE VIEW plain AS SELECT id, key, amount FROM events", "sim").await?;
        engine.push("events", first).await?;
        let event = Event { id: 1000, key: "a".into(), amount: 1, ts: START_MS as i64 + 1000 };
        let read = engine.metrics().source_received_rows.with_label_values(&["events"]);
        let known = read.get();
        calm.world.feed([Some(event)]);
        until(|| known < read.get()).await;
        disk.fill(0, u32::MAX);
        let asked = engine.clone();
        let sink = "CREATE SINK told FROM plain WITH (connector = 'scroll')";
        let made = tokio::spawn(async move { asked.execute(sink, "sim").await });
        until(|| !engine.health().ready).await;
        for _ in 0..10 {
            engine.snapshot(&["mirror".to_string()]).await?;
        }
        assert!(!made.is_finished(), "it waits for room");
        disk.calm();
        made.await.expect("it does not panic")?;
        let owed = engine.snapshot(&["mirror".to_string()]).await?.relations["mirror"].num_rows();
        until(|| calm.world.scroll("told").rows().len() == owed).await;
        Ok(())
    });
    done.expect("nothing fails for it");
    let before = calm.rows(&process);
    assert_eq!(calm.restarted(process), before);
}

/// All snapshots are damaged while the engine runs: the next one is made of the log, or, where that was trimmed,
/// it is said that there is none.
#[test]
fn a_snapshot_that_is_damaged_meanwhile_costs_nothing_that_is_still_there() {
    for is_frugal in [false, true] {
        let mut calm = Calm::new(is_frugal);
        let process = calm.set_up();
        let mut pushes = pushes(&mut StdRng::seed_from_u64(0)).into_iter();
        for rows in pushes.by_ref().take(3) {
            push_and_checkpoint(&calm, &process, rows).expect("nothing goes wrong yet");
        }
        let snapshots = calm.snapshots();
        let damage = || snapshots.iter().for_each(|(path, length)| calm.disk.flip(path, 8 * (length / 2)));
        damage();
        let taken = push_and_checkpoint(&calm, &process, pushes.next().expect("there are thirty"));
        if is_frugal {
            let (newest, _) = snapshots.last().expect("a snapshot");
            let name = newest.file_name().expect("it has one").to_string_lossy().into_owned();
            let error = taken.expect_err("what it had is nowhere else").expect("the power is on").to_string();
            let health = process.engine.health();
            assert!(error.contains(&name) && health.ready && health.reason.contains(&name), "{error}; {health:?}");
            assert_eq!(process.engine.metrics().snapshot_failures.get(), 1);
            damage();
            push_and_checkpoint(&calm, &process, pushes.next().expect("there are thirty")).expect("they are whole again");
        } else {
            taken.expect("all of it is in the log");
        }
        let is_well = process.ask(&calm.disk, async |engine| {
            until(|| engine.health().reason.is_empty()).await;
            Ok(())
        });
        is_well.expect("it becomes so");
        let before = calm.rows(&process);
        assert_eq!(calm.restarted(process), before, "frugal: {is_frugal}");
    }
}

/// One of two is damaged, and the log was trimmed: the older one has what the log does not.
#[test]
fn the_next_snapshot_is_made_of_an_older_one() {
    let mut calm = Calm::new(true);
    let process = calm.set_up();
    let mut pushes = pushes(&mut StdRng::seed_from_u64(0)).into_iter();
    for rows in pushes.by_ref().take(3) {
        push_and_checkpoint(&calm, &process, rows).expect("nothing goes wrong yet");
    }
    let snapshots = calm.snapshots();
    let [.., (_, _), (newest, length)] = &snapshots[..] else { panic!("{snapshots:?}") };
    calm.disk.flip(newest, 8 * (length / 2));
    push_and_checkpoint(&calm, &process, pushes.next().expect("there are thirty")).expect("the older one is whole");
    let before = calm.rows(&process);
    assert_eq!(calm.restarted(process), before);
}

fn push_and_checkpoint(calm: &Calm, process: &Process, rows: RecordBatch) -> Result<(), Option<Error>> {
    process.ask(&calm.disk, async |engine: &Engine| {
        calm.clock.step(10);
        engine.push("events", rows).await?;
        engine.checkpoint().await
    })
}

/// A snapshot that somebody removes is missed by name where the log no longer has what it had, also by who would
/// accept a loss; where the log has it, nothing is lost.
#[test]
fn a_snapshot_that_is_gone_is_missed_where_it_is_needed() {
    for is_frugal in [false, true] {
        let mut calm = Calm::new(is_frugal);
        let process = calm.set_up();
        for rows in pushes(&mut StdRng::seed_from_u64(0)).into_iter().take(3) {
            push_and_checkpoint(&calm, &process, rows).expect("nothing goes wrong yet");
        }
        let before = calm.rows(&process);
        process.end();
        calm.disk = calm.disk.reboot(&calm.power, Crash::Kill);
        for (path, _) in calm.snapshots() {
            calm.disk.remove(&path).expect("it is there");
        }
        if !is_frugal {
            let process = calm.start().expect("the log is whole");
            assert_eq!(calm.rows(&process), before);
            process.end();
            continue;
        }
        for accept_loss in [false, true] {
            calm.setting.accept_loss = accept_loss;
            let refusal = calm.start().map(drop).expect_err("what it had is nowhere else").to_string();
            assert!(refusal.contains(".snapshot") && !refusal.contains("--accept-loss"), "{refusal}");
        }
    }
}

/// Where the log was trimmed, a view that is made anew has less of the past than the one before, and that is said.
#[test]
fn who_replaces_a_view_is_told_since_when_its_input_is_there() {
    let replaced =
        "CREATE OR REPLACE MATERIALIZED VIEW per_key AS SELECT key, count(*) AS n, sum(amount + 1) AS total FROM events GROUP BY key";
    for is_frugal in [false, true] {
        let calm = Calm::new(is_frugal);
        let process = calm.set_up();
        for rows in pushes(&mut StdRng::seed_from_u64(0)).into_iter().take(3) {
            push_and_checkpoint(&calm, &process, rows).expect("nothing goes wrong");
        }
        // One that needs nothing of the past after a restart is made of all of it all the same, and so is a sink.
        let plain = "CREATE OR REPLACE MATERIALIZED VIEW mirror AS SELECT id, key, amount FROM events WHERE 0 <= id";
        let made = [
            (format!("EXPLAIN {replaced}"), "per_key"),
            (replaced.to_string(), "per_key"),
            (format!("EXPLAIN {plain}"), "mirror"),
            (plain.to_string(), "mirror"),
            ("CREATE SINK told FROM events WITH (connector = 'scroll')".to_string(), "told"),
        ];
        for (statement, name) in made {
            let notices = calm.notices(&process, &statement);
            assert_eq!(notices.len(), usize::from(is_frugal), "{statement}: {notices:?}");
            let told = format!("\"{name}\" is made of what source \"events\" brought since 20");
            assert!(notices.iter().all(|notice| notice.starts_with(&told)), "{notices:?}");
        }
        process.end();
    }
}

/// What was done for a finding whose input is no longer there stays done when its rule changes, also after a restart.
#[test]
fn a_changed_rule_undoes_nothing_for_want_of_the_past() {
    let rule = |least: i64| {
        format!("CREATE OR REPLACE DETECTION big WITH (entity = 'id') AS SELECT id, key, amount, 0 AS most FROM events WHERE {least} <= id")
    };
    for is_frugal in [false, true] {
        let mut calm = Calm::new(is_frugal);
        let process = calm.set_up();
        calm.notices(&process, &rule(0));
        calm.notices(&process, "CREATE ACTION hold FROM big WITH (connector = 'clerk')");
        for rows in pushes(&mut StdRng::seed_from_u64(0)).into_iter().take(3) {
            push_and_checkpoint(&calm, &process, rows).expect("nothing goes wrong");
        }
        let found = |calm: &Calm, process: &Process| process.rows(&calm.disk, &["big"]).expect("reads go on")["big"].len();
        let before = found(&calm, &process);
        assert!(before != 0);
        calm.until_held(&process, "hold", before);
        let notices = calm.notices(&process, &rule(1_000_000));
        let told = "action \"hold\" undoes nothing of what \"big\" no longer finds: what it had done stays done";
        assert_eq!(notices.iter().any(|notice| notice == told), is_frugal, "{notices:?}");
        let after = if is_frugal { before } else { 0 };
        calm.until_held(&process, "hold", after);
        assert_eq!(found(&calm, &process), 0);
        process.end();
        calm.disk = calm.disk.reboot(&calm.power, Crash::PowerCut);
        let process = calm.start().expect("the log is whole");
        calm.until_held(&process, "hold", after);
        assert_eq!(found(&calm, &process), 0);
        process.end();
    }
}

/// Where a part of the log is given up, what may be asked for only once is not asked for again, although its input comes again.
#[test]
fn what_a_lost_log_may_have_asked_for_waits_for_a_person() {
    let mut calm = Calm::new(false);
    let process = calm.set_up();
    calm.notices(&process, "CREATE DETECTION big WITH (entity = 'id') AS SELECT id, key, amount, 0 AS most FROM posts");
    calm.notices(&process, "CREATE ACTION strike FROM big WITH (connector = 'striker', delivery = 'at_most_once')");
    let push = |calm: &Calm, process: &Process, ids: std::ops::Range<i64>| {
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|_| "a")));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
        let rows = RecordBatch::try_from_iter([("id", Arc::clone(&numbers)), ("key", keys), ("amount", numbers)]);
        let rows = rows.expect("columns of one length");
        process.ask(&calm.disk, async |engine| engine.push("posts", rows).await).expect("nothing goes wrong");
    };
    push(&calm, &process, 0..6);
    calm.until_held(&process, "strike", 6);
    let log = |calm: &Calm| {
        let mut files = calm.disk.files().into_iter();
        files.rfind(|(path, _)| path.extension().is_some_and(|ending| ending == "log")).expect("a log")
    };
    let (path, kept) = log(&calm);
    push(&calm, &process, 6..12);
    calm.until_held(&process, "strike", 12);
    process.end();
    calm.disk = calm.disk.reboot(&calm.power, Crash::Kill);
    calm.disk.flip(&path, 8 * (kept + 40));
    assert!(calm.start().is_err(), "the log is damaged");
    calm.setting.accept_loss = true;
    let process = calm.start().expect("as asked");
    push(&calm, &process, 6..14);
    calm.until_held(&process, "strike", 12);
    let asked = process.rows(&calm.disk, &["sys.actions"]).expect("reads go on");
    let waiting = asked["sys.actions"].iter().filter(|row| row.contains("awaiting_approval")).count();
    assert_eq!((waiting, calm.world.broken()), (8, Vec::new()));
    process.end();
}
