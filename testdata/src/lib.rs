//! Seeded generators that know the truth.
//!
//! A [`World`] is one story over three pilots (a bank, a pharma shipper, a
//! parcel carrier) and what joins them: a background of clean events, attacks,
//! look-alikes that must not be found, late events and duplicates. The same
//! seed gives the same bytes. The names of sources, lanes, regions, logger
//! models and exposed nodes are those of the packs in `queries/pilots`.
//!
//! ```
//! use tidegate_testdata::World;
//! let world = World::new(7, 1_772_438_400_000, 6 * 3_600_000, 3_000.0);
//! let first = world.events().next().unwrap();
//! assert!(first.json.starts_with('{') && first.arrival_ms >= 1_772_438_400_000);
//! assert!(world.truths().iter().any(|truth| truth.scenario == "B1"));
//! ```

mod audit;
mod background;
mod bank;
mod branch;
mod checkout;
mod combined;
mod logistics;
pub mod malformed;
mod pharma;
mod pharmacy;
mod returns;
mod story;

use std::sync::Arc;

pub use background::Events;
use background::Scale;
use story::Story;

/// Shortest story, in milliseconds: below it an excursion, a silence or a
/// custody gap has no room to become one.
pub const SPAN_MS_MIN: i64 = 2 * 3_600_000;

/// Fewest background events per hour: watermarks move only with data, so a
/// story without any would leave absences undecided.
pub const BACKGROUND_PER_HOUR_MIN: f64 = 1_200.0;

const STREAMS: [&str; 22] = [
    "orders",
    "payments",
    "web_events",
    "page_hashes",
    "releases",
    "back_office",
    "atm_events",
    "host_authorisations",
    "sensors",
    "setpoints",
    "auth_log",
    "authenticity",
    "packs",
    "sales",
    "buyer_credentials",
    "scans",
    "credentials",
    "proofs",
    "refunds",
    "ioc",
    "log_anchors",
    "log_audits",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the event reaches us; its own time is the field `ts`.
    pub arrival_ms: i64,
    pub stream: &'static str,
    /// One JSON object, without a newline.
    pub json: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Must be found.
    Attack,
    /// Must not be found, or, where `withdrawn_ms` is given, not for long.
    LookAlike,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// The scenario's id, such as `B1`.
    pub scenario: &'static str,
    pub pilot: &'static str,
    /// The detection's name in SQL.
    pub detection: &'static str,
    /// The value of the detection's entity column.
    pub entity: String,
    pub role: Role,
    /// Arrival of the last event needed to find it. For an absence, which no
    /// event completes, the moment at which it is settled.
    pub complete_ms: i64,
    /// Arrival of the event that withdraws the finding, where one does.
    pub withdrawn_ms: Option<i64>,
}

pub struct World {
    scale: Scale,
    told: Arc<[Event]>,
    truths: Vec<Truth>,
}

impl World {
    /// Draws a world.
    ///
    /// `start_ms`: event time at which the story begins. `span_ms`: its
    /// length, at least [`SPAN_MS_MIN`]. `background_per_hour`: clean events
    /// per simulated hour over all streams, raised to
    /// [`BACKGROUND_PER_HOUR_MIN`] where less is asked for.
    ///
    /// The first 8 % of the span are calm; everything can be found before its
    /// last tenth.
    pub fn new(seed: u64, start_ms: i64, span_ms: i64, background_per_hour: f64) -> World {
        assert!(span_ms >= SPAN_MS_MIN, "a story of {span_ms} ms is too short; give it {SPAN_MS_MIN} ms or more");
        let mut story = Story::new(seed, start_ms, span_ms);
        bank::tell(&mut story);
        pharma::tell(&mut story);
        logistics::tell(&mut story);
        combined::tell(&mut story);
        checkout::tell(&mut story);
        branch::tell(&mut story);
        pharmacy::tell(&mut story);
        returns::tell(&mut story);
        audit::tell(&mut story);
        let (told, truths) = story.finish();
        World { scale: Scale::new(seed, start_ms, span_ms, background_per_hour), told: told.into(), truths }
    }

    /// What was done, by whom, and when it can be known; by scenario.
    pub fn truths(&self) -> &[Truth] {
        &self.truths
    }

    /// All streams in order of arrival, ties in a fixed order. Each call
    /// begins anew; the background is made as it is read.
    pub fn events(&self) -> Events {
        Events::new(self.scale.clone(), self.told.clone())
    }

    /// The events of one stream, as they are among all.
    pub fn events_of(&self, stream: &str) -> Events {
        Events::of(stream, self.scale.clone(), &self.told)
    }

    /// The names of all streams, by pilot.
    pub fn streams() -> &'static [&'static str] {
        &STREAMS
    }
}
