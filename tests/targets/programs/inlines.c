/* Functions inlined into each other, from a header and from this file; a static one, a cold one, a clone, a tail call. */
#include <stdio.h>
#include <stdlib.h>
#include "inlines.h"

static inline __attribute__((always_inline)) void *twice_inlined(size_t size) {
    void *block = header_allocate(size + 1);
    if (!block)
        abort();
    return block;
}

static __attribute__((noinline)) int scaled(int factor, int value) {
    return factor * value + printf("%d\n", value);
}

__attribute__((noinline)) int call_clones(int value) {
    return scaled(3, value) + scaled(3, value + 1);
}

__attribute__((noinline)) void *keep(size_t size) {
    char *block = twice_inlined(size);
    block[0] = 'x';
    return block;
}

__attribute__((noinline)) void *tail(size_t size) { return keep(size * 2); }

__attribute__((noinline)) void fail(const char *what) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

__attribute__((noinline)) int may_fail(int value) {
    if (__builtin_expect(value < 0, 0)) {
        fprintf(stderr, "negative: %d\n", value);
        fail("value");
    }
    return value;
}

int main(int argc, char **argv) {
    void *blocks[3] = {keep((size_t)argc), tail(2), twice_inlined(3)};
    int sum = call_clones(argc) + may_fail(argc);
    for (int i = 0; i < 3; i++)
        sum += ((char *)blocks[i])[0];
    return sum + argv[0][0] == 0;
}
