//! The tracing process: a copy of the test program, so that it can be killed. Obeys one command a line.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use memleax_platform::linux::LinuxTracer;
use memleax_platform::{Error, Guard, Leftover, Pid, Report, Resume, Stop, StopKind, Tracer};

/// What replies begin with, amid the test runner's own output.
pub(crate) const REPLY: &str = "reply: ";

const INT3: u8 = 0xcc;
const AREA: usize = 64 << 10;

/// `mov %rdi, %rax`, the instruction that breakpoints are set at: may be executed anywhere.
const DISPLACED: [u8; 3] = [0x48, 0x89, 0xf8];

#[derive(Clone, Copy)]
struct Breakpoint {
    slot: u64,
    original: u8,
}

#[derive(Default)]
struct State {
    tracer: LinuxTracer,
    pid: Option<Pid>,
    /// Of the halted process.
    stops: Vec<Stop>,
    breakpoints: HashMap<u64, Breakpoint>,
    /// Executes what a breakpoint displaces itself, rather than in the slot.
    emulates: bool,
    /// Makes system calls in the name of each thread that stops.
    always_calls: bool,
    hits: u64,
}

/// Obeys until there are no more commands, or the target has ended.
pub(crate) fn obey() {
    let commands = read_commands();
    let mut state = State::default();
    state.tracer.set_tick(Duration::from_millis(2)).expect("a timer");
    loop {
        match commands.try_recv() {
            Ok(command) => {
                let reply = state.execute(&command).unwrap_or_else(|error| format!("error: {error}"));
                writeln!(std::io::stdout(), "\n{REPLY}{reply}").expect("the test reads");
            }
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if state.pid.is_none() || !state.stops.is_empty() => {
                std::thread::yield_now();
            }
            Err(TryRecvError::Empty) => {
                let report = state.tracer.wait().expect("a report");
                state.handle(report).expect("handled");
            }
        }
    }
}

