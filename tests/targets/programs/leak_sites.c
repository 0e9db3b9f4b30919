/* Leaks by every allocation function of C, with every shape of call stack. Command: `go N` (N leaks and N pairs a site). */
#define _GNU_SOURCE
#include "target.h"

#include <alloca.h>
#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>

#define CHAIN(inner) inner "<-run_sites<-main"

SITE(by_malloc, CHAIN("malloc<-site_malloc:@"));
NOINLINE static void site_malloc(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_malloc, malloc(41));
        settle(&by_malloc, p, 41, i);
    }
}

SITE(by_calloc, CHAIN("calloc<-site_calloc:@"));
NOINLINE static void site_calloc(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_calloc, calloc(3, 19));
        settle(&by_calloc, p, 57, i);
    }
}

SITE(by_realloc_null, CHAIN("realloc<-site_realloc_null:@"));
NOINLINE static void site_realloc_null(unsigned n) {
    /* Volatile, or the compiler makes it a malloc. */
    static void *volatile nothing;
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_realloc_null, realloc(nothing, 77));
        settle(&by_realloc_null, p, 77, i);
    }
}

/* Where the block stays in place, its call stack stays that of malloc; where it moves, realloc is its origin. */
SITE(by_malloc_grown, CHAIN("malloc<-site_realloc_in_place:@"));
SITE(by_realloc_in_place, CHAIN("realloc<-site_realloc_in_place:@"));
NOINLINE static void site_realloc_in_place(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        void *p = AT(by_malloc_grown, malloc(100));
        uintptr_t old = (uintptr_t)p;
        target_enlist(&by_malloc_grown);
        by_malloc_grown.allocations++;
        void *q = AT(by_realloc_in_place, realloc(p, 103));
        if ((uintptr_t)q == old) {
            by_malloc_grown.blocks++;
            by_malloc_grown.bytes += 103;
        } else {
            by_malloc_grown.frees++;
            settle(&by_realloc_in_place, q, 103, 0);
        }
        KEEP();
    }
}

SITE(by_malloc_moved, CHAIN("malloc<-site_realloc_moved:@"));
SITE(by_realloc_moved, CHAIN("realloc<-site_realloc_moved:@"));
NOINLINE static void site_realloc_moved(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        void *p = AT(by_malloc_moved, malloc(64));
        uintptr_t old = (uintptr_t)p;
        target_enlist(&by_malloc_moved);
        by_malloc_moved.allocations++;
        void *wall = malloc(64);
        void *q = AT(by_realloc_moved, realloc(p, 20011));
        if ((uintptr_t)q == old)
            _exit(91);
        by_malloc_moved.frees++;
        settle(&by_realloc_moved, q, 20011, 0);
        free(wall);
    }
}

SITE(by_realloc_failed, CHAIN("malloc<-site_realloc_failed:@"));
NOINLINE static void site_realloc_failed(unsigned n) {
    static volatile size_t too_much = PTRDIFF_MAX - 4096;
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_realloc_failed, malloc(43));
        if (realloc(p, too_much))
            _exit(92);
        settle(&by_realloc_failed, p, 43, i);
    }
}

/* glibc frees the block and returns NULL; others hand out a new one. No leak either way. */
NOINLINE static void site_realloc_zero(unsigned n) {
    static volatile size_t zero = 0;
    for (unsigned i = 0; i < n; i++) {
        void *p = malloc(44);
        void *q = realloc(p, zero);
        if (q)
            free(q);
    }
}

SITE(by_reallocarray, CHAIN("reallocarray|realloc<-*<-site_reallocarray:@"));
NOINLINE static void site_reallocarray(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_reallocarray, reallocarray(NULL, 7, 13));
        settle(&by_reallocarray, p, 91, i);
    }
}

SITE(by_posix_memalign, CHAIN("posix_memalign<-site_posix_memalign:@"));
NOINLINE static void site_posix_memalign(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = NULL;
        if (AT(by_posix_memalign, posix_memalign(&p, 64, 130)))
            _exit(93);
        settle(&by_posix_memalign, p, 130, i);
    }
}

SITE(by_aligned_alloc, CHAIN("aligned_alloc|memalign<-site_aligned_alloc:@"));
NOINLINE static void site_aligned_alloc(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_aligned_alloc, aligned_alloc(128, 256));
        settle(&by_aligned_alloc, p, 256, i);
    }
}

