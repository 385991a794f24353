//! When it is said how far something is: once it takes longer than people like to wait for nothing, then now and again.

use std::time::{Duration, Instant};

const FIRST_AFTER: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(5);

pub struct Telling {
    due: Instant,
}

impl Telling {
    pub fn begin() -> Self {
        Self { due: Instant::now() + FIRST_AFTER }
    }

    /// And if so, not again for a while.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.due <= now;
        if is_due {
            self.due = now + EVERY;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_at_once_nor_twice_in_a_row() {
        let mut telling = Telling::begin();
        assert!(!telling.is_due());
        telling.due = Instant::now();
        assert!(telling.is_due() && !telling.is_due());
    }
}
