/* Starts other programs in every way of C, and leaks after each. Command: `go N`; answers `spawned OK LOST` and the ground
 * truth. `leak N` leaks N blocks. */
#define _GNU_SOURCE
#include "target.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

SITE(by_spawner, "malloc<-leak_after_child:@<-*<-main");
NOINLINE static void leak_after_child(void) {
    void *p = AT(by_spawner, malloc(81));
    settle(&by_spawner, p, 81, 0);
}

static int ok, lost;
NOINLINE static void check(int status, int expected) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == expected)
        ok++;
    else
        lost++;
    leak_after_child();
    KEEP();
}

NOINLINE static void by_system(void) {
    check(system("exit 3"), 3);
    KEEP();
}

NOINLINE static int wait_for(pid_t pid) {
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        _exit(91);
    return status;
}

NOINLINE static void by_posix_spawn(void) {
    pid_t pid = -1;
    char *arguments[] = {"sh", "-c", "exit 4", NULL};
    if (posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ))
        _exit(92);
    check(wait_for(pid), 4);
    KEEP();
}

/* The child borrows the parent's memory until exec, and calls the allocator there, as shells and runtimes do. */
NOINLINE static void by_vfork(void) {
    char *arguments[] = {"sh", "-c", "exit 6", NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        free(malloc(32));
        execve("/bin/sh", arguments, environ);
        _exit(9);
    }
    check(wait_for(pid), 6);
    KEEP();
}

NOINLINE static void by_vfork_exit(void) {
    pid_t pid = vfork();
    if (pid == 0)
        _exit(2);
    check(wait_for(pid), 2);
    KEEP();
}

NOINLINE static void by_popen(void) {
    FILE *pipe = popen("echo word; exit 5", "r");
    if (!pipe)
        _exit(93);
    char word[16] = "";
    if (!fgets(word, sizeof word, pipe) || strcmp(word, "word\n"))
        lost++;
    check(pclose(pipe), 5);
    KEEP();
}

int main(void) {
    by_popen();
    target_sites = NULL;
    by_spawner = (struct site){by_spawner.name, by_spawner.chain, 0, 0, 0, 0, 0, NULL};
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go"), leaks = target_number(command, "leak");
        if (!strcmp(command, "quit"))
            return 0;
        ok = lost = 0;
        for (long i = 0; i < n; i++) {
            by_system();
            by_posix_spawn();
            by_vfork();
            by_vfork_exit();
            by_popen();
        }
        for (long i = 0; i < leaks; i++)
            leak_after_child();
        if (n > 0)
            target_say("spawned %d %d", ok, lost);
        target_report();
        target_say("DONE");
    }
}