/* glibc's aligned_alloc and memalign are one function. */
SITE(by_memalign, CHAIN("memalign|aligned_alloc<-*<-site_memalign:@"));
NOINLINE static void site_memalign(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_memalign, memalign(32, 99));
        settle(&by_memalign, p, 99, i);
    }
}

SITE(by_valloc, CHAIN("valloc|memalign|aligned_alloc<-*<-site_valloc:@"));
NOINLINE static void site_valloc(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_valloc, valloc(101));
        settle(&by_valloc, p, 101, i);
    }
}

/* valgrind ends a program that calls it; jemalloc does not have it. */
#ifdef __GLIBC__
SITE(by_pvalloc, CHAIN("pvalloc<-site_pvalloc:@"));
NOINLINE static void site_pvalloc(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_pvalloc, pvalloc(5000));
        settle(&by_pvalloc, p, 5000, i);
    }
}
#endif

SITE(by_strdup, CHAIN("malloc<-*<-site_strdup:@"));
NOINLINE static void site_strdup(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        char *p = AT(by_strdup, strdup("twenty-two characters."));
        settle(&by_strdup, p, 23, i);
    }
}

SITE(by_getline, CHAIN("malloc|realloc<-*<-site_getline:@"));
static FILE *lines;
NOINLINE static void site_getline(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        char *p = NULL;
        size_t size = 0;
        rewind(lines);
        if (AT(by_getline, getline(&p, &size, lines)) < 0)
            _exit(94);
        settle(&by_getline, p, size, i);
    }
}

/* asprintf prints into a buffer of its own and then cuts it to size; only the final size is certain. */
SITE(by_asprintf, CHAIN("malloc|realloc<-*<-site_asprintf:@"));
NOINLINE static void site_asprintf(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        char *p = NULL;
        int length = AT(by_asprintf, asprintf(&p, "%u and %s", 1000 + i % 2, "a text that is long enough"));
        settle(&by_asprintf, p, (size_t)length + 1, i);
    }
}

SITE(by_qsort, CHAIN("malloc<-compare_and_leak:@<-*<-site_qsort"));
static unsigned compared;
NOINLINE static int compare_and_leak(const void *a, const void *b) {
    int left = *(const int *)a, right = *(const int *)b;
    void *p = AT(by_qsort, malloc(29));
    settle(&by_qsort, p, 29, compared++);
    return left - right;
}
NOINLINE static void site_qsort(unsigned n) {
    compared = 0;
    for (unsigned i = 0; i < 2 * n; i++) {
        int pair[2] = {2, 1};
        qsort(pair, 2, sizeof pair[0], compare_and_leak);
    }
}

SITE(by_recursion, CHAIN("malloc<-recurse:@<-recurse{11}<-site_recursion"));
NOINLINE static int recurse(unsigned depth, unsigned i) {
    volatile char frame[24 + 8];
    frame[depth] = (char)depth;
    if (depth == 0) {
        void *p = AT(by_recursion, malloc(31));
        settle(&by_recursion, p, 31, i);
    } else {
        recurse(depth - 1, i);
    }
    return frame[depth];
}
NOINLINE static void site_recursion(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++)
        recurse(11, i);
}

/* A tail call leaves no frame: the caller of `jump_to_malloc` called malloc. */
#ifdef __OPTIMIZE__
SITE(by_tail_call, CHAIN("malloc<-site_tail_call:@"));
#else
SITE(by_tail_call, CHAIN("malloc<-jump_to_malloc<-site_tail_call:@"));
#endif
NOINLINE static void *jump_to_malloc(size_t size) { return malloc(size + 1); }
NOINLINE static void site_tail_call(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_tail_call, jump_to_malloc(33));
        settle(&by_tail_call, p, 34, i);
    }
}

SITE(by_alloca, CHAIN("malloc<-site_alloca:@"));
NOINLINE static void site_alloca(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        volatile char *room = alloca(64 + 16 * (i % 3));
        room[0] = 1;
        void *p = AT(by_alloca, malloc(35));
        settle(&by_alloca, p, 35, i);
    }
}

SITE(by_big_frame, CHAIN("malloc<-site_big_frame:@"));
NOINLINE static void site_big_frame(unsigned n) {
    volatile char room[40000];
    for (unsigned i = 0; i < 2 * n; i++) {
        room[i % sizeof room] = 1;
        void *p = AT(by_big_frame, malloc(36));
        settle(&by_big_frame, p, 36, i);
    }
}

