"""Run by gdb: stops a program at chosen places and writes down registers, stack memory and gdb's own backtrace.

Environment: STOPS_FILE, where to write; STOPS_AT, where to stop: functions, `;` between; STOPS_COUNT, how many stops;
STOPS_STEPS, how many single instructions to go on after each, each a stop, too; STOPS_SYMBOLS, the program with symbols
if it has none itself.

Format, a line each: `maps PATH` once; then for each stop `stop`, `reg NAME HEX`…, `memory HEX-ADDRESS HEX-BYTES`…,
`frame HEX-PC normal|signal`… and `end REASON`.
"""
import os
import gdb

REGISTERS = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip".split()
LONGEST = 1 << 18
DEPTH = 200

for setting in (
    "pagination off",
    "confirm off",
    "breakpoint pending on",
    "backtrace past-main on",
    "backtrace past-entry on",
    "debuginfod enabled off",
    "disable-randomization off",
    "detach-on-fork on",
):
    try:
        gdb.execute("set " + setting)
    except gdb.error:
        pass
for signal in ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGSEGV", "SIGPROF"):
    gdb.execute("handle %s nostop noprint pass" % signal)


def mappings(pid):
    with open("/proc/%d/maps" % pid) as lines:
        for line in lines:
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            yield start, end


def record(out):
    frame = gdb.newest_frame()
    out.write("stop\n")
    for name in REGISTERS:
        out.write("reg %s %x\n" % (name, int(frame.read_register(name)) & (2**64 - 1)))
    frames, spans, reason = [], {}, "depth"
    ranges = list(mappings(gdb.selected_inferior().pid))
    while frame is not None and len(frames) < DEPTH:
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            kind = "signal" if frame.type() == gdb.SIGTRAMP_FRAME else "normal"
            frames.append("frame %x %s\n" % (frame.pc(), kind))
            stack = int(frame.read_register("rsp")) & (2**64 - 1)
            for start, end in ranges:
                if start <= stack < end:
                    spans[end] = min(stack - 256, spans.get(end, stack))
        older = frame.older()
        if older is None:
            reason = gdb.frame_stop_reason_string(frame.unwind_stop_reason()).replace(" ", "-")
        frame = older
    for end, start in spans.items():
        start &= ~7
        data = gdb.selected_inferior().read_memory(start, min(end - start, LONGEST)).tobytes()
        out.write("memory %x %s\n" % (start, data.hex()))
    out.writelines(frames)
    out.write("end %s\n" % reason)


if "STOPS_SYMBOLS" in os.environ:
    gdb.execute("symbol-file " + os.environ["STOPS_SYMBOLS"])
with open(os.environ["STOPS_FILE"], "w") as out:
    for place in os.environ["STOPS_AT"].split(";"):
        gdb.execute("break " + place)
    gdb.execute("run", to_string=True)
    stops, steps = int(os.environ["STOPS_COUNT"]), int(os.environ.get("STOPS_STEPS", "0"))
    for stop in range(stops):
        if gdb.selected_thread() is None:
            break
        if stop == 0:
            pid = gdb.selected_inferior().pid
        record(out)
        for _ in range(steps):
            gdb.execute("stepi", to_string=True)
            if gdb.selected_thread() is None:
                break
            record(out)
        if gdb.selected_thread() is None:
            break
        with open("/proc/%d/maps" % gdb.selected_inferior().pid) as maps:
            last_maps = maps.read()
        try:
            gdb.execute("continue", to_string=True)
        except gdb.error:
            break
    for line in last_maps.splitlines():
        out.write("map %s\n" % line)
    try:
        gdb.execute("kill")
    except gdb.error:
        pass
