//! The guard inside a live target: what happens when the tracer is killed, and what is left when it is not.

#![cfg(target_os = "linux")]

mod process;
mod tracer;

use process::{Process, signal_of};

/// The tracing process of the other tests, and no test itself.
#[test]
#[ignore = "run by the other tests"]
fn the_tracer() {
    tracer::obey();
}

/// A tracer with a guard and a breakpoint in the target, which runs.
fn guarded(target: &Process, bump: &str) -> Process {
    let mut tracer = Process::tracer();
    tracer.commands(&[&format!("attach {}", target.pid()), "install", &format!("plant {bump}"), "run"]);
    tracer
}

/// Takes everything away and lets the target go.
fn detach(mut tracer: Process) {
    tracer.commands(&["halt", "restore", "remove", "detach"]);
}

/// Kills the tracer after some hits, while four threads of `target` meet a breakpoint without end. The tracer obeys
/// `before` before the first hit, and `after` before it is killed.
fn survives_kill(mut target: Process, round: usize, before: &[&str], after: &[&str]) {
    let bump = target.address();
    let mut tracer = Process::tracer();
    tracer.commands(&[&format!("attach {}", target.pid()), "install", &format!("plant {bump}")]);
    tracer.commands(before);
    tracer.commands(&["run"]);
    let wanted = 20 + 37 * (round as u64 % 10);
    while tracer.command("hits").parse::<u64>().expect("a number") < wanted {}
    tracer.commands(after);
    tracer.kill();
    assert_eq!(target.ask("s"), "right", "round {round}: {:?}", target.end());
    assert!(target.end().success(), "round {round}");
}

fn busy() -> Process {
    Process::target(&["busy", "4"])
}

#[test]
fn a_killed_tracer_with_slots_harms_nobody() {
    for round in 0..100 {
        survives_kill(busy(), round, &[], &[]);
    }
}

#[test]
fn a_killed_tracer_that_emulates_harms_nobody() {
    for round in 0..30 {
        survives_kill(busy(), round, &["emulate"], &[]);
    }
}

#[test]
fn a_tracer_killed_while_all_is_halted_harms_nobody() {
    for round in 0..20 {
        survives_kill(busy(), round, &[], &["freeze"]);
    }
}

#[test]
fn a_tracer_killed_before_the_last_step_of_a_detach_harms_nobody() {
    for round in 0..20 {
        survives_kill(busy(), round, &[], &["freeze", "undo"]);
    }
}

#[test]
fn a_tracer_killed_while_it_borrows_threads_harms_nobody() {
    for round in 0..40 {
        let mut target = busy();
        let bump = target.address();
        let mut tracer = guarded(&target, &bump);
        while tracer.command("hits").parse::<u64>().expect("a number") < 20 {}
        // Some threads are in stops for the breakpoint.
        tracer.commands(&["freeze"]);
        tracer.send("call-for-ever\n");
        kill_at_some_moment(&mut tracer, round);
        assert_eq!(target.ask("s"), "right", "round {round}: {:?}", target.end());
    }
}

#[test]
fn a_thread_borrowed_by_a_killed_tracer_waits_on() {
    // Not those that a signal interrupts: it may come while the thread finds its way back into the call.
    let calls = CALLS.iter().filter(|(_, letter, _)| *letter != "k").cycle();
    for (round, (call, letter, result)) in calls.take(20).enumerate() {
        let mut target = Process::target(&["wait", call]);
        let line = target.line();
        target.until_asleep(line.strip_prefix("waiting ").expect("a thread"));
        let mut tracer = Process::tracer();
        if tracer.command(&format!("attach {}", target.pid())) == "ok" {
            tracer.send("call-for-ever\n");
        }
        kill_at_some_moment(&mut tracer, round);
        target.send(letter);
        let line = target.line();
        assert!(line.starts_with(result), "round {round}: {call}: {line}");
    }
}