SITE(by_huge, CHAIN("malloc<-site_huge:@"));
NOINLINE static void site_huge(void) {
    if (by_huge.blocks)
        return;
    void *p = AT(by_huge, malloc(3UL << 30));
    if (!p)
        _exit(95);
    settle(&by_huge, p, 3UL << 30, 0);
}

SITE(by_nothing, CHAIN("malloc<-site_nothing:@"));
NOINLINE static void site_nothing(unsigned n) {
    static volatile size_t zero = 0;
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_nothing, malloc(zero));
        if (!p)
            _exit(96);
        settle(&by_nothing, p, 0, i);
    }
}

NOINLINE static void site_failed(unsigned n) {
    static volatile size_t too_much = PTRDIFF_MAX - 8192, half = SIZE_MAX / 2;
    for (unsigned i = 0; i < n; i++) {
        /* Volatile, or the compiler assumes that an unused block was had. */
        void *volatile refused[] = {malloc(too_much), calloc(half, 3), reallocarray(NULL, half, 5)};
        if (refused[0] || refused[1] || refused[2])
            _exit(97);
    }
}

/* The call of `leak_and_jump` is the last instruction of `jumped_over`: its return address is in the next function. */
SITE(by_longjmp, CHAIN("malloc<-leak_and_jump:@<-jumped_over<-site_longjmp"));
static jmp_buf landing;
__attribute__((noinline, noreturn)) static void leak_and_jump(unsigned i) {
    void *p = AT(by_longjmp, malloc(37));
    settle(&by_longjmp, p, 37, i);
    longjmp(landing, 1);
}
NOINLINE static int jumped_over(unsigned i) {
    volatile char frame[64];
    frame[i % sizeof frame] = 1;
    leak_and_jump(i + frame[i % sizeof frame] - 1);
}
NOINLINE static void site_longjmp(unsigned n) {
    for (volatile unsigned i = 0; i < 2 * n; i++)
        if (!setjmp(landing))
            jumped_over(i);
}

SITE(by_inlined, CHAIN("malloc<-~inlined_leak:@<-site_inlined"));
static inline __attribute__((always_inline)) void *inlined_leak(size_t size) { return AT(by_inlined, malloc(size)); }
NOINLINE static void site_inlined(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = inlined_leak(38);
        settle(&by_inlined, p, 38, i);
    }
}

SITE(by_pointer, CHAIN("malloc<-site_pointer:@"));
static void *(*volatile allocate)(size_t) = malloc;
NOINLINE static void site_pointer(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_pointer, allocate(39));
        settle(&by_pointer, p, 39, i);
    }
}

SITE(by_signal_handler, CHAIN("malloc<-leak_in_handler:@<-*<-site_signal_handler"));
static unsigned handled;
NOINLINE static void leak_in_handler(int signal) {
    (void)signal;
    void *p = AT(by_signal_handler, malloc(42));
    settle(&by_signal_handler, p, 42, handled++);
}
NOINLINE static void site_signal_handler(unsigned n) {
    handled = 0;
    for (unsigned i = 0; i < 2 * n; i++)
        raise(SIGUSR1);
    KEEP();
}

NOINLINE static void run_sites(unsigned n) {
    site_malloc(n);
    site_calloc(n);
    site_realloc_null(n);
    site_realloc_in_place(n);
    site_realloc_moved(n);
    if (target_includes("realloc_failed"))
        site_realloc_failed(n);
    site_realloc_zero(n);
    site_reallocarray(n);
    site_posix_memalign(n);
    site_aligned_alloc(n);
    site_memalign(n);
    site_valloc(n);
#ifdef __GLIBC__
    if (target_includes("pvalloc"))
        site_pvalloc(n);
#endif
    site_strdup(n);
    site_getline(n);
    site_asprintf(n);
    site_qsort(n);
    site_recursion(n);
    site_tail_call(n);
    site_alloca(n);
    site_big_frame(n);
    if (target_includes("huge"))
        site_huge();
    site_nothing(n);
    site_failed(n);
    site_longjmp(n);
    site_inlined(n);
    site_pointer(n);
    site_signal_handler(n);
    KEEP();
}

int main(void) {
    static char text[] = "the first line\n";
    lines = fmemopen(text, sizeof text - 1, "r");
    if (!lines || getc(lines) != 't')
        return 1;
    signal(SIGUSR1, leak_in_handler);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (n > 0) {
            run_sites((unsigned)n);
            target_report();
        }
        target_say("DONE");
    }
}
