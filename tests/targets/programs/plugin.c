/* A library that a running program loads, and that leaks. */
#include <stdlib.h>

/* Other plugins have another name here, and perhaps larger frames. */
#ifndef DEEP
#define DEEP deep_in_plugin
#endif
#ifndef FRAME
#define FRAME 1
#endif

__attribute__((visibility("default"))) void *plugin_leak(size_t size);

static __attribute__((noinline)) void *DEEP(size_t size) {
    volatile char frame[FRAME];
    frame[0] = 0;
    void *p = malloc(size);
    frame[0]++;
    return p;
}

void *plugin_leak(size_t size) {
    void *p = DEEP(size);
    __asm__ volatile("" ::: "memory");
    return p;
}

#ifdef ALLOCATOR
/* Never called: its name alone makes this a library with an allocator, of which memleax says that it has seen it. */
__attribute__((visibility("default"))) void *rpmalloc(size_t size);

void *rpmalloc(size_t size) {
    return malloc(size);
}
#endif

#ifdef MARK
/* A moment that is worth a snapshot. */
__attribute__((visibility("default"), noinline)) void late_mark(void);

void late_mark(void) {
    __asm__ volatile("" ::: "memory");
}
#endif
