//! What this machine allows, as far as it can be found out without touching anything.

use std::fs::{self, File};
use std::path::Path;

use super::attach::{refusal, refuse_traced, refuse_unfit};
use super::privileges::{Privilege, is_confined};
use super::status::Status;
use crate::host::{Host, Remark};
use crate::{Error, Pid, Tid};

/// Looks around.
#[must_use]
pub fn host() -> Host {
    Host { system: system(), rights: rights(), tracing: tracing(), programs: programs() }
}

/// Whether a process may be traced, without beginning to.
///
/// # Errors
/// As [`Tracer::attach`](crate::Tracer::attach) would refuse it.
pub fn check_access(pid: Pid) -> Result<(), Error> {
    refuse_unfit(pid)?;
    refuse_traced(pid)?;
    // Opening it asks for the same right as ptrace does (`PTRACE_MODE_ATTACH_FSCREDS`, fs/proc/base.c).
    match File::open(format!("/proc/{pid}/mem")) {
        Ok(_) => Ok(()),
        Err(cause) => match refusal(&Status::of(Tid(pid.0))?) {
            Some(why) => Err(Error::Refused { pid, why }),
            None => Err(Error::Os { what: "access the memory of", pid, cause }),
        },
    }
}

fn system() -> String {
    let of = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!("{} {} {}", of("ostype").trim(), of("osrelease").trim(), std::env::consts::ARCH)
}

fn rights() -> Vec<Remark> {
    let privileges = [Privilege::Ptrace, Privilege::Bpf, Privilege::Perfmon, Privilege::Admin];
    let held: Vec<_> = privileges.into_iter().filter(|privilege| privilege.is_held()).map(Privilege::name).collect();
    let user = nix::unistd::geteuid();
    let mut remarks = vec![Remark::fine(match held.is_empty() {
        true => format!("user {user} without capabilities"),
        false => format!("user {user} with {}", held.join(", ")),
    })];
    if is_confined() {
        remarks.push(Remark::bad(
            "in a user namespace (a rootless container): capabilities end at its border",
            "run memleax outside of it",
        ));
    }
    if Status::of_this_thread().is_ok_and(|status| status.seccomp != 0) {
        remarks.push(Remark::bad(
            "under a filter of system calls (a container's), which may deny what the capabilities allow",
            "run memleax outside, or without the filter (for example `--security-opt seccomp=unconfined`)",
        ));
    }
    remarks
}

fn tracing() -> Vec<Remark> {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let everybody = Privilege::Ptrace.is_held();
    let allow = "run memleax as root, or allow it: `sudo sysctl -w kernel.yama.ptrace_scope=0`";
    let scope = match (scope.trim(), everybody) {
        ("3", _) => Remark::bad(
            "kernel.yama.ptrace_scope is 3: no tracing at all",
            "set it to less in /etc/sysctl.d and reboot",
        ),
        (_, true) => Remark::fine("processes of every user may be traced (CAP_SYS_PTRACE)"),
        ("1", false) => Remark::bad("kernel.yama.ptrace_scope is 1: only our own children may be traced", allow),
        ("2", false) => Remark::bad("kernel.yama.ptrace_scope is 2: only root may trace", allow),
        (_, false) => Remark::fine("processes of the same user may be traced; those of others need root"),
    };
    vec![scope]
}

fn programs() -> Vec<Remark> {
    let mut remarks = vec![match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Remark::fine("the kernel describes its types (/sys/kernel/btf/vmlinux)"),
        false => Remark::bad(
            "the kernel does not describe its types (no /sys/kernel/btf/vmlinux): only the programs for old kernels can be loaded",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, or mount sysfs",
        ),
    }];
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if lockdown.contains("[confidentiality]") {
        remarks.push(Remark::bad(
            "the kernel is locked down (confidentiality): programs may not read its memory",
            "boot with lockdown=integrity or none",
        ));
    }
    remarks
}
