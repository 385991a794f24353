//! The one bridge between timely's threads and tokio's: commands go in by channel and a wake-up,
//! reports come out by channel. Nothing else crosses.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tidegate_types::error::{Error, Result};
use tokio::sync::mpsc;

use crate::worker::{self, Command, Report};

/// Commands of a backfill that wait for a worker.
const COMMANDS_WAITING_MAX: usize = 64;

/// All workers, from outside.
pub struct Workers {
    senders: Vec<Sender<Command>>,
    threads: Vec<Thread>,
}

impl Workers {
    /// Starts `count` workers. Reports arrive on the returned channel; what a worker can owe is
    /// bounded by the one tick that may be closing.
    pub fn start(count: usize) -> Result<(Self, mpsc::UnboundedReceiver<Report>)> {
        let (senders, receivers): (Vec<Sender<Command>>, Vec<Receiver<Command>>) = (0..count).map(|_| unbounded()).unzip();
        let receivers = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>()));
        let (reports, reported) = mpsc::unbounded_channel();
        let (ready, started) = bounded(count);
        let config = timely::Config::process(count);
        let guards = timely::execute(config, move |worker| {
            let index = worker.index();
            let commands = receivers.lock().expect("no panic while held")[index].take().expect("one worker per index");
            let _ = ready.send((index, std::thread::current()));
            let reports = reports.clone();
            let run = AssertUnwindSafe(|| worker::run(worker, &commands, |report| drop(reports.send(report))));
            if std::panic::catch_unwind(run).is_err() {
                // Peers wait for a worker that is gone; only a restart gives a true answer again.
                tracing::error!(worker = index, "a worker failed; the process ends so that a supervisor can restart it");
                std::process::exit(2);
            }
        });
        let guards = guards.map_err(|error| Error::engine(format!("the workers did not start: {error}")))?;
        // The guards join on drop; the workers end by `Stop`, so let them go by themselves.
        std::thread::spawn(move || drop(guards));
        let mut threads: Vec<Option<Thread>> = vec![None; count];
        for (index, thread) in started.iter().take(count) {
            threads[index] = Some(thread);
        }
        let threads = threads.into_iter().flatten().collect::<Vec<_>>();
        Ok((Self { senders, threads }, reported))
    }

    pub fn count(&self) -> usize {
        self.senders.len()
    }

    /// Waits while many commands wait.
    pub fn wait_for_room(&self) {
        while self.senders.iter().any(|sender| COMMANDS_WAITING_MAX < sender.len()) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// To all workers.
    pub fn broadcast(&self, command: &Command) {
        (0..self.count()).for_each(|worker| self.send(worker, command.clone()));
    }

    /// To one worker.
    pub fn send(&self, worker: usize, command: Command) {
        // A worker that is gone has ended the process.
        let _ = self.senders[worker].send(command);
        self.threads[worker].unpark();
    }
}
