/* Anonymous memory by mmap. Commands: `go N`: N mappings that stay, N that go, N of which a part goes, N that shrink, N that move, and big
 * blocks; `churn N`: N mappings that come and go. */
#define _GNU_SOURCE
#include "target.h"

#include <sys/mman.h>

#define PAGE 4096UL

static inline __attribute__((always_inline)) void *map(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        _exit(91);
    return p;
}

static void credit(struct site *site, size_t bytes, unsigned frees) {
    target_enlist(site);
    site->allocations++;
    site->frees += frees;
    if (bytes) {
        site->blocks++;
        site->bytes += bytes;
    }
    KEEP();
}

SITE(by_mmap, "mmap|mmap64<-~map<-site_mmap:@<-main");
NOINLINE static void site_mmap(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_mmap, map(5 * PAGE));
        if (i % 2 && munmap(p, 5 * PAGE))
            _exit(92);
        credit(&by_mmap, i % 2 ? 0 : 5 * PAGE, i % 2);
    }
}

/* The first page goes: one block of the rest stays. */
SITE(by_cut_mmap, "mmap|mmap64<-~map<-site_cut:@<-main");
NOINLINE static void site_cut(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        void *p = AT(by_cut_mmap, map(7 * PAGE));
        if (munmap(p, PAGE))
            _exit(93);
        credit(&by_cut_mmap, 6 * PAGE, 0);
    }
}

/* In place it stays the block that it was. */
SITE(by_shrunk_mmap, "mmap|mmap64<-~map<-site_shrink:@<-main");
NOINLINE static void site_shrink(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        void *p = AT(by_shrunk_mmap, map(9 * PAGE));
        if (mremap(p, 9 * PAGE, 4 * PAGE, 0) != p)
            _exit(94);
        credit(&by_shrunk_mmap, 4 * PAGE, 0);
    }
}

/* Moved, it is a new one. */
SITE(by_mremap, "mremap<-site_move:@<-main");
NOINLINE static void site_move(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        void *p = map(3 * PAGE), *free = map(8 * PAGE);
        if (munmap(free, 8 * PAGE))
            _exit(95);
        void *moved = AT(by_mremap, mremap(p, 3 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, free));
        if (moved != free)
            _exit(96);
        credit(&by_mremap, 8 * PAGE, 0);
    }
}

/* malloc's own mappings are malloc's blocks, and nothing else. */
SITE(by_big_malloc, "malloc<-site_big_malloc:@<-main");
NOINLINE static void site_big_malloc(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *p = AT(by_big_malloc, malloc(1000003));
        settle(&by_big_malloc, p, 1000003, i);
    }
}

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (n > 0) {
            site_mmap((unsigned)n);
            site_cut((unsigned)n);
            site_shrink((unsigned)n);
            site_move((unsigned)n);
            site_big_malloc((unsigned)n);
        }
        for (long i = target_number(command, "churn"); i > 0; i--)
            if (munmap(map(PAGE), PAGE))
                _exit(97);
        target_report();
        target_say("DONE");
    }
}
