//! An engine as a process: it may end at any point, and what it does takes its time, but not for ever.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_runtime::{Config, Durability, Engine, RETAIN, Seeded, Witness};
use tidegate_types::error::Error;
use tokio::runtime::Runtime;

use crate::disk::SimDisk;
use crate::machine::{SimClock, SimRandom};
use crate::oracle::sorted;
use crate::world::World;

/// What takes longer hangs.
pub const SOON: Duration = Duration::from_secs(40);

/// How long its threads may take to end. Those that take longer are let go, which a C library before 2.37
/// survives only if they do not end at that very moment.
const ENDING: Duration = Duration::from_secs(2);

/// Of the past, so that little of it is more than one piece.
const PIECE_ROWS: usize = 5;

/// Of the log.
pub const FOLDER: &str = "/data";

/// How an engine is started.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Of its chance.
    pub seed: u64,
    pub workers: usize,
    /// Ticks close only when someone asks for it.
    pub is_driven: bool,
    /// A damaged log is cut off where the damage begins.
    pub accept_loss: bool,
    /// What sources brought is kept for nobody who may come later.
    pub is_frugal: bool,
    pub seeded: Seeded,
}

impl Setting {
    /// Ticks close when someone asks, and no loss is accepted; with no bug put in.
    pub fn driven(workers: usize) -> Self {
        Self { seed: 0, workers, is_driven: true, accept_loss: false, is_frugal: false, seeded: Seeded::default() }
    }
}

/// An engine that runs, on threads of its own, so that it can end at any point as a process does.
pub struct Process {
    runtime: Runtime,
    pub engine: Engine,
}

impl Process {
    /// Errors: the engine's; one that recovers says what fails when it is asked.
    pub fn start(disk: &SimDisk, world: &World, clock: &Arc<SimClock>, setting: Setting) -> Result<Self, Error> {
        Self::watched(disk, world, clock, setting, None)
    }

    /// `witness` sees what workers get.
    pub fn watched(
        disk: &SimDisk,
        world: &World,
        clock: &Arc<SimClock>,
        setting: Setting,
        witness: Option<Witness>,
    ) -> Result<Self, Error> {
        let Setting { seed, workers, is_driven, accept_loss, is_frugal, seeded } = setting;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread");
        let config = Config {
            workers,
            tick: if is_driven { Duration::from_secs(3600) } else { Duration::from_millis(1) },
            durability: Durability::Folder { path: PathBuf::from(FOLDER), accept_loss },
            clock: Arc::clone(clock) as _,
            disk: Arc::new(disk.clone()),
            random: Arc::new(SimRandom::seeded(seed)),
            witness,
            piece_rows: PIECE_ROWS,
            retain: if is_frugal { Duration::ZERO } else { RETAIN },
            seeded,
            ..Config::default()
        };
        let started = runtime.block_on(async { Engine::start(config, world.connectors(disk)) });
        match started {
            Ok(engine) => Ok(Self { runtime, engine }),
            Err(error) => {
                runtime.shutdown_timeout(ENDING);
                Err(error)
            }
        }
    }

    /// Errors: None where the machine's power goes meanwhile, or it takes too long.
    pub fn ask<T>(&self, disk: &SimDisk, request: impl AsyncFnOnce(&Engine) -> Result<T, Error>) -> Result<T, Option<Error>> {
        let off = async {
            while disk.is_on() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        self.runtime.block_on(async {
            tokio::select! {
                answer = request(&self.engine) => answer.map_err(Some),
                () = off => Err(None),
                () = tokio::time::sleep(SOON) => Err(Some(Error::engine("it does not answer"))),
            }
        })
    }

    /// The rows of relations, all at one tick, sorted. Errors: as `ask`'s.
    pub fn rows(&self, disk: &SimDisk, names: &[&str]) -> Result<BTreeMap<String, Vec<String>>, Option<Error>> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let snapshot = self.ask(disk, async |engine| engine.snapshot(&names).await)?;
        Ok(snapshot.relations.iter().map(|(name, rows)| (name.clone(), sorted(rows))).collect())
    }

    /// As a process ends that is killed.
    pub fn end(self) {
        self.runtime.shutdown_timeout(ENDING);
    }
}
