//! What this machine allows, as far as it can be found out without touching anything.

use super::attach::{DEBUG_SETTING, KILL_SETTING, SIGHT_SETTING};
use super::sys::{Name, Sys};
use super::tracer::FreebsdTracer;
use crate::host::{Host, Remark};
use crate::{Error, Pid};

/// Looks around.
#[must_use]
pub fn host<S: Sys>(sys: &mut S) -> Host {
    let text = |sys: &mut S, name| {
        let bytes = sys.sysctl(Name::Text(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    };
    let system = format!("{} {} {}", text(sys, "kern.ostype"), text(sys, "kern.osrelease"), text(sys, "hw.machine"));
    let user = nix::unistd::geteuid();
    let mut tracing = vec![match (user.is_root(), number(sys, DEBUG_SETTING)) {
        (true, _) => Remark::fine("processes of every user may be traced (root)"),
        (false, Some(0)) => Remark::bad(
            format!("{DEBUG_SETTING} is 0: only root may trace"),
            "run memleax as root, or allow it: `sysctl security.bsd.unprivileged_proc_debug=1` (as root)",
        ),
        (false, _) => Remark::fine("processes of the same user may be traced; those of others need root"),
    }];
    if !user.is_root() && number(sys, SIGHT_SETTING) == Some(0) {
        tracing.push(Remark::fine(format!("{SIGHT_SETTING} is 0: processes of others are not even seen")));
    }
    tracing.push(Remark::fine(match number(sys, KILL_SETTING) {
        Some(0) => format!(
            "{KILL_SETTING} is 0: a process that is watched while memleax is killed by SIGKILL dies at its next breakpoint"
        ),
        _ => format!("a process that is watched while memleax is killed by SIGKILL is killed, too ({KILL_SETTING})"),
    }));
    Host { system, rights: vec![Remark::fine(format!("user {user}"))], tracing, programs: Vec::new() }
}

/// Whether a process may be traced, without beginning to.
///
/// # Errors
/// As [`Tracer::attach`](crate::Tracer::attach) would refuse it.
pub fn check_access<S: Sys>(sys: S, pid: Pid) -> Result<(), Error> {
    let mut tracer = FreebsdTracer::new(sys);
    let info = tracer.refuse_unfit(pid)?;
    // Asks for the same right as ptrace does (`sysctl_kern_proc_vmmap`, `p_candebug`).
    match tracer.read_mappings(pid) {
        Ok(_) => Ok(()),
        Err(Error::Os { cause, .. }) => Err(tracer.refusal(pid, &info, cause)),
        Err(error) => Err(error),
    }
}

fn number<S: Sys>(sys: &mut S, name: &str) -> Option<i32> {
    sys.sysctl(Name::Text(name)).ok()?.first_chunk().copied().map(i32::from_ne_bytes)
}
