/* Eight threads that create and join short-lived threads without end. Commands: `storm` starts it, `go N` answers when each
 * of the eight has made N more rounds since, `stop` ends it. */
#include "target.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdatomic.h>

#define THREADS 8

static atomic_bool stop;
static atomic_ulong rounds[THREADS];

static void *flash(void *argument) {
    for (int i = 0; i < 4; i++) {
        char *volatile p = malloc(32 + 16 * i);
        p[0] = 1;
        free(p);
    }
    return argument;
}

static void *work(void *argument) {
    atomic_ulong *counter = argument;
    while (!stop) {
        pthread_t thread;
        void *result = NULL;
        if (pthread_create(&thread, NULL, flash, counter))
            _exit(91);
        if (pthread_join(thread, &result) || result != counter)
            _exit(92);
        (*counter)++;
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    int started = 0;
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "storm")) {
            for (; started < THREADS; started++)
                if (pthread_create(&threads[started], NULL, work, &rounds[started]))
                    return 1;
        } else if (n > 0) {
            unsigned long goal[THREADS];
            for (int i = 0; i < THREADS; i++)
                goal[i] = rounds[i] + (unsigned long)n;
            for (int i = 0; i < THREADS; i++)
                while (rounds[i] < goal[i])
                    usleep(100);
        } else if (!strcmp(command, "stop")) {
            stop = true;
            while (started > 0)
                pthread_join(threads[--started], NULL);
            stop = false;
        } else if (!strcmp(command, "quit")) {
            return 0;
        }
        target_say("DONE");
    }
}
