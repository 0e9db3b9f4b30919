/* Forks while three threads are busy in the allocator. Command: `go N`: N children, each of which allocates, forks a child of
 * its own, and exits with a status that the parent checks; answers `children OK LOST` and the ground truth of what the
 * parent leaked between the forks. */
#include "target.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define THREADS 3

static atomic_bool stop;

SITE(by_parent, "malloc<-leak_between_forks:@<-main");
NOINLINE static void leak_between_forks(void) {
    void *p = AT(by_parent, malloc(71));
    settle(&by_parent, p, 71, 0);
}

NOINLINE static void churn(void) {
    char *volatile p = malloc(48);
    p[0] = 1;
    free(p);
    KEEP();
}

static void *work(void *argument) {
    while (!stop)
        churn();
    return argument;
}

NOINLINE static int grandchild_status(void) {
    pid_t pid = fork();
    if (pid == 0) {
        churn();
        _exit(5);
    }
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return status;
}

/* What the child does after fork: all of it would die by a breakpoint that was left in its copy of the text. */
NOINLINE static void child(void) {
    for (int i = 0; i < 20; i++) {
        churn();
        char *volatile p = calloc(3, 30);
        p = realloc(p, 500);
        free(p);
    }
    int status = grandchild_status();
    _exit(WIFEXITED(status) && WEXITSTATUS(status) == 5 ? 7 : 8);
}

int main(void) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            return 1;
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit")) {
            stop = true;
            for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
            return 0;
        }
        if (n > 0) {
            int ok = 0, lost = 0;
            for (long i = 0; i < n; i++) {
                pid_t pid = fork();
                if (pid == 0)
                    child();
                int status = -1;
                if (pid < 0 || waitpid(pid, &status, 0) != pid)
                    return 1;
                if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
                    ok++;
                else
                    lost++;
                leak_between_forks();
            }
            target_say("children %d %d", ok, lost);
            target_report();
        }
        target_say("DONE");
    }
}
