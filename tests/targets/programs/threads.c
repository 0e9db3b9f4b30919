/* Four threads (or as many as -DTHREADS says, up to eight) that leak and churn at the same time. Commands: `go N`: each thread leaks N
 * blocks by a call site of its own and N by one that all share, and makes 20 * N pairs between; `pairs N`: each makes N pairs. `busy` starts
 * endless churn, `idle` ends it. */
#include "target.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdatomic.h>

#ifndef THREADS
#define THREADS 4
#endif
#define MOST_THREADS 8

static pthread_barrier_t start, finish;
static atomic_bool busy, done;
static atomic_ulong rounds[THREADS];
static unsigned blocks, pairs;

#define THREAD_SITE(index) SITE(by_thread_##index, "malloc<-leak_" #index ":@<-*")
THREAD_SITE(0);
THREAD_SITE(1);
THREAD_SITE(2);
THREAD_SITE(3);
THREAD_SITE(4);
THREAD_SITE(5);
THREAD_SITE(6);
THREAD_SITE(7);
static struct site *const own[MOST_THREADS] = {&by_thread_0, &by_thread_1, &by_thread_2, &by_thread_3,
                                               &by_thread_4, &by_thread_5, &by_thread_6, &by_thread_7};
SITE(by_all, "malloc<-leak_shared:@<-*");

#define LEAK(index)                                                                                                    \
    NOINLINE static void leak_##index(void) {                                                                          \
        void *volatile p = AT(by_thread_##index, malloc(100 + index));                                                 \
        (void)p;                                                                                                       \
        KEEP();                                                                                                        \
    }
LEAK(0)
LEAK(1)
LEAK(2)
LEAK(3)
LEAK(4)
LEAK(5)
LEAK(6)
LEAK(7)
static void (*const leak[MOST_THREADS])(void) = {leak_0, leak_1, leak_2, leak_3, leak_4, leak_5, leak_6, leak_7};

NOINLINE static void leak_shared(void) {
    void *volatile p = AT(by_all, malloc(200));
    (void)p;
    KEEP();
}

NOINLINE static void churn(size_t size) {
    char *volatile p = malloc(size);
    if (!p)
        _exit(91);
    p[0] = p[size - 1] = 1;
    free(p);
    KEEP();
}

static void *work(void *argument) {
    unsigned index = (unsigned)(uintptr_t)argument;
    pthread_barrier_wait(&finish);
    for (;;) {
        pthread_barrier_wait(&start);
        if (done)
            return NULL;
        for (unsigned i = 0; i < blocks; i++) {
            leak[index]();
            for (unsigned k = 0; k < 10; k++)
                churn(16 + 8 * k);
            leak_shared();
            for (unsigned k = 0; k < 10; k++)
                churn(100 + 8 * k);
        }
        for (unsigned i = 0; i < pairs; i++)
            churn(64);
        while (busy) {
            churn(64);
            rounds[index]++;
        }
        pthread_barrier_wait(&finish);
    }
}

static void credit(struct site *site, unsigned long blocks, size_t size) {
    target_enlist(site);
    site->blocks += blocks;
    site->bytes += blocks * size;
    site->allocations += blocks;
}

int main(void) {
    pthread_t threads[THREADS];
    pthread_barrier_init(&start, NULL, THREADS + 1);
    pthread_barrier_init(&finish, NULL, THREADS + 1);
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)i))
            return 1;
    pthread_barrier_wait(&finish);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (n > 0) {
            blocks = (unsigned)n;
            pthread_barrier_wait(&start);
            pthread_barrier_wait(&finish);
            for (int i = 0; i < THREADS; i++)
                credit(own[i], blocks, 100 + i);
            credit(&by_all, (unsigned long)THREADS * blocks, 200);
            target_report();
        } else if (target_number(command, "pairs") > 0) {
            blocks = 0;
            pairs = (unsigned)target_number(command, "pairs");
            pthread_barrier_wait(&start);
            pthread_barrier_wait(&finish);
            pairs = 0;
        } else if (!strcmp(command, "busy")) {
            blocks = 0;
            busy = true;
            pthread_barrier_wait(&start);
        } else if (!strcmp(command, "idle")) {
            busy = false;
            pthread_barrier_wait(&finish);
        } else if (!strcmp(command, "progress")) {
            /* Answers only when every thread has gone on. */
            unsigned long before[THREADS];
            for (int i = 0; i < THREADS; i++)
                before[i] = rounds[i];
            for (int i = 0; i < THREADS; i++)
                while (rounds[i] < before[i] + 10)
                    usleep(100);
        } else if (!strcmp(command, "quit")) {
            if (busy) {
                busy = false;
                pthread_barrier_wait(&finish);
            }
            done = true;
            pthread_barrier_wait(&start);
            for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
            return 0;
        }
        target_say("DONE");
    }
}
