/* Keeps books of its own: each process tells `process PID ALLOCATED BYTES LIVE LIVE_BYTES` before it ends, in numbers that valgrind agrees with.
 * Commands: `allocate N` (N blocks of 100), `free N` (the last ones), `resize N` (the last N to 5000), `zero N` (realloc to 0), `shapes`
 * (each function that allocates), `fork` (a child that frees, resizes and allocates), `vfork` (one that allocates in its parent's memory),
 * `exec` (the same process as a new program, which goes on reading), `threads N` (each with 50 blocks, half of them freed), `race N` (N children at once, each of
 * which ends by two threads at the same time), `kill` (ends by a signal). */
#include "target.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MOST 100000

static void *volatile kept[MOST];
static size_t sizes[MOST];
static atomic_ulong allocated, bytes, live, live_bytes;

static void *count(void *p, size_t size) {
    allocated++, live++;
    bytes += size, live_bytes += size;
    return p;
}

static void uncount(size_t size) {
    live--;
    live_bytes -= size;
}

NOINLINE static void keep(void *p, size_t size) {
    sizes[live] = size;
    kept[live] = p;
    count(p, size);
    KEEP();
}

NOINLINE static void drop_last(void) {
    unsigned long last = live - 1;
    void *p = kept[last];
    uncount(sizes[last]);
    free(p);
    KEEP();
}

NOINLINE static void resize(unsigned long i, size_t size) {
    uncount(sizes[i]);
    kept[i] = realloc(kept[i], size);
    sizes[i] = size;
    count(NULL, size);
    KEEP();
}

static void tell(void) {
    target_say("process %d %lu %lu %lu %lu", (int)getpid(), allocated, bytes, live, live_bytes);
}

static void *work(void *argument) {
    for (int i = 0; i < 50; i++) {
        void *volatile p = count(malloc(33), 33);
        if (i % 2) {
            free(p);
            uncount(33);
        }
    }
    return argument;
}

static void shapes(void) {
    void *p = NULL;
    keep(calloc(7, 11), 77);
    if (posix_memalign(&p, 64, 200))
        _exit(92);
    keep(p, 200);
    keep(aligned_alloc(64, 128), 128);
    keep(memalign(32, 55), 55);
    keep(valloc(66), 66);
    keep(realloc(NULL, 44), 44);
    keep(reallocarray(NULL, 5, 9), 45);
    free(NULL);
    /* Fails, and changes nothing. */
    unsigned long last = live - 1;
    void *volatile huge = realloc(kept[last], (size_t)1 << 62);
    if (huge)
        _exit(93);
}

/* What it has of its parent it may free and resize, but that was never its own. */
static void child(void) {
    unsigned long inherited = live;
    void *first = kept[0], *second = kept[1];
    allocated = bytes = live = live_bytes = 0;
    if (inherited > 1) {
        free(first);
        second = realloc(second, 777);
        keep(second, 777);
    }
    keep(malloc(41), 41);
    keep(malloc(42), 42);
    drop_last();
    tell();
    _exit(3);
}

static atomic_int ready;

static void *end_at_once(void *argument) {
    ready++;
    while (ready < 2) {
    }
    syscall(SYS_exit, 0);
    return argument;
}

/* Two threads end at the same time; which of them is the last nobody knows. */
static void race(void) {
    static char stack[1 << 16];
    pthread_attr_t attributes;
    pthread_t thread;
    (void)stack;
    pthread_attr_init(&attributes);
    if (pthread_create(&thread, &attributes, end_at_once, NULL))
        _exit(94);
    end_at_once(NULL);
}

int main(int arguments_count, char **arguments) {
    char *name = arguments[0];
    (void)arguments_count;
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n;
        if (!strcmp(command, "quit")) {
            tell();
            return 0;
        }
        if ((n = target_number(command, "allocate")) >= 0)
            while (n--)
                keep(malloc(100), 100);
        if ((n = target_number(command, "free")) >= 0)
            while (n--)
                drop_last();
        if ((n = target_number(command, "resize")) >= 0)
            for (unsigned long i = live - n, end = live; i < end; i++)
                resize(i, 5000);
        if ((n = target_number(command, "zero")) >= 0)
            while (n--) {
                unsigned long last = live - 1;
                void *p = kept[last];
                uncount(sizes[last]);
                kept[last] = realloc(p, 0);
            }
        if (!strcmp(command, "shapes"))
            shapes();
        if (!strcmp(command, "fork") && !fork())
            child();
        if (!strcmp(command, "vfork")) {
            /* The parent waits, and the memory is one. */
            void *volatile p = NULL;
            if (!vfork()) {
                p = malloc(88);
                _exit(4);
            }
            keep((void *)p, 88);
        }
        if (!strcmp(command, "exec")) {
            tell();
            execv("/proc/self/exe", (char *[]){name, NULL});
            return 95;
        }
        if ((n = target_number(command, "threads")) >= 0) {
            pthread_t threads[16];
            for (long i = 0; i < n && i < 16; i++)
                pthread_create(&threads[i], NULL, work, NULL);
            for (long i = 0; i < n && i < 16; i++)
                pthread_join(threads[i], NULL);
        }
        if ((n = target_number(command, "race")) >= 0)
            for (long i = 0; i < n; i++)
                if (!fork())
                    race();
        if (!strcmp(command, "kill")) {
            tell();
            raise(SIGKILL);
        }
        while (waitpid(-1, NULL, 0) > 0) {
        }
        target_say("DONE");
    }
}
