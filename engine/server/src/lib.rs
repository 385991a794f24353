//! The server: wiring, and the doors people use.
//!
//! In reading order: [`cli`] is what users type; [`pack`] what they give us;
//! [`read`] answers queries at one closed tick, and [`pg`] and [`http`] are its
//! doors, each with so many seats as [`door`] gives; [`output`] prints rows; [`test`] runs a pack's own tests;
//! [`specification`] turns a written process into rows, [`bpmn`] a drawn one. [`demo`] is
//! the main job on generated streams: [`generator`] tells the story,
//! [`partner`] is who the actions reach, [`watch`] keeps score, [`screen`]
//! shows it.

pub mod bpmn;
pub mod cli;
pub mod demo;
pub mod door;
pub mod generator;
pub mod http;
pub mod output;
pub mod pack;
pub mod partner;
pub mod pg;
pub mod read;
pub mod screen;
pub mod specification;
pub mod test;
pub mod watch;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// What a program that embeds the engine needs of the crates below.
pub use tidegate_connectors::{Inbox, Registry};
pub use tidegate_runtime::{Config, Durability, Engine, Response};

use tidegate_types::error::{Error, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync;

/// Listens, before anything else is set up. `option`: the one that says where.
///
/// Errors: the address is taken, or is not this machine's.
async fn bind(option: &str, listen: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let refused = |error: std::io::Error| {
        Error::user(format!("cannot listen on {listen}: {error}"))
            .hint(format!("choose another address with {option}, such as {option} 127.0.0.1:0, or {option} off"))
    };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    if !bound.ip().is_loopback() {
        tracing::warn!("{bound} can be reached from other machines, and nothing asks who they are");
    }
    Ok((listener, bound))
}

/// How long a stop in order may take.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// How often a person (Ctrl-C) or the system (SIGTERM) has asked the process
/// to stop. The first time asks for an end in order, the second for an end.
struct Stop {
    asked: sync::watch::Receiver<u32>,
    time_max: Duration,
}

impl Stop {
    /// From now on signals are counted, and end nothing by themselves.
    fn listen() -> Result<Self> {
        let handler = |kind| signal(kind).map_err(|error| Error::engine(format!("signals cannot be handled: {error}")));
        let (mut interrupted, mut terminated) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
        let (count, asked) = sync::watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = interrupted.recv() => {}
                    Some(()) = terminated.recv() => {}
                    else => return,
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self { asked, time_max: STOP_TIME_MAX })
    }

    /// Returns once it was asked so often, be it before this call.
    async fn asked(&self, times: u32) {
        if self.asked.clone().wait_for(|count| times <= *count).await.is_err() {
            // Nobody counts any more: the runtime ends.
            std::future::pending().await
        }
    }

    /// `work`, which ends by itself soon after it was asked to. Whatever hangs
    /// in it (a peer that does not answer, a disk) cannot hold the process: it
    /// is given up after a while, or when asked again.
    async fn within(&self, engine: &Engine, work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
        let expired = async {
            self.asked(1).await;
            tokio::time::sleep(self.time_max).await;
        };
        tokio::select! {
            ended = work => ended,
            error = engine.failed() => Err(error),
            () = self.asked(2) => Ok(ExitCode::from(130)),
            () = expired => {
                eprintln!("error: not all stopped within {:?}; {}", self.time_max, left(engine));
                Ok(ExitCode::from(1))
            }
        }
    }
}

/// What an engine that hangs still tells.
fn left(engine: &Engine) -> String {
    let families = engine.registry().gather();
    let sum = |name: &str| -> f64 {
        let metrics = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        // A sum of no floats is -0.
        metrics.map(|metric| metric.get_gauge().get_value()).sum::<f64>() + 0.0
    };
    let (taken_in, waiting) = (sum("tidegate_in_flight_bytes"), sum("tidegate_sink_backlog_bytes"));
    format!("left are {taken_in} bytes taken in, {waiting} bytes waiting for sinks, and what sinks and actions were delivering")
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use super::*;

    /// An engine of one worker, for the doors' tests.
    pub(crate) fn engine(inbox: Inbox) -> Engine {
        let config = Config { tick: Duration::from_millis(1), ..Config::default() };
        Engine::start(config, Arc::new(Registry::new(inbox))).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_hangs_is_given_up_after_a_while_or_when_asked_again() {
        let engine = engine(Inbox::default());
        let (count, asked) = sync::watch::channel(0);
        let stop = |time_max| Stop { asked: asked.clone(), time_max };
        let ended = stop(STOP_TIME_MAX).within(&engine, async { Ok(ExitCode::SUCCESS) }).await.unwrap();
        assert_eq!(ended, ExitCode::SUCCESS);
        // Not asked: it may take as long as it likes.
        let patient = stop(Duration::ZERO);
        let working = patient.within(&engine, pending());
        assert!(tokio::time::timeout(Duration::from_millis(50), working).await.is_err());
        count.send_replace(1);
        assert_eq!(stop(Duration::from_millis(1)).within(&engine, pending()).await.unwrap(), ExitCode::from(1));
        count.send_replace(2);
        assert_eq!(stop(STOP_TIME_MAX).within(&engine, pending()).await.unwrap(), ExitCode::from(130));
        engine.shutdown().await.unwrap();
    }
}
