/* Blocks by the million. Commands: `keep N`: N blocks by one call stack; `free N`: frees the first N of those; `stacks N`: N blocks, each by a call
 * stack of its own, freed at once; `kept N`: N such, kept. */
#include "target.h"

#define MOST (1 << 23)

static void *blocks[MOST];
static unsigned long kept, first;

SITE(by_one, "malloc<-keep:@<-main");

NOINLINE static void keep(unsigned long n) {
    for (unsigned long i = 0; i < n && kept < MOST; i++)
        blocks[kept++] = AT(by_one, malloc(24));
    KEEP();
}

NOINLINE static void right(unsigned long path, int steps, int keeps);

/* Which of both functions calls which says the bits of `path`. */
NOINLINE static void left(unsigned long path, int steps, int keeps) {
    if (steps == 0) {
        void *volatile block = malloc(24);
        if (keeps)
            blocks[kept++] = block;
        else
            free(block);
    } else if (path & 1) {
        right(path >> 1, steps - 1, keeps);
    } else {
        left(path >> 1, steps - 1, keeps);
    }
    KEEP();
}

NOINLINE static void right(unsigned long path, int steps, int keeps) {
    if (steps == 0 || path & 1)
        left(path >> 1, steps ? steps - 1 : 0, keeps);
    else
        right(path >> 1, steps - 1, keeps);
    KEEP();
}

#define STEPS 20

int main(void) {
    static unsigned long path;
    target_enlist(&by_one);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n;
        if ((n = target_number(command, "keep")) > 0) {
            unsigned long before = kept;
            keep((unsigned long)n);
            by_one.blocks += kept - before;
            by_one.bytes += 24 * (kept - before);
            by_one.allocations += kept - before;
            target_report();
        } else if ((n = target_number(command, "free")) > 0) {
            for (; n > 0 && first < kept; n--, first++) {
                free(blocks[first]);
                by_one.blocks--;
                by_one.bytes -= 24;
                by_one.frees++;
            }
            target_report();
        } else if ((n = target_number(command, "stacks")) > 0) {
            while (n--)
                left(path++, STEPS, 0);
        } else if ((n = target_number(command, "kept")) > 0) {
            while (n--)
                left(path++, STEPS, 1);
        } else if (!strcmp(command, "quit")) {
            return 0;
        }
        target_say("DONE");
    }
}
