//! Where chance comes from: the machine, or a seed.

use rand::RngCore;

/// Numbers that nobody can guess, or that a seed decides.
pub trait Random: Send + Sync + 'static {
    fn next_u64(&self) -> u64;

    /// Evenly from [0, 1).
    fn unit(&self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The machine's own chance.
pub struct MachineRandom;

impl Random for MachineRandom {
    fn next_u64(&self) -> u64 {
        rand::rng().next_u64()
    }
}
