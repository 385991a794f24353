//! What a process has resident, as Linux tells it.

use std::fs;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    pub now_mib: f64,
    /// Since it began.
    pub peak_mib: f64,
}

/// None where there is no such process, or no Linux.
pub fn memory(pid: u32) -> Option<Memory> {
    told(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn told(status: &str) -> Option<Memory> {
    let mib = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib / 1024.0)
    };
    Some(Memory { now_mib: mib("VmRSS:")?, peak_mib: mib("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_both() {
        let status = "Name:\tx\nVmPeak:\t    9999 kB\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(told(status), Some(Memory { now_mib: 2.0, peak_mib: 4.0 }));
        assert_eq!(told("Name:\tx\nState:\tZ (zombie)\n"), None);
        assert!(0.0 < memory(std::process::id()).unwrap().now_mib);
    }
}
