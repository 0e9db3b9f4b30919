/* A thread that blocks SIGTRAP, as programs that block all signals do. Command: `go N`. */
#include "target.h"

#include <signal.h>

SITE(by_blocked, "malloc<-leak_with_trap_blocked:@<-main");
NOINLINE static void leak_with_trap_blocked(unsigned i) {
    void *p = AT(by_blocked, malloc(73));
    settle(&by_blocked, p, 73, i);
}

int main(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        for (long i = 0; i < 2 * n; i++)
            leak_with_trap_blocked((unsigned)i);
        target_report();
        target_say("DONE");
    }
}
