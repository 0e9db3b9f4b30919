//! The manual page: clap's sections, and what only a manual has room for.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Sections after clap's own: a heading, and its paragraphs.
const SECTIONS: [(&str, &[&str]); 3] = [
    (
        "SIGNALS",
        &[
            "SIGINT, SIGTERM, SIGHUP and SIGQUIT end monitoring. memleax detaches first and then prints the final \
             statistics. A second such signal cuts naming and printing short; it never skips the detaching.",
            "SIGTSTP (Ctrl-Z), SIGTTIN and SIGTTOU are refused: a stopped memleax would stop its target at the next \
             allocation. SIGSTOP cannot be refused; the target then waits until memleax gets SIGCONT.",
            "If standard output is closed (the reader of a pipe ended), memleax detaches and ends.",
            "Where memleax has started a program, signals are for that. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR2 and SIGWINCH that \
             another process sends to memleax are passed on; those that the terminal sends reach the program anyway. memleax goes on \
             until the program ends. Three that ask for an end within two seconds are taken to mean memleax: it detaches, reports, and \
             leaves the program running. Ctrl-Z stops both, until the shell lets them go on. SIGUSR1 takes a snapshot and prints what is live.",
            "SIGKILL cannot be caught. The target lives on: memleax leaves a handler for SIGTRAP in it that carries \
             the program over the breakpoints that stay in its text. They cost time; the next memleax that attaches \
             to it removes them. Two kinds of target would not survive, and memleax warns of them: those in which a seccomp \
             filter forbids the handler, and those with a thread that blocks SIGTRAP and in which it could not be unblocked.",
        ],
    ),
    (
        "EXIT STATUS",
        &[
            "0: monitoring ended, because the target ended or a signal, -m, -c, --stop-after or --duration said so, or because \
             nobody reads the output any more; leaks found or not.",
            "1: monitoring could not begin; the target is as it was.",
            "2: the command line is wrong.",
            "3: monitoring broke off, the report could not be written, or the target could not be left as it was found; \
             standard error says which.",
            "Where memleax has started a program, it ends with the program's own status in place of 0, or with 128 and the number of \
             the signal that killed it (also that by which memleax was told to leave it running); with --error-exitcode N, with N if \
             blocks were never freed and no signal killed the program.",
            "126: the program cannot be executed.",
            "127: it is not found.",
        ],
    ),
    (
        "EXAMPLES",
        &[
            "memleax 4321: watch process 4321; report blocks that live longer than 10 seconds.",
            "memleax -e 6m 4321: the same for 6 minutes. Choose a time longer than an ordinary block lives.",
            "memleax -q --duration 1h 4321 > report: print only the statistics, after an hour.",
            "memleax --error-exitcode 9 -- ./tests --all: start a program, and end with status 9 if it leaks.",
        ],
    ),
];

pub(super) fn write(command: Command, output: &mut dyn Write) -> io::Result<()> {
    let command = command.after_help(None::<&str>).after_long_help(None::<&str>);
    Man::new(command).render(output)?;
    let mut roff = Roff::new();
    for (heading, paragraphs) in SECTIONS {
        roff.control("SH", [heading]);
        for paragraph in paragraphs {
            roff.control("PP", []);
            match paragraph.split_once(": ") {
                Some((term, text)) if heading != "SIGNALS" => roff.text([bold(term), roman(format!(": {text}"))]),
                _ => roff.text([roman(*paragraph)]),
            };
        }
    }
    roff.to_writer(output)
}
