/* The benchmark's loops. `pairs N T D L`: N malloc/free pairs on each of T threads, D frames deep; with L, each exchanges one
 * of so many live blocks, chosen at random. `stops N`: N breakpoint instructions, for a tracer that swallows them. Both answer
 * `ns NANOSECONDS` of wall-clock time for one pair or stop of one thread, and `cpu NANOSECONDS` of processor time for one. */
#define _GNU_SOURCE
#include "target.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

static long pairs, depth, live;
static atomic_long processor_time;

static long thread_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void repeat(void) {
    long begin = thread_time();
    for (long i = 0; i < pairs; i++) {
        void *volatile p = malloc(64);
        free(p);
    }
    processor_time += thread_time() - begin;
}

static void exchange(void) {
    unsigned long random = 88172645463325252ul;
    void **blocks = calloc((size_t)live, sizeof(*blocks));
    if (!blocks)
        abort();
    for (long i = 0; i < live; i++)
        blocks[i] = malloc(64);
    long begin = thread_time();
    for (long i = 0; i < pairs; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        void **block = &blocks[random % (unsigned long)live];
        free(*block);
        *block = malloc(64);
    }
    processor_time += thread_time() - begin;
    for (long i = 0; i < live; i++)
        free(blocks[i]);
    free(blocks);
}

NOINLINE static long descend(long level) {
    volatile long frame[2] = {level, 0};
    if (level > 0)
        return descend(level - 1) + frame[1];
    if (live)
        exchange();
    else
        repeat();
    return frame[0];
}

static void *work(void *argument) {
    (void)argument;
    descend(depth);
    return NULL;
}

static void say_time(const struct timespec *begin, long rounds) {
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ns = (double)(end.tv_sec - begin->tv_sec) * 1e9 + (double)(end.tv_nsec - begin->tv_nsec);
    target_say("ns %.1f", ns / (double)rounds);
}

int main(void) {
    free(malloc(64));
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long threads = 0, stops = target_number(command, "stops");
        struct timespec begin;
        if (!strcmp(command, "quit"))
            return 0;
        if (sscanf(command, "pairs %ld %ld %ld %ld", &pairs, &threads, &depth, &live) == 4 && threads > 0 && threads <= 16) {
            pthread_t ids[16];
            processor_time = 0;
            clock_gettime(CLOCK_MONOTONIC, &begin);
            for (long i = 1; i < threads; i++)
                if (pthread_create(&ids[i], NULL, work, NULL))
                    return 1;
            work(NULL);
            for (long i = 1; i < threads; i++)
                pthread_join(ids[i], NULL);
            say_time(&begin, pairs);
            target_say("cpu %.1f", (double)processor_time / (double)(pairs * threads));
        }
#ifdef __x86_64__
        if (stops > 0) {
            clock_gettime(CLOCK_MONOTONIC, &begin);
            for (long i = 0; i < stops; i++)
                __asm__ volatile("int3");
            say_time(&begin, stops);
        }
#endif
        target_say("DONE");
    }
}
