//! Plans to running dataflows.
//!
//! In reading order: the door ([`engine`]), what happens in order behind it (`coordinator`), the
//! one bridge to timely's threads (`bridge`), a worker, and how a plan becomes a dataflow
//! (`render`); then what comes in (`sources`, `history`, `dml`), what goes out (`followers`,
//! `actions`, `changes`), and what is read (`read`, `metrics`).

mod actions;
mod bridge;
mod changes;
mod check;
mod coordinator;
mod dml;
mod engine;
mod followers;
mod history;
mod metrics;
mod read;
mod render;
mod sources;
mod worker;

pub use check::{check, explain};
pub use engine::{Config, DetectionInfo, Engine, Health, RelationInfo, Response, Snapshot};
pub use read::view_over;
pub use tidegate_plan::sql::{rewritten, sound, state_builder};
