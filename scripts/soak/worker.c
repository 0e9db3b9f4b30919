/* Works as a server does: pairs of allocations, threads that come and go, a library that is loaded and unloaded, and a slow leak. At a
 * line on standard input it tells how many blocks have leaked, and does nothing more until the next line. */
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static void *kept;

NOINLINE static void leak_slowly(void) {
    void **block = malloc(48);
    if (!block)
        exit(1);
    /* It stays reachable, so that no compiler takes it away. */
    *block = kept;
    kept = block;
}

NOINLINE static void serve(unsigned round) {
    char *parts[10];
    for (unsigned i = 0; i < 10; i++) {
        parts[i] = malloc((round * 7 + i * 31) % 2000 + 1);
        if (parts[i])
            parts[i][0] = 'x';
    }
    for (unsigned i = 0; i < 10; i++)
        free(parts[i]);
}

static void *serve_in_thread(void *round) {
    serve((unsigned)(size_t)round);
    return NULL;
}

static void use_plugin(const char *path, unsigned round) {
    void *library = dlopen(path, RTLD_NOW);
    if (!library)
        exit(2);
    char *(*work)(unsigned) = (char *(*)(unsigned))dlsym(library, "plugin_work");
    if (!work)
        exit(3);
    free(work(round));
    dlclose(library);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 4;
    unsigned long leaked = 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    /* What is read ahead, poll does not see. */
    setvbuf(stdin, NULL, _IONBF, 0);
    puts("READY");
    fflush(stdout);
    for (unsigned round = 0;; round++) {
        if (poll(&input, 1, 10) > 0) {
            char line[64];
            if (!fgets(line, sizeof line, stdin))
                return 0;
            printf("%lu\n", leaked);
            fflush(stdout);
            if (!fgets(line, sizeof line, stdin))
                return 0;
            continue;
        }
        serve(round);
        if (round % 10 == 0) {
            leak_slowly();
            leaked++;
        }
        if (round % 25 == 0) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, serve_in_thread, (void *)(size_t)round) != 0)
                return 5;
            pthread_join(thread, NULL);
        }
        if (round % 50 == 0)
            use_plugin(argv[1], round);
    }
}
