//! How full the disk of the data folder is, and what that stops: no more input is taken in near its end, and nothing
//! becomes durable at it. Where no file can be made, only snapshots wait.

use tidegate_types::disk::Room;
use tidegate_types::error::Error;

use super::Coordinator;

impl Coordinator {
    pub(super) fn disk_has(&mut self, room: Room) {
        self.metrics.disk_free_bytes.set(room.free as i64);
        self.metrics.disk_size_bytes.set(room.total as i64);
        let level = Level::of(room);
        if level == self.level {
            return;
        }
        let percent = Level::percent(room);
        match level {
            Level::Fine => tracing::info!("the disk of the data folder is {percent} % full"),
            Level::Low => tracing::warn!("the disk of the data folder is {percent} % full; at {STOP_PERCENT} % no more input is taken in"),
            Level::Out => tracing::error!("the disk of the data folder is {percent} % full; no more input is taken in"),
        }
        // What is before a snapshot, and no view needs, makes room.
        self.is_checkpoint_asked |= level != Level::Fine;
        self.level = level;
        self.tell_health();
    }

    pub(super) fn disk_full(&mut self, reason: Option<String>) {
        match &reason {
            Some(reason) => tracing::error!("{reason}; input waits until there is room"),
            None => tracing::warn!("there is room on the disk again"),
        }
        self.full = reason;
        // No tick closes before there is room: who only reads would wait as long. A snapshot is as due then.
        self.is_pausing &= self.full.is_none();
        self.tell_health();
    }

    /// Ticks go on meanwhile.
    pub(super) fn disk_crowded(&mut self, reason: Option<String>) {
        match (&reason, &self.crowded) {
            (Some(reason), None) => tracing::error!("{reason}; the log's last file goes on, and snapshots wait until one can be made"),
            (None, Some(_)) => tracing::warn!("files can be made in the data folder again"),
            (Some(_), Some(_)) | (None, None) => return,
        }
        self.crowded = reason;
        self.tell_health();
    }
}

/// How full the disk of the data folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Fine,
    Low,
    /// What is left is for what follows from what was taken in: outcomes, and sinks' progress.
    Out,
}

const WARN_PERCENT: u64 = 85;
const STOP_PERCENT: u64 = 92;
pub(super) const NO_ROOM: &str = "the disk of the data folder is too full to take more in";

impl Level {
    fn of(room: Room) -> Self {
        match Self::percent(room) {
            percent if percent < WARN_PERCENT => Self::Fine,
            percent if percent < STOP_PERCENT => Self::Low,
            _ => Self::Out,
        }
    }

    fn percent(Room { free, total }: Room) -> u64 {
        // A disk of no size does not say how large it is.
        if total == 0 { 0 } else { (u128::from(total - free.min(total)) * 100 / u128::from(total)) as u64 }
    }
}

pub(super) fn no_room() -> Error {
    Error::no_room(NO_ROOM).hint("make room on it; what waits is then taken in by itself")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_levels() {
        let level = |free, total| Level::of(Room { free, total });
        assert_eq!([level(100, 100), level(16, 100), level(15, 100)], [Level::Fine, Level::Fine, Level::Low]);
        assert_eq!([level(9, 100), level(8, 100), level(0, 100)], [Level::Low, Level::Out, Level::Out]);
        assert_eq!([level(0, 0), level(u64::MAX, 1), level(u64::MAX / 2, u64::MAX)], [Level::Fine, Level::Fine, Level::Fine]);
    }
}
