/* A program for memleax to start. It leaks before main already; LEAVE_OUT names what it is not to (`preinit`, `constructor`).
 * Commands: `go N` leaks, `catch` counts signals from now on and says `GOT SIGNAL` for each, `count SIGNAL` says how many came,
 * `exit N`, `raise SIGNAL`, `default SIGNAL` and `mask` say how the program reacts to signals, `become` replaces it by itself. */
#include "target.h"

#include <signal.h>

SITE(by_preinit, "malloc<-leak_at_preinit:@");
NOINLINE static void leak_at_preinit(unsigned i) {
    void *p = AT(by_preinit, malloc(31));
    settle(&by_preinit, p, 31, i);
}

SITE(by_constructor, "malloc<-leak_in_constructor:@");
NOINLINE static void leak_in_constructor(unsigned i) {
    void *p = AT(by_constructor, malloc(32));
    settle(&by_constructor, p, 32, i);
}

SITE(by_main, "malloc<-leak_in_main:@<-main");
NOINLINE static void leak_in_main(unsigned i) {
    void *p = AT(by_main, malloc(33));
    settle(&by_main, p, 33, i);
}

/* The C library does not know the environment yet. */
static void before_constructors(int count, char **arguments, char **environment) {
    (void)count, (void)arguments;
    for (; *environment; environment++)
        if (!strncmp(*environment, "LEAVE_OUT=", 10) && strstr(*environment, "preinit"))
            return;
    for (unsigned i = 0; i < 6; i++)
        leak_at_preinit(i);
}
__attribute__((section(".preinit_array"), used)) static void (*const preinit)(int, char **, char **) = before_constructors;

__attribute__((constructor)) static void construct(void) {
    for (unsigned i = 0; i < 10 && target_includes("constructor"); i++)
        leak_in_constructor(i);
}

static volatile sig_atomic_t arrived[64];

static void note(int signal) {
    arrived[signal]++;
    target_say("GOT %d", signal);
}

int main(int count, char **arguments) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go"), of = target_number(command, "count"), how = target_number(command, "default");
        if (!strcmp(command, "quit"))
            return 0;
        if (target_number(command, "exit") >= 0)
            exit((int)target_number(command, "exit"));
        if (target_number(command, "raise") >= 0)
            raise((int)target_number(command, "raise"));
        if (!strcmp(command, "become") && count > 0)
            execv("/proc/self/exe", arguments);
        if (!strcmp(command, "catch")) {
            static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP};
            for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
                signal(signals[i], note);
        }
        if (of > 0)
            target_say("%d", (int)arrived[of]);
        if (how > 0) {
            struct sigaction action;
            sigaction((int)how, NULL, &action);
            target_say(action.sa_handler == SIG_DFL ? "default" : action.sa_handler == SIG_IGN ? "ignored" : "caught");
        }
        if (!strcmp(command, "mask")) {
            sigset_t mask;
            sigprocmask(SIG_BLOCK, NULL, &mask);
            unsigned blocked = 0;
            for (int signal = 1; signal < 64; signal++)
                blocked += sigismember(&mask, signal) == 1;
            target_say("%u", blocked);
        }
        for (long i = 0; i < 2 * n; i++)
            leak_in_main((unsigned)i);
        if (n >= 0)
            target_report();
        target_say("DONE");
    }
}
