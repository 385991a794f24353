//! Logical time, and the one place a clock is read.

use std::time::{SystemTime, UNIX_EPOCH};

/// A commit. Milliseconds since 1970 where the clock behaves, and strictly
/// increasing where it does not. Everything in a tick becomes visible at once.
pub type Tick = u64;

/// Where ticks and receive times come from. The demo and the tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// How many of this clock's milliseconds pass in one of the machine's.
    /// 1 for every clock but a demonstration's.
    fn speed(&self) -> f64 {
        1.0
    }
}

/// The machine's clock.
pub struct WallClock;

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// A clock that stands still, at milliseconds since 1970.
pub struct StoppedClock(pub u64);

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        self.0
    }
}

/// The tick after `last`, whatever the clock says: `max(last + 1, now)`.
pub fn next_tick(last: Tick, now_ms: u64) -> Tick {
    now_ms.max(last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_increase_when_the_clock_steps_back() {
        assert_eq!(next_tick(10, 20), 20);
        assert_eq!(next_tick(20, 10), 21);
        assert_eq!(next_tick(20, 20), 21);
    }
}