/// Not always at the same moment.
fn kill_at_some_moment(tracer: &mut Process, round: usize) {
    for _ in 0..round * 17 % 256 {
        std::thread::yield_now();
    }
    tracer.kill();
}

#[test]
fn executables_of_all_kinds_survive() {
    for flags in [&["-no-pie"][..], &["-static", "-no-pie"], &["-static-pie"]] {
        for round in 0..5 {
            survives_kill(Process::target_built(flags, &["busy", "4"]), round, &[], &[]);
        }
    }
}

#[test]
fn the_table_grows() {
    survives_kill(busy(), 1, &["fill 400", "areas 28", "fill 800"], &[]);
}

#[test]
fn handlers_of_the_program_get_what_is_theirs() {
    for (action, sent, flags) in [("handler", 0, "4000000"), ("info", -6, "54000004")] {
        let code = |code: i32| if sent == 0 { 0 } else { code };
        let mut target = Process::target(&["trap", action]);
        let bump = target.address();
        assert_eq!(target.ask("q"), format!("action {action} {flags} 1 200"));

        let tracer = guarded(&target, &bump);
        assert_eq!(target.ask("b"), "bumped 10");
        assert_eq!(target.ask("r"), format!("raised 1 {sent}"));
        assert_eq!(target.ask("i"), format!("int3 2 {}", code(0x80)));
        assert_eq!(target.ask("I"), format!("int3 3 {}", code(0x80)));
        assert!(target.ask("q").starts_with("action foreign"));
        detach(tracer);
        assert_eq!(target.ask("q"), format!("action {action} {flags} 1 200"));
        assert_eq!(target.ask("r"), format!("raised 4 {sent}"));

        guarded(&target, &bump).kill();
        assert_eq!(target.ask("b"), "bumped 20");
        assert_eq!(target.ask("r"), format!("raised 5 {sent}"));
        assert_eq!(target.ask("i"), format!("int3 6 {}", code(0x80)));
        assert_eq!(target.ask("I"), format!("int3 7 {}", code(0x80)));
        assert_eq!(target.ask("b"), "bumped 30");
        assert_eq!(target.ask("f"), "child 0");
    }
}

#[test]
fn a_handler_for_once_is_called_once() {
    for kills in [false, true] {
        let mut target = Process::target(&["trap", "once"]);
        let bump = target.address();
        let mut tracer = guarded(&target, &bump);
        if kills {
            tracer.kill();
        }
        assert_eq!(target.ask("b"), "bumped 10");
        assert_eq!(target.ask("r"), "raised 1 -6");
        assert_eq!(target.ask("q"), "action default 0 0 0");
        if !kills {
            assert_eq!(tracer.command("lost"), "true");
            tracer.commands(&["halt", "install", "run"]);
            detach(tracer);
            assert_eq!(target.ask("q"), "action default 0 0 0");
        }
        target.send("r");
        assert_eq!(signal_of(target.end()), Some(libc::SIGTRAP));
    }
}

