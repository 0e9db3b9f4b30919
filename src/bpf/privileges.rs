//! What the kernel asks of who loads programs.

use memleax_platform::native::{Privilege, is_confined};

/// Either of these is enough (capabilities(7), Linux 5.8).
const ENOUGH: [&[Privilege]; 2] = [&[Privilege::Admin], &[Privilege::Bpf, Privilege::Perfmon]];

/// Names of the least set of privileges that would be enough and of which these are not held; empty if enough are.
pub(super) fn missing() -> Vec<&'static str> {
    if ENOUGH[0].iter().all(|privilege| privilege.is_held()) {
        return Vec::new();
    }
    ENOUGH[1].iter().filter(|privilege| !privilege.is_held()).map(|privilege| privilege.name()).collect()
}

/// Where the kernel does not permit something: why, and what to do.
#[must_use]
pub fn remedy() -> String {
    let missing = missing();
    if is_confined() {
        "memleax runs in a user namespace (a rootless container), whose privileges do not reach that far: run it outside".into()
    } else if missing.is_empty() && !Privilege::Admin.is_held() {
        "memleax has CAP_BPF and CAP_PERFMON: this kernel asks for CAP_SYS_ADMIN, too (run it as root), or a filter of system calls denies it".into()
    } else if missing.is_empty() {
        "memleax has the capabilities for it: a filter of system calls (a container's, say) or the kernel's lockdown denies it".into()
    } else {
        format!("memleax lacks {}: run it as root", missing.join(" and "))
    }
}
