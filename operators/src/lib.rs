//! Tidegate's operators, in reading order. They know timely, not tokio; they read
//! no clock and draw no random number.
//!
//! Each file: the promise, the plan (plain data, made by the planner), the door
//! (wires the plan), the rule (no dataflow types), tests.

pub mod stream;
pub mod usage;

pub mod program;
pub mod combine;
pub mod expand;
pub mod temporal;

pub mod arrange;
pub mod join;
pub mod distinct;
pub mod fixpoint;

pub mod keyed;
pub mod aggregate;
pub mod top;
pub mod recompute;

pub mod detector;
pub mod series;
pub mod cascade;
pub mod impact;
pub mod behaviour;
pub mod analysis;
