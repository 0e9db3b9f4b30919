/* Starts processes in every way. Each tells, before it ends, what it leaves behind of its own:
 * `process PID BLOCKS BYTES INHERITED FREED`, the last two being blocks of its parent that it has, and has freed.
 * Commands: `fork N` (children one after the other), `deep` (a grandchild), `spawn` (posix_spawn), `vfork`, `thread` (a fork by another
 * thread), `outlive` (a child that goes on until its parent has ended), `linger` (one that goes on forever),
 * `leave` (the same, and the parent ends at once), `exit N`. */
#include "target.h"

#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static unsigned blocks, bytes, inherited, freed;
static void *volatile kept[64];

NOINLINE static void *keep(unsigned size) {
    void *p = malloc(size);
    KEEP();
    kept[blocks++ % 64] = p;
    bytes += size;
    return p;
}

NOINLINE static void drop(void *p) {
    free(p);
    KEEP();
}

static void tell(void) {
    target_say("process %d %u %u %u %u", (int)getpid(), blocks, bytes, inherited, freed);
}

/* In a child, right after fork. */
static void begin(void) {
    inherited += blocks - freed;
    blocks = bytes = freed = 0;
}

/* What a child does: frees one of its parent's blocks, keeps two of its own and a third that it frees, moves another of its parent's. */
static void live(void *of_parent, void *also_of_parent) {
    begin();
    drop(of_parent);
    freed++;
    keep(41);
    /* Where it is already, it stays its parent's. */
    void *moved = realloc(also_of_parent, 300);
    kept[63] = moved;
    if (moved != also_of_parent) {
        freed++;
        blocks++;
        bytes += 300;
    }
    drop(malloc(500));
}

static void *fork_and_wait(void *argument) {
    (void)argument;
    pid_t child = fork();
    if (!child) {
        begin();
        keep(47);
        tell();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return NULL;
}

int main(int count, char **arguments) {
    if (count > 1) {
        keep(43);
        tell();
        return 9;
    }
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long forks = target_number(command, "fork"), status = target_number(command, "exit");
        if (!strcmp(command, "quit") || status >= 0) {
            tell();
            return status > 0 ? (int)status : 0;
        }
        void *one = malloc(51), *other = malloc(52);
        blocks += 2;
        for (long i = 0; i < (strcmp(command, "deep") ? forks : 1); i++) {
            pid_t child = fork();
            if (!child) {
                live(one, other);
                if (!strcmp(command, "deep") && !(child = fork())) {
                    begin();
                    keep(45);
                    tell();
                    _exit(4);
                }
                if (child)
                    waitpid(child, NULL, 0);
                tell();
                _exit(3);
            }
            waitpid(child, NULL, 0);
        }
        blocks -= 2;
        drop(one);
        drop(other);
        char *again[] = {arguments[0], "again", NULL};
        pid_t child = 0;
        if (!strcmp(command, "spawn"))
            posix_spawn(&child, "/proc/self/exe", NULL, NULL, again, environ);
        if (!strcmp(command, "vfork") && !(child = vfork())) {
            execv("/proc/self/exe", again);
            _exit(1);
        }
        if (child > 0)
            waitpid(child, NULL, 0);
        if (!strcmp(command, "thread")) {
            pthread_t thread;
            pthread_create(&thread, NULL, fork_and_wait, NULL);
            pthread_join(thread, NULL);
        }
        int leaves = !strcmp(command, "leave"), lingers = leaves || !strcmp(command, "linger"), ends[2];
        if (lingers || !strcmp(command, "outlive")) {
            char byte;
            if (pipe(ends))
                return 91;
            if (!fork()) {
                begin();
                keep(46);
                target_say("child %d", (int)getpid());
                close(ends[1]);
                /* At the parent's end there is nobody left who could write. */
                while (read(ends[0], &byte, 1) < 0 && errno == EINTR) {
                }
                while (lingers)
                    pause();
                tell();
                _exit(0);
            }
            if (leaves)
                _exit(0);
        }
        target_say("DONE");
    }
}
