//! Tidegate's vocabulary. Knows neither tokio nor timely, and no I/O but the machine's clock,
//! disk and chance, each behind a trait.
//!
//! In reading order: the surroundings ([`time`], [`disk`], [`random`]), what moves ([`delta`]),
//! what rests ([`row`]), what is computed per row ([`expr`]), what leaves ([`json`]), what goes wrong ([`error`]), and what
//! a connector promises ([`connector`]).

pub mod connector;
pub mod delta;
pub mod disk;
pub mod error;
pub mod expr;
pub mod json;
pub mod random;
pub mod row;
pub mod time;

pub use delta::Delta;
pub use disk::{Disk, LocalDisk, ScratchDisk};
pub use error::{Error, Result};
pub use random::{MachineRandom, Random};
pub use time::{Clock, StoppedClock, Tick, WallClock};
