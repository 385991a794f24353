//! `probe` sink: says when a view's changes arrived, to whoever measures.
//!
//! Options   none but the connector
//! Delivery  each closed tick's changes, when the sink is given them
//! Errors    none

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tidegate::generator::ServerConnectors;
use tidegate_types::connector::{Changes, Connectors, Progress, Responder, Sink, SinkSpec, Source, SourceSpec, Writer};
use tidegate_types::error::{Error, Result};
use tokio::sync::mpsc;

/// Longer than this no update may take.
const VISIBLE_LIMIT: Duration = Duration::from_secs(60);
/// Nothing arrived for this long: what was under way is through.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// The sink from which each update is seen, also one that changes nobody's state.
const EVERY_UPDATE: &str = "counted_seen";

/// The server's connectors, and `probe`.
pub struct Probes {
    server: ServerConnectors,
    sightings: mpsc::UnboundedSender<Sighting>,
}

struct Sighting {
    sink: String,
    /// Rows that came less rows that went.
    net: i64,
    at: Instant,
}

/// What the probes saw.
pub struct Seen {
    sightings: mpsc::UnboundedReceiver<Sighting>,
}

impl Probes {
    pub fn new(server: ServerConnectors) -> (Self, Seen) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { server, sightings: sender }, Seen { sightings: receiver })
    }
}

impl Seen {
    /// Forgets what arrives until nothing does.
    pub async fn settle(&mut self) {
        while let Ok(Some(_)) = tokio::time::timeout(SETTLED_AFTER, self.sightings.recv()).await {}
    }

    /// When the one update under way had arrived, in all views: with `net` rows in the cascade's.
    ///
    /// Errors: it does not arrive.
    pub async fn visible(&mut self, net: i64) -> Result<Instant> {
        let (mut is_counted, mut arrived) = (false, 0);
        loop {
            let sighting = tokio::time::timeout(VISIBLE_LIMIT, self.sightings.recv()).await;
            let Ok(Some(Sighting { sink, net: rows, at })) = sighting else {
                return Err(Error::engine(format!("{arrived} of {net} rows arrived in {} s", VISIBLE_LIMIT.as_secs())));
            };
            if sink == EVERY_UPDATE {
                is_counted = true;
            } else {
                arrived += rows;
            }
            if is_counted && arrived == net {
                return Ok(at);
            }
        }
    }
}

impl Connectors for Probes {
    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        self.server.source(spec)
    }

    fn sink(&self, spec: &SinkSpec) -> Result<Box<dyn Sink>> {
        match spec.options.get("connector").map(String::as_str) {
            Some("probe") => Ok(Box::new(Probe { name: spec.name.clone(), sightings: self.sightings.clone() })),
            _ => self.server.sink(spec),
        }
    }

    fn responder(&self, spec: &SinkSpec) -> Result<Box<dyn Responder>> {
        self.server.responder(spec)
    }
}

struct Probe {
    name: String,
    sightings: mpsc::UnboundedSender<Sighting>,
}

#[async_trait]
impl Sink for Probe {
    async fn resume(&mut self, _: &Writer) -> Result<Progress> {
        Ok(Progress::Unknown)
    }

    async fn write(&mut self, changes: &[Changes]) -> Result<()> {
        for changes in changes {
            let sighting = Sighting { sink: self.name.clone(), net: changes.delta.diffs.iter().sum(), at: Instant::now() };
            // Nobody looks any more once the measurement is over.
            let _ = self.sightings.send(sighting);
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