#[test]
fn by_default_the_program_dies_of_its_own_traps() {
    for (letter, kills) in [("r", false), ("r", true), ("i", false), ("i", true), ("I", true), ("s", true), ("t", true)]
    {
        let mut target = Process::target(&["trap", "default"]);
        let bump = target.address();
        let mut tracer = guarded(&target, &bump);
        if kills {
            tracer.kill();
        }
        assert_eq!(target.ask("b"), "bumped 10");
        assert_eq!(target.ask(letter), "", "{letter} {kills}");
        assert_eq!(signal_of(target.end()), Some(libc::SIGTRAP), "{letter} {kills}");
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let mut target = Process::target(&["trap", "ignore"]);
    let bump = target.address();
    let action = target.ask("q");
    assert!(action.starts_with("action ignore"), "{action}");
    let tracer = guarded(&target, &bump);
    assert_eq!(target.ask("b"), "bumped 10");
    assert_eq!(target.ask("r"), "raised 0 0");
    detach(tracer);
    assert_eq!(target.ask("q"), action);

    guarded(&target, &bump).kill();
    assert_eq!(target.ask("b"), "bumped 20");
    assert_eq!(target.ask("r"), "raised 0 0");
    target.send("i");
    assert_eq!(signal_of(target.end()), Some(libc::SIGTRAP), "an int3 cannot be ignored");
}

#[test]
fn nothing_is_left_after_a_clean_detach() {
    let mut target = Process::target(&["trap", "default"]);
    let bump = target.address();
    let before = [target.ask("q"), target.ask("m"), target.ask("y")];
    for _ in 0..20 {
        let mut tracer = guarded(&target, &bump);
        tracer.commands(&["halt", "fill 320", "run"]);
        assert!(target.ask("b").starts_with("bumped"));
        assert_eq!(target.ask("y"), "byte cc");
        detach(tracer);
        assert_eq!([target.ask("q"), target.ask("m"), target.ask("y")], before);
    }
}

#[test]
fn forked_children_have_nothing_left_either() {
    let mut target = Process::target(&["trap", "default"]);
    let bump = target.address();
    let tracer = guarded(&target, &bump);
    for _ in 0..10 {
        assert_eq!(target.ask("f"), "child 0");
    }
    detach(tracer);
    assert_eq!(target.ask("f"), "child 0");
}

#[test]
fn an_action_that_the_program_sets_later_stays() {
    let mut target = Process::target(&["trap", "default"]);
    let bump = target.address();
    let mut tracer = guarded(&target, &bump);
    assert_eq!(target.ask("h"), "set");
    assert_eq!(tracer.command("lost"), "false", "it still has a handler");
    assert_eq!(target.ask("r"), "raised 1 -6");
    detach(tracer);
    assert_eq!(target.ask("q"), "action info 54000004 1 200");
    assert_eq!(target.ask("r"), "raised 2 -6");
}

#[test]
fn an_action_that_the_program_saved_can_be_set_again() {
    let mut target = Process::target(&["trap", "handler"]);
    let bump = target.address();
    let tracer = guarded(&target, &bump);
    assert_eq!(target.ask("v"), "saved");
    detach(tracer);
    assert_eq!(target.ask("w"), "restored");
    assert!(target.ask("q").starts_with("action foreign"), "the guard, out of use");
    assert_eq!(target.ask("r"), "raised 1 0");
    assert_eq!(target.ask("i"), "int3 2 0");
}

#[test]
fn what_the_kernel_resets_is_set_again() {
    for action in ["default", "handler", "ignore"] {
        let mut target = Process::target(&["trap", action]);
        let bump = target.address();
        let before = target.ask("q");
        let mut tracer = guarded(&target, &bump);
        assert_eq!(tracer.command("lost"), "false");
        assert_eq!(target.ask("o"), "blocked 1");
        assert_eq!(tracer.command("lost"), "true");
        tracer.commands(&["halt", "install", "run"]);
        assert_eq!(tracer.command("lost"), "false");
        assert_eq!(target.ask("o"), "blocked 2", "and once more, not set again before the end");
        detach(tracer);
        assert_eq!(target.ask("q"), before, "{action}");
        assert_eq!(target.ask("b"), "bumped 12");
    }
}

#[test]
fn a_killed_tracers_breakpoints_are_taken_away() {
    for action in ["default", "handler", "ignore"] {
        let mut target = Process::target(&["trap", action]);
        let bump = target.address();
        let before = target.ask("q");
        let attach = format!("attach {}", target.pid());

        let mut first = guarded(&target, &bump);
        first.commands(&["halt", "fill 2bc", "run"]);
        first.kill();
        assert_eq!(target.ask("y"), "byte cc");

        // The second one takes them away and is killed, too.
        let mut second = Process::tracer();
        second.commands(&[&attach]);
        assert_eq!(second.command("adopt"), "701 1");
        second.commands(&["install", &format!("plant {bump}"), "run"]);
        assert_eq!(target.ask("b"), "bumped 10");
        second.kill();
        assert_eq!(target.ask("b"), "bumped 20");

        let mut third = Process::tracer();
        third.commands(&[&attach]);
        assert_eq!(third.command("adopt"), "701 1");
        third.commands(&["install", &format!("plant {bump}"), "run"]);
        assert_eq!(target.ask("b"), "bumped 30");
        detach(third);
        assert_eq!(target.ask("y"), "byte 48");
        assert_eq!(target.ask("q"), before, "{action}");

        let mut last = Process::tracer();
        last.commands(&[&attach]);
        assert_eq!(last.command("adopt"), "0 0", "a clean detach leaves nothing to be found");
        last.commands(&["detach"]);
    }
}

#[test]
fn breakpoints_that_nobody_took_away_stay_guarded() {
    let mut target = Process::target(&["trap", "default"]);
    let bump = target.address();
    guarded(&target, &bump).kill();
    let mut tracer = Process::tracer();
    tracer.commands(&[&format!("attach {}", target.pid()), "install", "detach"]);
    assert_eq!(target.ask("b"), "bumped 10");
}

#[test]
fn an_adopted_busy_target_is_not_harmed() {
    let mut target = Process::target(&["busy", "4"]);
    let bump = target.address();
    for _ in 0..20 {
        let mut tracer = Process::tracer();
        tracer.commands(&[&format!("attach {}", target.pid())]);
        assert!(tracer.command("adopt").ends_with(" 1") || tracer.command("adopt").ends_with(" 0"));
        tracer.commands(&["install", &format!("plant {bump}"), "run"]);
        while tracer.command("hits").parse::<u64>().expect("a number") < 20 {}
        tracer.kill();
    }
    assert_eq!(target.ask("s"), "right");
}

#[test]
fn a_tracer_killed_amid_an_adoption_harms_nobody() {
    for _ in 0..20 {
        let mut target = busy();
        let bump = target.address();
        let mut first = guarded(&target, &bump);
        while first.command("hits").parse::<u64>().expect("a number") < 20 {}
        first.kill();
        let mut second = Process::tracer();
        second.commands(&[&format!("attach {}", target.pid())]);
        assert_eq!(second.command("take-away"), "1");
        second.commands(&["install"]);
        second.kill();
        assert_eq!(target.ask("s"), "right");
    }
}

/// The call, the letter that lets it end (or none), and what it then returns.
const CALLS: [(&str, &str, &str); 18] = [
    ("nanosleep", "", "result 0 - late"),
    ("clock_nanosleep", "", "result 0 - late"),
    ("futex", "", "result -1 ETIMEDOUT late"),
    ("poll", "", "result 0 - late"),
    ("ppoll", "", "result 0 - late"),
    ("select", "", "result 0 - late"),
    ("pselect", "", "result 0 - late"),
    ("epoll_wait", "", "result 0 - late"),
    ("epoll_pwait", "", "result 0 - late"),
    ("semtimedop", "", "result -1 EAGAIN late"),
    ("sigtimedwait", "", "result -1 EAGAIN late"),
    ("recv_timeout", "", "result -1 EAGAIN late"),
    ("read", "w", "result 1 - "),
    ("poll_forever", "w", "result 1 - "),
    ("epoll_forever", "w", "result 1 - "),
    ("read", "k", "result -1 EINTR "),
    ("epoll_forever", "k", "result -1 EINTR "),
    ("pause", "k", "result -1 EINTR "),
];

#[test]
fn system_calls_that_threads_wait_in_go_on() {
    for (call, letter, result) in CALLS {
        // On a busy machine the call may have returned before it was seen to wait.
        while !waits_on(call, letter, result) {}
    }
}

/// False if the call was not seen to wait.
fn waits_on(call: &str, letter: &str, result: &str) -> bool {
    let mut target = Process::target(&["wait", call]);
    let line = target.line();
    if !target.until_asleep(line.strip_prefix("waiting ").expect("a thread")) {
        return false;
    }
    let mut tracer = Process::tracer();
    tracer.commands(&[&format!("attach {}", target.pid())]);
    for _ in 0..3 {
        tracer.commands(&["call 2", "run", "halt"]);
    }
    tracer.commands(&["detach"]);
    target.send(letter);
    let line = target.line();
    assert!(line.starts_with(result), "{call}: {line}");
    if letter.is_empty() {
        target.send("x");
    }
    assert!(target.end().success());
    true
}

#[test]
fn a_signal_that_stopped_the_thread_is_delivered_after_calls() {
    for action in ["info", "default"] {
        let mut target = Process::target(&["trap", action]);
        let bump = target.address();
        let mut tracer = guarded(&target, &bump);
        tracer.commands(&["always-call"]);
        assert_eq!(target.ask("b"), "bumped 10");
        assert_eq!(target.ask("u"), "queued 42 1");
        assert_eq!(target.ask("U"), "queued 42 1");
        if action == "info" {
            assert_eq!(target.ask("r"), "raised 1 -6");
            assert_eq!(target.ask("i"), "int3 2 128");
        }
        detach(tracer);
    }
}

#[test]
fn a_process_stopped_by_job_control_stays_so() {
    let mut target = Process::target(&["trap", "default"]);
    let bump = target.address();
    target.signal(libc::SIGSTOP);
    while target.state() != 'T' {
        std::thread::yield_now();
    }
    let mut tracer = Process::tracer();
    tracer.commands(&[
        &format!("attach {}", target.pid()),
        "install",
        &format!("plant {bump}"),
        "call 3",
        "run",
        "halt",
    ]);
    tracer.commands(&["call 3", "restore", "remove", "detach"]);
    while target.state() != 'T' {
        std::thread::yield_now();
    }
    target.send("b");
    target.signal(libc::SIGCONT);
    assert_eq!(target.line(), "bumped 10");
}

#[test]
fn a_restartable_sequence_is_aborted_all_the_same() {
    let mut target = Process::target(&["rseq"]);
    match target.line().as_str() {
        "none" => return skip("the C library registers no restartable sequences"),
        line => assert_eq!(line, "entered"),
    }
    let mut tracer = Process::tracer();
    tracer.commands(&[&format!("attach {}", target.pid()), "call 3", "run", "halt", "call 3", "detach"]);
    assert_eq!(target.ask("x"), "right");
}

#[test]
fn a_new_program_is_guarded_from_its_start() {
    let mut target = Process::target(&["trap", "default"]);
    let bump = target.address();
    let mut tracer = guarded(&target, &bump);
    tracer.commands(&["always-call"]);
    assert!(target.ask("e").starts_with("bump"));
    assert!(target.ask("q").starts_with("action foreign"));
    tracer.commands(&["halt", "remove", "detach"]);
    assert!(target.ask("q").starts_with("action default"));
    assert_eq!(target.ask("b"), "bumped 10");
}

#[test]
fn where_calls_might_kill_the_program_none_is_made() {
    for (letter, name) in [("p", "seccomp"), ("P", "PR_SET_SYSCALL_USER_DISPATCH")] {
        let mut target = Process::target(&["trap", "default"]);
        let bump = target.address();
        if !target.ask(letter).ends_with(" 0") {
            skip(&format!("this kernel lacks {name}"));
            continue;
        }
        let mut tracer = Process::tracer();
        tracer.commands(&[&format!("attach {}", target.pid())]);
        for command in ["install", &format!("plant {bump}")] {
            let reply = tracer.command(command);
            assert!(
                reply.starts_with("error: cannot make system calls inside process") && reply.contains(name),
                "{reply}"
            );
        }
        tracer.commands(&["remove", "run", "halt", "detach"]);
        assert_eq!(target.ask("b"), "bumped 10");
        assert!(target.ask("q").starts_with("action default"));
    }
}

/// Says why the rest of a test is left out on this machine; in CI that is a failure.
#[expect(clippy::print_stderr, reason = "a test that is left out has to be seen")]
fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("not tested: {why}");
}
