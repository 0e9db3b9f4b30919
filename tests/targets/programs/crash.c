/* Leaks, then ends in the way that the command says: `segv`, `abort`, `exit N`, `thread_exit`, `quit`. `go N` leaks. */
#include "target.h"

#include <pthread.h>

SITE(by_crasher, "malloc<-leak_before_end:@<-main");
NOINLINE static void leak_before_end(unsigned i) {
    void *p = AT(by_crasher, malloc(87));
    settle(&by_crasher, p, 87, i);
}

static void *end_process(void *argument) {
    pthread_join(*(pthread_t *)argument, NULL);
    exit(12);
}

static volatile int *volatile unmapped = (int *)8;

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go"), status = target_number(command, "exit");
        if (!strcmp(command, "quit"))
            return 0;
        if (!strcmp(command, "segv"))
            *unmapped = 1;
        if (!strcmp(command, "abort"))
            abort();
        if (!strcmp(command, "thread_exit")) {
            static pthread_t leader;
            pthread_t thread;
            leader = pthread_self();
            pthread_create(&thread, NULL, end_process, &leader);
            pthread_exit(NULL);
        }
        if (status >= 0)
            exit((int)status);
        for (long i = 0; i < 2 * n; i++)
            leak_before_end((unsigned)i);
        target_report();
        target_say("DONE");
    }
}
