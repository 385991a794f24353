//! The machine an engine runs on: its power, its clock and its chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tidegate_types::{Clock, Random};

/// The machine's power. What belongs to an earlier boot reaches nothing any more.
#[derive(Clone, Default)]
pub struct Power(Arc<AtomicU64>);

impl Power {
    /// The boot that runs now.
    pub fn boot(&self) -> Boot {
        Boot { power: self.clone(), number: self.0.load(Ordering::SeqCst) }
    }
}

/// One life of the machine.
#[derive(Clone)]
pub struct Boot {
    power: Power,
    number: u64,
}

impl Boot {
    pub fn is_on(&self) -> bool {
        self.power.0.load(Ordering::SeqCst) == self.number
    }

    /// Ends it, and no later one.
    pub fn cut(&self) {
        let _ = self.power.0.compare_exchange(self.number, self.number + 1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// A clock that is set by hand, also back.
pub struct SimClock(AtomicU64);

impl SimClock {
    pub fn new(now_ms: u64) -> Self {
        Self(AtomicU64::new(now_ms))
    }

    pub fn step(&self, by_ms: i64) {
        let stepped = |now: u64| Some(now.saturating_add_signed(by_ms));
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, stepped);
    }
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Chance that a seed decides.
pub struct SimRandom(Mutex<StdRng>);

impl SimRandom {
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// Small, since pauses between attempts are a chance times a bound: nobody waits for real.
    fn unit(&self) -> f64 {
        self.0.lock().random_range(0.0..0.02)
    }
}
