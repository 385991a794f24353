//! Plans to running dataflows.
//!
//! In reading order: what is said at the door (`interface`), the door ([`engine`], `execute`, `rehearsal`), what
//! happens in order behind it (`coordinator`), a query becoming a plan (`planning`), the one bridge to timely's threads (`bridge`), a
//! worker, and how a plan becomes a dataflow (`render`); then what comes in (`sources`, `dml`), what
//! of it lasts (`log`), what goes out (`followers`, `actions`, `changes`), and what is read (`read`, `metrics`) or told
//! meanwhile (`telling`). Last, what tests the tests (`seeded`).

mod actions;
mod backlog;
mod bridge;
mod changes;
mod check;
mod coordinator;
mod dml;
mod engine;
mod execute;
mod followers;
mod interface;
mod log;
mod metrics;
mod planning;
mod read;
mod rehearsal;
mod render;
mod seeded;
mod sources;
mod telling;
mod worker;

pub use check::{check, explain};
pub use engine::Engine;
pub use execute::only_reads;
pub use interface::{Config, DetectionInfo, Durability, Health, RETAIN, RelationInfo, Response, Snapshot, Witness};
pub use metrics::Metrics;
pub use read::{at_tick, bytes_of, check_size, reads_clock, view_over};
#[cfg(feature = "seeded-bugs")]
pub use seeded::Bug;
pub use seeded::Seeded;
pub use tidegate_plan::place::{end_of, misspelt_in, pointed_in, unplaced};
pub use tidegate_plan::sql::{Shown, planning_error, planning_error_among, refuse_parameters, rewritten, sound, state_builder, typed};
pub use tidegate_plan::statement::check_text;
