/* An allocator, by jemalloc's names, whose realloc may take its time or never return. Commands: `begin`: leaks a block and leaves a
 * thread inside a realloc of it; `leap`: the same, but realloc is left by longjmp, and the thread goes on, at first deeper in its stack than realloc was. */
#include "target.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>

static char memory[1 << 16] __attribute__((aligned(16)));
static size_t used;
static sem_t start, inside, never;
static jmp_buf out;
static int leaps;

NOINLINE void *je_malloc(size_t size) {
    KEEP();
    used += (size + 15) & ~15ul;
    return memory + used - ((size + 15) & ~15ul);
}

NOINLINE void *je_realloc(void *block, size_t size) {
    KEEP();
    if (leaps)
        longjmp(out, 1);
    sem_post(&inside);
    sem_wait(&never);
    return size ? block : NULL;
}

SITE(by_waiting, "je_malloc<-leak_and_wait:@<-*");
SITE(by_leaping, "je_malloc<-leak_and_leap:@<-*");
SITE(by_deeper, "je_malloc<-leak_deeper:@<-*");
SITE(by_later, "je_malloc<-leak_later:@<-*");

static void *volatile sink;

static void credit(struct site *site, size_t size) {
    target_enlist(site);
    site->blocks++;
    site->bytes += size;
    site->allocations++;
}

NOINLINE static void *leak_and_wait(void *argument) {
    sem_wait(&start);
    void *block = AT(by_waiting, je_malloc(100));
    credit(&by_waiting, 100);
    sink = je_realloc(block, 200);
    return argument;
}

NOINLINE static void leak_and_leap(void) {
    void *block = AT(by_leaping, je_malloc(300));
    credit(&by_leaping, 300);
    if (!setjmp(out))
        sink = je_realloc(block, 400);
    KEEP();
}

NOINLINE static void leak_deeper(void) {
    volatile char buffer[4096];
    for (size_t i = 0; i < sizeof buffer; i++)
        buffer[i] = 1;
    sink = AT(by_deeper, je_malloc(600));
    credit(&by_deeper, 600);
    sink = (void *)(uintptr_t)buffer[100];
}

NOINLINE static void leak_later(void) {
    sink = AT(by_later, je_malloc(500));
    credit(&by_later, 500);
    KEEP();
}

int main(void) {
    pthread_t thread;
    sem_init(&start, 0, 0);
    sem_init(&inside, 0, 0);
    sem_init(&never, 0, 0);
    if (pthread_create(&thread, NULL, leak_and_wait, NULL))
        return 1;
    target_say("READY");
    for (;;) {
        char *command = target_command();
        if (!strcmp(command, "begin")) {
            sem_post(&start);
            sem_wait(&inside);
            target_report();
        } else if (!strcmp(command, "leap")) {
            leaps = 1;
            leak_and_leap();
            leak_deeper();
            leak_later();
            leaps = 0;
            target_report();
        } else if (!strcmp(command, "quit")) {
            return 0;
        }
        target_say("DONE");
    }
}
