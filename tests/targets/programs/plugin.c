/* A library that a running program loads, and that leaks. */
#include <stdlib.h>

__attribute__((visibility("default"))) void *plugin_leak(size_t size);

static __attribute__((noinline)) void *deep_in_plugin(size_t size) {
    void *p = malloc(size);
    __asm__ volatile("" ::: "memory");
    return p;
}

void *plugin_leak(size_t size) {
    void *p = deep_in_plugin(size);
    __asm__ volatile("" ::: "memory");
    return p;
}
