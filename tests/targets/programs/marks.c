/* Calls a function at moments that are worth a snapshot. Commands: `go N`: N times it plants three blocks, frees one of them, and calls
 * memtrail_snapshot(), before each of which it prints `mark BLOCKS BYTES`: what it has live; `storm N`: N such calls and nothing else;
 * `load PATH`: loads a library that has late_mark(); `late`: plants a block and calls that, after the same line. */
#define _GNU_SOURCE
#include "target.h"

#include <dlfcn.h>

static unsigned long blocks, bytes;

NOINLINE void memtrail_snapshot(void) {
    KEEP();
}

NOINLINE static void plant(size_t size, int keep) {
    void *p = malloc(size);
    /* Of use, as far as the compiler knows. */
    __asm__ volatile("" : : "r"(p) : "memory");
    if (!keep) {
        free(p);
        return;
    }
    blocks++;
    bytes += size;
}

static void (*late_mark)(void);

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        if (!strcmp(command, "quit"))
            return 0;
        for (long n = target_number(command, "go"); n > 0; n--) {
            plant(71, 1);
            plant(1000, 0);
            plant(29 + n, 1);
            target_say("mark %lu %lu", blocks, bytes);
            memtrail_snapshot();
        }
        for (long n = target_number(command, "storm"); n > 0; n--)
            memtrail_snapshot();
        if (!strncmp(command, "load ", 5)) {
            void *library = dlopen(command + 5, RTLD_NOW);
            late_mark = library ? (void (*)(void))dlsym(library, "late_mark") : NULL;
            if (!late_mark)
                _exit(1);
        }
        if (!strcmp(command, "late")) {
            plant(13, 1);
            target_say("mark %lu %lu", blocks, bytes);
            late_mark();
        }
        target_say("DONE");
    }
}
