/* An allocator of its own that may be called amid itself, and a signal handler that does so on an alternate stack above the interrupted
 * one. Command: `go N`. */
#include "target.h"

#include <pthread.h>
#include <signal.h>

static char pool[1 << 22];
static size_t used;
static int amid;

NOINLINE void *je_malloc(size_t size) {
    void *block = pool + used;
    used += (size + 15) & ~15ul;
    if (amid) {
        amid = 0;
        raise(SIGUSR2);
    }
    KEEP();
    return block;
}

NOINLINE void je_free(void *block) {
    __asm__ volatile("" ::"r"(block) : "memory");
}

static void handle(int signal) {
    (void)signal;
    je_free(je_malloc(100));
}

SITE(interrupted, "je_malloc<-leak_interrupted:@<-work<-*");
NOINLINE static void leak_interrupted(void) {
    amid = 1;
    void *p = AT(interrupted, je_malloc(200));
    __asm__ volatile("" ::"r"(p) : "memory");
    target_enlist(&interrupted);
    interrupted.allocations++;
    interrupted.blocks++;
    interrupted.bytes += 200;
}

static long rounds;

/* Its stack lies below that of main, which lends it a part for its alternate stack. */
NOINLINE static void *work(void *alternate) {
    stack_t stack = {.ss_sp = alternate, .ss_size = 1 << 16};
    sigaltstack(&stack, NULL);
    for (long i = 0; i < rounds; i++)
        leak_interrupted();
    KEEP();
    return NULL;
}

int main(void) {
    static char low[1 << 18];
    char high[1 << 16];
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR2, &action, NULL);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, low, sizeof low);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        rounds = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        pthread_t thread;
        pthread_create(&thread, &attributes, work, high);
        pthread_join(thread, NULL);
        target_report();
        target_say("DONE");
    }
}
