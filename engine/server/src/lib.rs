//! The server: wiring, and the doors people use.
//!
//! In reading order: [`cli`] is what users type; [`pack`] what they give us;
//! [`read`] answers queries at one closed tick, and [`pg`] and [`http`] are its
//! doors; [`output`] prints rows; [`test`] runs a pack's own tests. [`demo`] is
//! the main job on generated streams: [`generator`] tells the story,
//! [`partner`] is who the actions reach, [`watch`] keeps score, [`screen`]
//! shows it.

pub mod cli;
pub mod demo;
pub mod generator;
pub mod http;
pub mod output;
pub mod pack;
pub mod partner;
pub mod pg;
pub mod read;
pub mod screen;
pub mod test;
pub mod watch;

use std::net::SocketAddr;

/// What a program that embeds the engine needs of the crates below.
pub use tidegate_connectors::{Inbox, Registry};
pub use tidegate_runtime::{Config, Engine, Response};

use tidegate_types::error::{Error, Result};
use tokio::net::TcpListener;

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

/// Returns when a person or the system asks the process to stop.
async fn interrupted() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            // Ctrl-C is left.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // An error means that no handler can be installed: then nothing asks.
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}
