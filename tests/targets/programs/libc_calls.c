#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline))
#define KEEP() __asm__ volatile("" ::: "memory")

static void *volatile sink;

NOINLINE static void duplicate(const char *text) {
    sink = strdup(text);
    KEEP();
}

NOINLINE static int compare(const void *a, const void *b) {
    duplicate("compare");
    return *(const int *)a - *(const int *)b;
}

NOINLINE static void *run(void *argument) {
    duplicate("thread");
    return argument;
}

NOINLINE static void handle(int signal) {
    duplicate(signal == SIGUSR1 ? "usr1" : "other");
    KEEP();
}

int main(int argc, char **argv) {
    duplicate(argv[0]);
    char *text;
    if (asprintf(&text, "%d %s %f", argc, "abc", 3.5) < 0)
        return 1;
    int numbers[] = {3, 1, 2, 5, 4, 9, 8, 7};
    qsort(numbers, 8, sizeof *numbers, compare);
    pthread_t thread;
    pthread_create(&thread, NULL, run, NULL);
    pthread_join(thread, NULL);
    signal(SIGUSR1, handle);
    raise(SIGUSR1);
    FILE *file = fopen("/proc/self/maps", "r");
    size_t size = 0;
    char *line = NULL;
    if (!file || getline(&line, &size, file) < 0)
        return 1;
    fclose(file);
    setenv("NAME", "value", 1);
    return 0;
}
