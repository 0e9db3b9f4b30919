//! What this process itself takes of the machine.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// What this process has cost until now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct OwnCost {
    /// Processor time of all its threads, in the program and in the kernel.
    pub processor: Duration,
    /// Bytes of its memory that are in the machine's, if the system tells.
    pub resident: Option<u64>,
}

impl OwnCost {
    /// As of now (`getrusage(2)`, `/proc/self/status`).
    #[must_use]
    pub fn now() -> OwnCost {
        let duration = |time: TimeVal| {
            Duration::new(
                u64::try_from(time.tv_sec()).unwrap_or(0),
                u32::try_from(time.tv_usec()).unwrap_or(0).saturating_mul(1000),
            )
        };
        let processor = getrusage(UsageWho::RUSAGE_SELF)
            .map_or(Duration::ZERO, |usage| duration(usage.user_time()) + duration(usage.system_time()));
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        OwnCost { processor, resident: resident(&status) }
    }
}

/// `VmRSS` of `/proc/PID/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kibibytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_cost_something() {
        let mut sum = 0_u64;
        while OwnCost::now().processor.is_zero() {
            sum = sum.wrapping_add(1);
        }
        assert_ne!(OwnCost::now().resident, Some(0), "{sum}");
    }

    #[test]
    fn resident_memory_is_in_kibibytes() {
        assert_eq!(resident("VmPeak:\t  9 kB\nVmRSS:\t    5124 kB\nThreads:\t1\n"), Some(5124 << 10));
        assert_eq!(resident("VmRSS:\t 1 MB\n"), None);
        assert_eq!(resident(""), None);
    }
}
