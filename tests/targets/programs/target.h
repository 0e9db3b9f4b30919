/* What every watched program shares: the hand-shake over stdin and stdout, and the ground truth of its call sites.
 *
 * Protocol: the program prints READY, then reads one command a line and answers each with zero or more lines and DONE.
 * `quit` (or end of input) ends it. Nothing here allocates: the only blocks are those that the program plants. */
#ifndef TARGET_H
#define TARGET_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))
/* Behind a call: keeps the compiler from turning it into a tail call. */
#define KEEP() __asm__ volatile("" ::: "memory")

/* A call site that plants leaks, and what a tracer must say of it. */
struct site {
    const char *name;
    /* Function names, innermost first, separated by "<-", to main. `:@` after a name: its line is that of the call; `*`: any
     * number of frames that are not the program's own; `a|b`: either; `name{n}`: n frames of one function; `~name`: inlined
     * into the next one, so that it shows only where there is debug information. */
    const char *chain;
    /* Blocks not freed, and their bytes as asked for. */
    unsigned long blocks, bytes;
    /* All blocks obtained and freed with this call stack. */
    unsigned long allocations, frees;
    int line;
    struct site *next;
};

/* True unless the environment's LEAVE_OUT names it: some allocators do not bear what others do. */
__attribute__((unused)) static int target_includes(const char *what) {
    const char *left_out = getenv("LEAVE_OUT");
    return !left_out || !strstr(left_out, what);
}

#define SITE(name, chain) static struct site name = {#name, chain, 0, 0, 0, 0, 0, 0}
/* Evaluates `expr`, an allocation by `site`, and remembers its line. */
#define AT(site, expr) ((site).line = __LINE__, (expr))

static struct site *target_sites;

/* Includes the site in the ground truth that `target_report` prints. */
static inline void target_enlist(struct site *site) {
    for (struct site *s = target_sites; s; s = s->next)
        if (s == site)
            return;
    site->next = target_sites;
    target_sites = site;
}

/* Counts a block; frees every second one. */
NOINLINE __attribute__((unused)) static void settle(struct site *site, void *block, size_t bytes, unsigned i) {
    target_enlist(site);
    site->allocations++;
    if (i % 2) {
        site->frees++;
        free(block);
    } else {
        site->blocks++;
        site->bytes += bytes;
    }
    KEEP();
}

__attribute__((format(printf, 1, 2), unused)) static void target_say(const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    line[length++] = '\n';
    for (int done = 0; done < length;) {
        ssize_t n = write(1, line + done, length - done);
        if (n < 0 && errno != EINTR)
            _exit(90);
        done += n > 0 ? n : 0;
    }
}

/* The next command; "quit" at the end of input. */
__attribute__((unused)) static char *target_command(void) {
    static char line[512];
    size_t length = 0;
    while (length < sizeof line - 1) {
        ssize_t n = read(0, line + length, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return strcpy(line, "quit");
        if (line[length] == '\n')
            break;
        length++;
    }
    line[length] = 0;
    return line;
}

/* The number behind `word` if the command is `word NUMBER`, else -1. */
__attribute__((unused)) static long target_number(const char *command, const char *word) {
    size_t length = strlen(word);
    if (strncmp(command, word, length) || command[length] != ' ')
        return -1;
    return strtol(command + length + 1, NULL, 10);
}

/* Prints the ground truth: site NAME BLOCKS BYTES ALLOCATIONS FREES LINE CHAIN. */
__attribute__((unused)) static void target_report(void) {
    for (struct site *s = target_sites; s; s = s->next)
        target_say("site %s %lu %lu %lu %lu %d %s", s->name, s->blocks, s->bytes, s->allocations, s->frees, s->line,
                   s->chain);
}

#endif
