//! The one bridge between timely's threads and tokio's: commands go in by channel and a wake-up,
//! reports come out by channel. Nothing else crosses.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tidegate_types::error::{Error, Result};
use tokio::sync::mpsc;

use crate::worker::{self, Command, Said, Witness};

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
    pub fn start(count: usize, witness: Option<Witness>, state_bytes_max: usize) -> Result<(Self, mpsc::UnboundedReceiver<Said>)> {
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
            let run = AssertUnwindSafe(|| {
                worker::run(worker, &commands, witness.as_ref(), state_bytes_max, |said| drop(reports.send(said)));
            });
            if let Err(panic) = std::panic::catch_unwind(run) {
                let _ = reports.send(Said::Failed(format!("worker {index}: {}", message(&*panic))));
                // What its operators hold is in no state to go on with.
                let dataflows = worker.installed_dataflows();
                dataflows.into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
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

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}
