/* A child that allocates by call sites that only it has. Commands: `fork`: starts one, which leaks; answers its pid. `join`: it leaks
 * once more and ends; answers `child STATUS`. `go N`: the parent leaks. */
#include "target.h"

#include <sys/wait.h>

SITE(by_parent, "malloc<-leak_in_parent:@<-main");
NOINLINE static void leak_in_parent(unsigned i) {
    void *p = AT(by_parent, malloc(81));
    settle(&by_parent, p, 81, i);
}

NOINLINE static void leak_in_child(void) {
    for (int i = 0; i < 1000; i++) {
        char *volatile p = malloc(82);
        p[0] = 1;
        KEEP();
    }
}

NOINLINE static void child(int told, int tell) {
    char byte = 0;
    leak_in_child();
    if (write(tell, &byte, 1) != 1 || read(told, &byte, 1) != 1)
        _exit(3);
    leak_in_child();
    _exit(0);
}

int main(void) {
    int down[2], up[2];
    pid_t pid = -1;
    target_say("READY");
    for (;;) {
        char *command = target_command(), byte = 0;
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (!strcmp(command, "fork")) {
            if (pipe(down) || pipe(up) || (pid = fork()) < 0)
                return 1;
            if (pid == 0)
                child(down[0], up[1]);
            if (read(up[0], &byte, 1) != 1)
                return 2;
            target_say("%d", (int)pid);
        } else if (!strcmp(command, "join")) {
            int status = -1;
            if (write(down[1], &byte, 1) != 1 || waitpid(pid, &status, 0) != pid)
                return 3;
            target_say("child %d", status);
        }
        for (unsigned i = 0; (long)i < 2 * n; i++)
            leak_in_parent(i);
        target_report();
        target_say("DONE");
    }
}
