use std::collections::BTreeMap;
use std::sync::Arc;

use anstream::StripStream;
use insta::assert_snapshot;
use memleax_platform::Signal;

use super::*;
use crate::event::{Ending, HookedModule, Loss};
use crate::symbol::{Function, NamedFrame};
use crate::tracker::CallStackNumber;
use crate::tracker::LiveTime;

/// What `write` reports, without colours.
fn plain(write: impl FnOnce(&mut Text<StripStream<Vec<u8>>>) -> io::Result<()>) -> String {
    let mut text = Text::new(StripStream::new(Vec::new()));
    write(&mut text).expect("a Vec takes everything");
    String::from_utf8(text.output.into_inner()).expect("UTF-8")
}

fn backtrace(stack: &NamedStack) -> String {
    plain(|text| backtrace::write(stack, text.output()))
}

fn function(name: &str, offset: u64, file: &str, line: u32) -> Function {
    let file = Some(file.to_owned()).filter(|file| !file.is_empty());
    let line = Some(line).filter(|&line| line > 0);
    Function { name: name.to_owned(), raw: name.to_owned(), offset: Some(offset), file, line, inlined: false }
}

fn inlined(name: &str, file: &str, line: u32) -> Function {
    Function { offset: None, inlined: true, ..function(name, 0, file, line) }
}

fn frame(address: u64, module: &str, functions: Vec<Function>) -> Arc<NamedFrame> {
    Arc::new(NamedFrame { address, module: module.to_owned(), offset: address & 0xF_FFFF, functions })
}

fn stack(frames: Vec<Arc<NamedFrame>>, ending: Ending) -> NamedStack {
    NamedStack { frames, ending, by_frame_pointer: false }
}

/// The example of the original's manual page, as unwound: beyond `main`.
fn example() -> NamedStack {
    let frames = vec![
        frame(0x7fd3_22bd_8220, "/usr/lib64/libc-2.17.so", vec![function("malloc", 0, "", 0)]),
        frame(0x40_084e, "/tmp/test", vec![function("foo", 14, "foo.c", 12)]),
        frame(0x40_0875, "/tmp/test", vec![function("bar", 37, "bar.c", 20)]),
        frame(0x40_0acb, "/tmp/test", vec![function("main", 364, "test.c", 80)]),
        frame(0x7fd3_22b7_8555, "/usr/lib64/libc-2.17.so", vec![function("__libc_start_main", 245, "", 0)]),
    ];
    stack(frames, Ending::Complete)
}

fn never(_: StackId) -> NamedStack {
    unreachable!("no call stack is printed")
}

fn tally(count: u64, bytes: u64) -> Tally {
    Tally { count, bytes }
}

fn statistics() -> Statistics {
    let seconds = Duration::from_secs;
    let first = CallStackStatistics {
        number: CallStackNumber(3),
        stack: StackId(8),
        expired: tally(20, 2020),
        freed_expired: tally(0, 0),
        allocated: tally(20, 2020),
        freed: tally(0, 0),
        freed_live_time: None,
        unfreed_live_time: Duration::from_millis(20_999),
    };
    let average = Duration::from_millis(3_999);
    let second = CallStackStatistics {
        number: CallStackNumber(1),
        stack: StackId(4),
        expired: tally(25, 5 << 30),
        freed_expired: tally(2, 1 << 30),
        allocated: tally(1 << 40, 1 << 62),
        freed: tally(9, 8 << 30),
        freed_live_time: Some(LiveTime { min: seconds(1), max: seconds(14), average }),
        unfreed_live_time: seconds(3600),
    };
    Statistics {
        monitored: seconds(60),
        expire: seconds(10),
        call_stacks: vec![first, second],
        never_freed: tally(23, 4 << 30),
        unexpired: tally(0, 0),
        unknown_frees: 0,
        unseen_frees: tally(0, 0),
        dropped_by_exec: tally(0, 0),
        losses: BTreeMap::new(),
    }
}

