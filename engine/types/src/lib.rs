//! Tidegate's vocabulary. No I/O; knows neither tokio nor timely.
//!
//! In reading order: time, what moves ([`delta`]), what rests ([`row`]), what is
//! computed per row ([`expr`]), what goes wrong ([`error`]), and what a connector
//! promises ([`connector`]).

pub mod connector;
pub mod delta;
pub mod error;
pub mod expr;
pub mod row;
pub mod time;

pub use delta::Delta;
pub use error::{Error, Result};
pub use time::{Clock, Tick, WallClock};
