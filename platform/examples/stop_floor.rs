//! What one stop of a traced thread costs at the least: nanoseconds for waiting, looking and resuming.
//!
//! The target executes breakpoint instructions in a loop. Run it with `--release` on a machine that is otherwise idle.
#![expect(clippy::print_stdout, reason = "this program's purpose")]

use std::error::Error;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use memleax_platform::{NativeTracer, Pid, Report, Resume, Stop, StopKind, Tracer};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid as ThreadId;

const STOPS: u32 = 20_000;
const WARM_UP: u32 = 2_000;

/// Where tracer and target run.
#[derive(Clone, Copy)]
enum Placement {
    /// Where the kernel and the tracer itself put them.
    Free,
    /// Both bound to one CPU.
    One,
    /// Each bound to a CPU of its own.
    Two,
}

/// What is done in a stop, each with what stands above it.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Work {
    Resume,
    Registers,
    ProgramCounter,
    Stack,
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("target") {
        return target();
    }
    let all = sched_getaffinity(ThreadId::from_raw(0))?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false)).collect();
    let placements = [
        ("as the kernel and the tracer place them", Placement::Free, 1),
        ("tracer and target bound to one CPU", Placement::One, 1),
        ("tracer and target bound to two CPUs", Placement::Two, 2),
    ];
    let works = [
        ("wait, resume", Work::Resume),
        ("+ read the registers", Work::Registers),
        ("+ set the program counter", Work::ProgramCounter),
        ("+ read 4 KiB of the stack", Work::Stack),
    ];
    println!("ns a stop");
    for (title, placement, needed) in placements {
        if cpus.len() < needed {
            continue;
        }
        println!("{title}");
        for (name, work) in works {
            println!("    {name:26} {:>8}", measure(placement, &cpus, work)?);
            sched_setaffinity(ThreadId::from_raw(0), &all)?;
        }
    }
    Ok(())
}

/// Nanoseconds for one stop.
fn measure(placement: Placement, cpus: &[usize], work: Work) -> Result<u128, Box<dyn Error>> {
    if !matches!(placement, Placement::Free) {
        bind(cpus[0])?;
    }
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("target").stdin(Stdio::piped()).stdout(Stdio::null());
    if let Placement::Two = placement {
        command.arg(cpus[1].to_string());
    }
    let mut child = command.spawn()?;
    let result = measure_child(&mut child, work);
    child.kill()?;
    child.wait()?;
    result
}

fn measure_child(child: &mut Child, work: Work) -> Result<u128, Box<dyn Error>> {
    let mut tracer = NativeTracer::default();
    tracer.attach(Pid(i32::try_from(child.id())?))?;
    child.stdin.take().ok_or("no pipe")?.write_all(b"\n")?;
    let mut start = Instant::now();
    let mut stops = 0;
    while stops < STOPS {
        let Report::Stopped(stop) = tracer.wait()? else { return Err("the target has ended".into()) };
        if stop.kind != StopKind::Trap {
            tracer.resume(stop, Resume::Deliver)?;
            continue;
        }
        stops += 1;
        if stops == WARM_UP {
            start = Instant::now();
        }
        look(&mut tracer, &stop, work)?;
        tracer.resume(stop, Resume::Swallow)?;
    }
    Ok(start.elapsed().as_nanos() / u128::from(STOPS - WARM_UP))
}

fn look(tracer: &mut NativeTracer, stop: &Stop, work: Work) -> Result<(), Box<dyn Error>> {
    if work >= Work::Registers {
        let registers = tracer.registers(stop)?;
        if work >= Work::ProgramCounter {
            tracer.set_program_counter(stop, registers.rip)?;
        }
        if work >= Work::Stack {
            tracer.read(stop, registers.rsp, &mut [0; 4096])?;
        }
    }
    Ok(())
}

fn bind(cpu: usize) -> Result<(), Box<dyn Error>> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(ThreadId::from_raw(0), &set)?)
}

/// Waits until it is traced, then executes breakpoint instructions until it is killed (or no longer traced).
fn target() -> Result<(), Box<dyn Error>> {
    if let Some(cpu) = std::env::args().nth(2) {
        bind(cpu.parse()?)?;
    }
    std::io::stdin().read_exact(&mut [0])?;
    loop {
        // SAFETY: changes neither memory nor registers.
        unsafe { std::arch::asm!("int3", options(nomem, nostack)) };
    }
}