fn read_commands() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl State {
    fn execute(&mut self, command: &str) -> Result<String, Error> {
        let (command, argument) = command.split_once(' ').unwrap_or((command, ""));
        let number = || u64::from_str_radix(argument.trim_start_matches("0x"), 16).expect("a number");
        match command {
            "attach" => {
                let pid = Pid(argument.parse().expect("a pid"));
                self.tracer.attach(pid)?;
                self.pid = Some(pid);
                self.halt()?;
            }
            "halt" => self.halt()?,
            "freeze" => self.stops = self.tracer.halt(self.pid.expect("attached"))?,
            "undo" => self.undo()?,
            "always-call" => self.always_calls = true,
            "run" => self.run()?,
            "install" => {
                // No thread that has met a breakpoint which is no more there.
                let stop = self.stops.iter().find(|stop| stop.kind == StopKind::Halted).expect("a quiet thread");
                self.tracer.install_guard(stop)?;
            }
            "remove" => self.tracer.remove_guard(&self.stops[0])?,
            "plant" => self.plant(number())?,
            "restore" => self.restore()?,
            "emulate" => self.emulates = true,
            "fill" => self.fill(number())?,
            "call" => self.call_in_each(number())?,
            "areas" => {
                for _ in 0..number() {
                    let near = self.tracer.registers(&self.stops[0])?.rip;
                    self.tracer.map_code(&self.stops[0], near, AREA)?;
                }
            }
            "call-for-ever" => loop {
                self.call_in_each(1)?;
            },
            "adopt" => return self.adopt(),
            "take-away" => return self.take_leftovers_away().map(|(leftovers, _)| leftovers.len().to_string()),
            "detach" => {
                for stop in std::mem::take(&mut self.stops) {
                    self.tracer.detach(stop, Resume::Deliver)?;
                }
                self.pid = None;
            }
            "lost" => return Ok(self.tracer.guard_lost(self.pid.expect("attached")).to_string()),
            "hits" => return Ok(self.hits.to_string()),
            other => panic!("unknown command {other}"),
        }
        Ok("ok".into())
    }

    /// No thread is in a stop for a breakpoint afterwards: those are at the breakpoint again.
    fn halt(&mut self) -> Result<(), Error> {
        let pid = self.pid.expect("attached");
        loop {
            self.stops.extend(self.tracer.halt(pid)?);
            let mut halted = Vec::new();
            let mut all = true;
            for stop in std::mem::take(&mut self.stops) {
                match self.breakpoint_of(&stop)? {
                    Some((address, _)) => {
                        self.tracer.set_program_counter(&stop, address)?;
                        self.tracer.resume(stop, Resume::Swallow)?;
                        all = false;
                    }
                    None => halted.push(stop),
                }
            }
            self.stops = halted;
            if all || self.breakpoints.is_empty() {
                return Ok(());
            }
            if !self.stops.is_empty() && self.is_restored()? {
                continue;
            }
            // With the breakpoints in place, the same threads may meet them for ever: go on from where all but they
            // stand.
            self.stops.extend(self.tracer.halt(pid)?);
            return self.move_to_slots();
        }
    }

    fn is_restored(&mut self) -> Result<bool, Error> {
        let mut restored = true;
        for &address in self.breakpoints.keys() {
            let mut byte = [0];
            self.tracer.read(&self.stops[0], address, &mut byte)?;
            restored &= byte != [INT3];
        }
        Ok(restored)
    }

    fn move_to_slots(&mut self) -> Result<(), Error> {
        for stop in std::mem::take(&mut self.stops) {
            if let Some((_, breakpoint)) = self.breakpoint_of(&stop)? {
                self.tracer.set_program_counter(&stop, breakpoint.slot)?;
                self.hits += 1;
                self.tracer.resume(stop, Resume::Swallow)?;
            } else {
                self.stops.push(stop);
            }
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Error> {
        for stop in std::mem::take(&mut self.stops) {
            self.tracer.resume(stop, Resume::Deliver)?;
        }
        Ok(())
    }

    fn breakpoint_of(&mut self, stop: &Stop) -> Result<Option<(u64, Breakpoint)>, Error> {
        if stop.kind != StopKind::Trap {
            return Ok(None);
        }
        let address = self.tracer.registers(stop)?.rip - 1;
        Ok(self.breakpoints.get(&address).map(|&breakpoint| (address, breakpoint)))
    }

    fn handle(&mut self, report: Report) -> Result<(), Error> {
        let stop = match report {
            Report::Stopped(stop) => stop,
            Report::ProcessEnded { pid, .. } if Some(pid) == self.pid => {
                self.pid = None;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let result = self.handle_stop(stop);
        if matches!(result, Err(Error::Gone(_))) { Ok(()) } else { result }
    }

    fn handle_stop(&mut self, stop: Stop) -> Result<(), Error> {
        if self.always_calls {
            call(&mut self.tracer, &stop)?;
        }
        if let Some((address, breakpoint)) = self.breakpoint_of(&stop)? {
            self.hits += 1;
            if self.emulates {
                let mut registers = self.tracer.registers(&stop)?;
                registers.rax = registers.rdi;
                registers.rip = address + DISPLACED.len() as u64;
                self.tracer.set_registers(&stop, &registers)?;
            } else {
                self.tracer.set_program_counter(&stop, breakpoint.slot)?;
            }
            return self.tracer.resume(stop, Resume::Swallow);
        }
        if let StopKind::Forked { .. } = stop.kind {
            for (&address, breakpoint) in &self.breakpoints {
                self.tracer.write(&stop, address, &[breakpoint.original])?;
            }
            self.tracer.remove_guard(&stop)?;
            return self.tracer.detach(stop, Resume::Deliver);
        }
        if stop.kind == StopKind::Exec {
            self.breakpoints.clear();
            self.tracer.install_guard(&stop)?;
        }
        self.tracer.resume(stop, Resume::Deliver)
    }

    fn plant(&mut self, address: u64) -> Result<(), Error> {
        let stop = &self.stops[0];
        let slot = self.tracer.map_code(stop, address, AREA)?;
        let mut code = [0; DISPLACED.len()];
        self.tracer.read(stop, address, &mut code)?;
        assert_eq!(code, DISPLACED);
        let end = DISPLACED.len() as u64;
        let back = (address + end).wrapping_sub(slot + end + 5) as u32;
        let slot_code = [&DISPLACED[..], &[0xe9], &back.to_le_bytes()].concat();
        self.tracer.write(stop, slot, &slot_code)?;
        self.tracer.guard(stop, Guard { breakpoint: address, slot, original: code[0] })?;
        self.tracer.write(stop, address, &[INT3])?;
        self.breakpoints.insert(address, Breakpoint { slot, original: code[0] });
        Ok(())
    }

    /// Takes the breakpoints away, and all threads out of the slots, which are unmapped.
    fn restore(&mut self) -> Result<(), Error> {
        for (&address, breakpoint) in &self.breakpoints {
            self.tracer.write(&self.stops[0], address, &[breakpoint.original])?;
        }
        self.halt()?;
        let breakpoints = std::mem::take(&mut self.breakpoints);
        for (address, breakpoint) in breakpoints {
            for stop in &self.stops {
                let pc = self.tracer.registers(stop)?.rip;
                let offset = pc.wrapping_sub(breakpoint.slot);
                if offset <= DISPLACED.len() as u64 {
                    self.tracer.set_program_counter(stop, address + offset)?;
                }
            }
            self.tracer.unmap_code(&self.stops[0], breakpoint.slot, AREA)?;
        }
        Ok(())
    }

    /// Tells the guard of `count` breakpoints that there are not.
    fn fill(&mut self, count: u64) -> Result<(), Error> {
        for index in 0..count {
            let address = 0x1000 + index * 3;
            self.tracer.guard(&self.stops[0], Guard { breakpoint: address, slot: address + 1, original: 0x90 })?;
        }
        Ok(())
    }

    /// Makes system calls in the name of each thread.
    fn call_in_each(&mut self, times: u64) -> Result<(), Error> {
        for stop in &self.stops {
            for _ in 0..times {
                call(&mut self.tracer, stop)?;
            }
        }
        Ok(())
    }

    /// Takes the breakpoints and the guard away while threads are in stops for breakpoints.
    fn undo(&mut self) -> Result<(), Error> {
        for (&address, breakpoint) in &self.breakpoints {
            self.tracer.write(&self.stops[0], address, &[breakpoint.original])?;
        }
        for stop in std::mem::take(&mut self.stops) {
            if let Some((address, _)) = self.breakpoint_of(&stop)? {
                self.tracer.set_program_counter(&stop, address)?;
            }
            self.stops.push(stop);
        }
        self.tracer.remove_guard(&self.stops[0])
    }

    /// Takes away what a killed tracer left, though not the threads that have met it.
    fn take_leftovers_away(&mut self) -> Result<(Vec<Leftover>, usize), Error> {
        let leftovers = self.tracer.leftovers(&self.stops[0])?;
        let mut restored = 0;
        for leftover in &leftovers {
            let mut byte = [0];
            if self.tracer.read(&self.stops[0], leftover.address, &mut byte)? == 1 && byte == [INT3] {
                self.tracer.write(&self.stops[0], leftover.address, &[leftover.original])?;
                restored += 1;
            }
        }
        Ok((leftovers, restored))
    }

    /// Takes away what a killed tracer left.
    fn adopt(&mut self) -> Result<String, Error> {
        let (leftovers, restored) = self.take_leftovers_away()?;
        let mut stops = Vec::new();
        for stop in std::mem::take(&mut self.stops) {
            let pc = self.tracer.registers(&stop)?.rip;
            if stop.kind == StopKind::Trap && leftovers.iter().any(|leftover| leftover.address == pc - 1) {
                self.tracer.set_program_counter(&stop, pc - 1)?;
                self.tracer.resume(stop, Resume::Swallow)?;
            } else {
                stops.push(stop);
            }
        }
        self.stops = stops;
        self.halt()?;
        Ok(format!("{} {restored}", leftovers.len()))
    }
}

/// Makes two system calls in the name of a thread.
fn call(tracer: &mut LinuxTracer, stop: &Stop) -> Result<(), Error> {
    let near = tracer.registers(stop)?.rip;
    let address = tracer.map_code(stop, near, AREA)?;
    tracer.unmap_code(stop, address, AREA)
}