#[test]
fn start_lines() {
    let hooked = HookedModule { path: "/usr/lib/libc.so.6".to_owned(), functions: vec!["malloc", "calloc", "free"] };
    let text = plain(|text| {
        text.begin(Pid(1234), "ptrace", Duration::from_secs(360))?;
        text.notice(&Notice::Hooked(hooked))?;
        text.notice(&Notice::Warning("2 threads block SIGTRAP".to_owned()))?;
        text.notice(&Notice::Exec("/bin/true".to_owned()))
    });
    assert_snapshot!(text, @r"
    == Begin monitoring process 1234...
    -- Backend: ptrace. Memory expires after 360 seconds.
    -- Hooked in /usr/lib/libc.so.6: malloc, calloc, free
    Warning: 2 threads block SIGTRAP
    -- The target replaced its program by /bin/true (exec). Monitoring goes on.
    ");
}

#[test]
fn live_lines() {
    let callstack = CallStackNumber(3);
    let text = plain(|text| {
        text.finding(&Finding::Expired { callstack, stack: StackId(7), bytes: 101 }, Some(&example()))?;
        text.finding(&Finding::ExpiredAgain { callstack, bytes: 3 << 30, count: 2 }, None)?;
        text.finding(&Finding::ExpiredFreed { callstack, after: Duration::from_millis(10_999) }, None)?;
        text.finding(&Finding::Muted { callstack }, None)
    });
    assert_snapshot!(text, @r"
    CallStack[3]: memory expires with 101 bytes, backtrace:
        0x00007fd322bd8220  libc-2.17.so  malloc()+0
        0x000000000040084e  test  foo()+14  foo.c:12
        0x0000000000400875  test  bar()+37  bar.c:20
        0x0000000000400acb  test  main()+364  test.c:80
    CallStack[3]: memory expires with 3221225472 bytes, 2 times again
    CallStack[3]: expired-memory frees after 10 seconds
    Warning: too many expired-free at CallStack[3]. will not show this CallStack later
    ");
}

#[test]
fn frames_of_every_kind() {
    let frames = vec![
        frame(0x7f00_0010_1234, "/usr/lib/libstripped.so", vec![]),
        frame(0x7f00_0000_0010, "", vec![]),
        frame(0x7f00_0000_0020, "[vdso]", vec![function("__vdso_time", 5, "", 0)]),
        frame(
            0x40_1000,
            "/tmp/app",
            vec![
                inlined("std::make_shared<int>(int)", "/usr/include/memory.h", 40),
                inlined("build", "", 0),
                function("Tree::grow(unsigned long) const", 300, "tree.cc", 9),
            ],
        ),
        frame(0x40_2000, "/tmp/app", vec![function("app::main", 7, "main.rs", 3)]),
        frame(0x40_3000, "/tmp/app", vec![function("", 16, "gone.c", 0)]),
    ];
    let text = backtrace(&stack(frames, Ending::Complete));
    assert_snapshot!(text, @r"
    0x00007f0000101234  libstripped.so+0x1234
    0x00007f0000000010  ??
    0x00007f0000000020  [vdso]  __vdso_time()+5
    [inlined]           app  std::make_shared<int>(int)  /usr/include/memory.h:40
    [inlined]           app  build()
    0x0000000000401000  app  Tree::grow(unsigned long) const+300  tree.cc:9
    0x0000000000402000  app  app::main()+7  main.rs:3
    0x0000000000403000  app  ?()+16  gone.c
    ");
}

#[test]
fn functions_are_marked_as_such_once() {
    for (name, marked) in [
        ("malloc", "malloc()"),
        ("operator new(unsigned long)", "operator new(unsigned long)"),
        ("Stack::push(int) const &", "Stack::push(int) const &"),
        ("grow(int) [clone .cold]", "grow(int) [clone .cold]"),
        ("Less::operator()", "Less::operator()()"),
        ("<fn() as core::ops::FnOnce<()>>::call_once", "<fn() as core::ops::FnOnce<()>>::call_once()"),
        ("app::main::{{closure}}", "app::main::{{closure}}()"),
        ("<&mut [u8] as Read>::read", "<&mut [u8] as Read>::read()"),
    ] {
        let line = plain(|text| backtrace::write_function(&function(name, 1, "", 0), text.output()));
        assert_eq!(line, format!("  {marked}+1\n"));
    }
}

#[test]
fn a_stack_that_ended_early_says_why() {
    let leaf = || vec![frame(0x40_084e, "/tmp/test", vec![function("foo", 14, "foo.c", 12)])];
    let reason = |ending| backtrace(&stack(leaf(), ending));
    let lines = [
        Ending::Complete,
        Ending::DepthLimit,
        Ending::NoUnwindInfo,
        Ending::UnknownCode,
        Ending::HiddenByProbe,
        Ending::UnreadableStack,
        Ending::Inconsistent,
    ]
    .map(|ending| reason(ending).lines().skip(1).map(|line| format!("{ending:?}:{line}\n")).collect::<String>());
    assert_snapshot!(lines.concat(), @r"
    DepthLimit:    -- backtrace cut off here by the depth limit (`-l`)
    NoUnwindInfo:    -- backtrace ends here: no unwind information for this address
    UnknownCode:    -- backtrace ends here: this code is in no file
    HiddenByProbe:    -- backtrace ends here: a uprobe of another tool, on the return of this function, hides from where it was called
    UnreadableStack:    -- backtrace ends here: the stack could not be read
    Inconsistent:    -- backtrace ends here: the unwind information contradicts the stack
    ");
    let guessed = NamedStack { by_frame_pointer: true, ..stack(leaf(), Ending::NoUnwindInfo) };
    assert_snapshot!(backtrace(&guessed), @r"
    0x000000000040084e  test  foo()+14  foo.c:12
    -- backtrace found in part by frame pointers, for want of unwind information: may be wrong
    -- backtrace ends here: no unwind information for this address
    ");
}

#[test]
fn a_stack_that_reached_main_needs_no_reason() {
    let cut = stack(example().frames, Ending::DepthLimit);
    assert!(backtrace(&cut).ends_with("main()+364  test.c:80\n"));
}

#[test]
fn ends() {
    let callstack = CallStackNumber(2);
    let text = plain(|text| {
        text.end(End::Terminated)?;
        text.end(End::TargetEnded(ExitStatus::Exited(0)))?;
        text.end(End::TargetEnded(ExitStatus::Exited(3)))?;
        text.end(End::TargetEnded(ExitStatus::Killed(Signal(11))))?;
        text.end(End::Limit(Limit::ExpiredBlocks { callstack, count: 1000, freed: 0 }))?;
        text.end(End::Limit(Limit::ExpiredBlocks { callstack, count: 1000, freed: 7 }))?;
        text.end(End::Limit(Limit::CallStacks { count: 50 }))?;
        text.end(End::Limit(Limit::LeakedBlocks { count: 60 }))
    });
    assert_snapshot!(text, @r"

    == Terminate monitoring.

    == Target process exit.

    == Target process exit.
    -- Its exit status is 3.

    == Target process exit.
    -- It was killed by signal 11.

    == 1000 memory blocks leaked at CallStack[2].

    == 1000 memory blocks leaked at CallStack[2].
    -- 7 of them were freed since. Maybe you should set bigger expired time by `-e`.

    == 50 CallStacks gets memory leak.
    -- Maybe you should set bigger expired time by `-e`.

    == 60 memory blocks leaked in all.
    ");
}

#[test]
fn final_statistics() {
    let mut asked = Vec::new();
    let text = plain(|text| {
        text.statistics(&statistics(), &mut |stack| {
            asked.push(stack.0);
            example()
        })
    });
    assert_eq!(asked, [8, 4]);
    assert_snapshot!(text, @r"
    == Callstack statistics: (in ascending order)

    CallStack[3]: may-leak=20 (2020 bytes)
        expired=20 (2020 bytes), free_expired=0 (0 bytes)
        alloc=20 (2020 bytes), free=0 (0 bytes)
        freed memory live time: min=0 max=0 average=0
        un-freed memory live time: max=20
        0x00007fd322bd8220  libc-2.17.so  malloc()+0
        0x000000000040084e  test  foo()+14  foo.c:12
        0x0000000000400875  test  bar()+37  bar.c:20
        0x0000000000400acb  test  main()+364  test.c:80

    CallStack[1]: may-leak=23 (4294967296 bytes)
        expired=25 (5368709120 bytes), free_expired=2 (1073741824 bytes)
        alloc=1099511627776 (4611686018427387904 bytes), free=9 (8589934592 bytes)
        freed memory live time: min=1 max=14 average=3
        un-freed memory live time: max=3600
        0x00007fd322bd8220  libc-2.17.so  malloc()+0
        0x000000000040084e  test  foo()+14  foo.c:12
        0x0000000000400875  test  bar()+37  bar.c:20
        0x0000000000400acb  test  main()+364  test.c:80
    ");
}

#[test]
fn statistics_without_call_stacks() {
    let none = Statistics { call_stacks: Vec::new(), ..statistics() };
    assert_eq!(plain(|text| text.statistics(&none, &mut never)), "== No expired memory blocks.\n\n");
    let short = Statistics { monitored: Duration::from_secs(9), expire: Duration::from_millis(9_500), ..none };
    let text = plain(|text| text.statistics(&short, &mut never));
    assert_eq!(text, "== Your monitoring time is too short. 10 seconds is need.\n");
}

#[test]
fn whatever_is_not_in_the_numbers_is_said() {
    let lacking = Statistics {
        call_stacks: Vec::new(),
        never_freed: tally(23, 4 << 30),
        unexpired: tally(12, 3400),
        dropped_by_exec: tally(1, 8),
        unknown_frees: 1,
        unseen_frees: tally(2, 64),
        losses: BTreeMap::from([(Loss::ReturnUnobservable, 2), (Loss::NeverReturned, 1), (Loss::NoStack, 4)]),
        ..statistics()
    };
    assert_snapshot!(plain(|text| text.statistics(&lacking, &mut never)), @r"
    == No expired memory blocks.

    -- 12 memory blocks (3400 bytes) still live at the end had not expired.
    -- 1 memory block (8 bytes) live when the target replaced its program (exec) went away with it.
    -- 1 free of memory not known to be live ignored: from before monitoring began, or the allocator's own.
    Warning: 2 memory blocks (64 bytes) replaced without a seen free: the address was handed out again. Counted as freed.
    Warning: 2 allocations not seen: no breakpoint could be set at the return address.
    Warning: 1 allocator call never returned (longjmp, exception, end of the thread): what they allocated is not counted.
    Warning: 4 allocations without a backtrace: the stack could not be read.
    ");
}

#[test]
fn names_of_the_target_cannot_command_the_terminal() {
    let evil = vec![frame(0x10, "/tmp/a\x1b[2Jb\n", vec![function("f\x1b]0;x\x07", 0, "x\r.c", 1)])];
    let text = backtrace(&stack(evil, Ending::Complete));
    assert_eq!(text, "    0x0000000000000010  a\u{fffd}[2Jb\u{fffd}  f\u{fffd}]0;x\u{fffd}()+0  x\u{fffd}.c:1\n");
}

#[test]
fn colours_are_there_to_be_stripped() {
    let mut text = Text::new(Vec::new());
    text.end(End::Terminated).expect("a Vec takes everything");
    assert_eq!(String::from_utf8_lossy(&text.output), "\n\x1b[1m== Terminate monitoring.\x1b[0m\n");
}

#[test]
fn objects_are_told_with_their_type() {
    let callstack = CallStackNumber(3);
    let stacks = statistics();
    let none = Statistics { call_stacks: Vec::new(), unknown_frees: 2, ..statistics() };
    let text = plain(|text| {
        text.object_finding("conn", &Finding::Expired { callstack, stack: StackId(7), bytes: 0 }, Some(&example()))?;
        text.object_finding("conn", &Finding::ExpiredAgain { callstack, bytes: 8, count: 2 }, None)?;
        text.object_finding("conn", &Finding::ExpiredFreed { callstack, after: Duration::from_secs(9) }, None)?;
        text.object_finding("conn", &Finding::Muted { callstack }, None)?;
        text.object_statistics("conn", &stacks, &mut |_| example())?;
        text.object_statistics("conn", &none, &mut |_| example())?;
        text.objects_never_freed("conn", Tally { count: 1, bytes: 0 })?;
        text.objects_never_freed("conn", Tally::default())
    });
    assert_snapshot!(text);
}
