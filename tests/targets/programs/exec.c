/* Leaks, replaces itself by exec, and leaks again in the new image, by a call site that only that image reaches.
 * Commands: `go N` leaks, `exec` replaces the image (which prints READY again). */
#include "target.h"

SITE(by_first_image, "malloc<-leak_in_first_image:@<-main");
NOINLINE static void leak_in_first_image(unsigned i) {
    void *p = AT(by_first_image, malloc(61));
    settle(&by_first_image, p, 61, i);
}

SITE(by_second_image, "malloc<-leak_in_second_image:@<-main");
NOINLINE static void leak_in_second_image(unsigned i) {
    void *p = AT(by_second_image, malloc(62));
    settle(&by_second_image, p, 62, i);
}

int main(int count, char **arguments) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (!strcmp(command, "exec")) {
            char *again[] = {arguments[0], "second", NULL};
            execv("/proc/self/exe", again);
            return 1;
        }
        for (unsigned i = 0; (long)i < 2 * n; i++) {
            if (count > 1)
                leak_in_second_image(i);
            else
                leak_in_first_image(i);
        }
        /* What the C library does before main is no planting of ours. */
        target_say("ignore _start");
        target_say("ignore _dl_start_user");
        target_report();
        target_say("DONE");
    }
}
