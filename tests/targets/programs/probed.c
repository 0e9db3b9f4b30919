/* A program for other tools' probes: it has a counter for them, as those of SystemTap have. Command: `go N`: N leaks through two calls. */
#include "target.h"

/* What such a tool increments while its probe is set. */
__attribute__((used, section(".probes"))) volatile unsigned short probe_counter = 0;

SITE(by_inner, "malloc<-leak_inner:@<-leak_outer<-main");
NOINLINE void leak_inner(unsigned i);
NOINLINE void leak_inner(unsigned i) {
    void *p = AT(by_inner, malloc(93));
    settle(&by_inner, p, 93, i);
}

NOINLINE void leak_outer(unsigned i);
NOINLINE void leak_outer(unsigned i) {
    leak_inner(i);
    KEEP();
}

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        for (unsigned i = 0; (long)i < 2 * n; i++)
            leak_outer(i);
        target_report();
        target_say("DONE");
    }
}
