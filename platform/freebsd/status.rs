//! The status that `waitpid(2)` returns (`sys/wait.h`).

use libc::c_int;

use crate::{ExitStatus, Signal};

/// What a status says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    /// Stopped, with this signal.
    Stopped(c_int),
    /// Ended.
    Ended(ExitStatus),
}

impl Status {
    pub(super) fn of(status: c_int) -> Self {
        const STOPPED: c_int = 0x7f;
        match status & 0x7f {
            STOPPED => Self::Stopped(status >> 8 & 0xff),
            0 => Self::Ended(ExitStatus::Exited(status >> 8 & 0xff)),
            signal => Self::Ended(ExitStatus::Killed(Signal(signal))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        assert_eq!(Status::of(0x117f), Status::Stopped(17));
        assert_eq!(Status::of(0x0300), Status::Ended(ExitStatus::Exited(3)));
        assert_eq!(Status::of(0x8b), Status::Ended(ExitStatus::Killed(Signal(11))), "with a core dump");
    }
}
