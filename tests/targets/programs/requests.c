/* Serves requests by a static function, handle_request(). Each plants a block for good (`leak`), has another kept in a cache of bounded size
 * (`cache_store`, which fills slowly, as keys are random), and a third that is freed with all others when there are many (`batch_add`).
 * Commands: `serve N`: N requests; `serve_by_threads N`: N by each of four threads at the same time, only counted; `load PATH`, `late N`: N calls of
 * late_mark() of that library. Answers end with `served REQUESTS LEAKED`: calls of handle_request(), blocks leaked. */
#define _GNU_SOURCE
#include "target.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#define THREADS 4
#define CACHE 512
#define BATCH 37

static atomic_ulong served;
static unsigned long leaked;
static void *cache[CACHE], *batch[BATCH];
static unsigned batched;

NOINLINE static void *leak(void) {
    leaked++;
    void *block = malloc(48);
    KEEP();
    return block;
}

NOINLINE static void cache_store(unsigned key) {
    free(cache[key]);
    cache[key] = malloc(100);
    KEEP();
}

NOINLINE static void batch_add(void) {
    batch[batched++] = malloc(1000);
    if (batched == BATCH)
        while (batched)
            free(batch[--batched]);
    KEEP();
}

static unsigned next_random(void) {
    static uint32_t state = 2463534242;
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
}

NOINLINE static void handle_request(int plants) {
    atomic_fetch_add(&served, 1);
    if (!plants)
        return;
    void *p = leak();
    __asm__ volatile("" : : "r"(p) : "memory");
    cache_store(next_random() % CACHE);
    batch_add();
}

static void *serve(void *n) {
    for (long left = (long)n; left > 0; left--)
        handle_request(0);
    return NULL;
}

static void serve_by_threads(long n) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, serve, (void *)n))
            _exit(1);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void (*late_mark)(void);

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        if (!strcmp(command, "quit"))
            return 0;
        for (long n = target_number(command, "serve"); n > 0; n--)
            handle_request(1);
        long by_each = target_number(command, "serve_by_threads");
        if (by_each > 0)
            serve_by_threads(by_each);
        if (!strncmp(command, "load ", 5)) {
            void *library = dlopen(command + 5, RTLD_NOW);
            late_mark = library ? (void (*)(void))dlsym(library, "late_mark") : NULL;
            if (!late_mark)
                _exit(1);
        }
        for (long n = target_number(command, "late"); n > 0; n--)
            late_mark();
        target_say("served %lu %lu", (unsigned long)served, leaked);
        target_say("DONE");
    }
}
