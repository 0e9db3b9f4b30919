/* A heap with a course: temporary blocks, two hills of which the second is the peak, and a leak between them. Nothing else
 * allocates, and no block changes its size. */
#include <stdlib.h>
#include <string.h>

static void *held[700];

/* Not the last thing that a function does, so that each has a frame. */
static volatile long calls;

__attribute__((noipa)) static void *take(size_t size) {
    void *block = malloc(size);
    memset(block, 1, size);
    calls++;
    return block;
}

__attribute__((noipa)) static void temporary(int count) {
    for (int i = 0; i < count; i++)
        free(take(100 + i % 7));
    calls++;
}

__attribute__((noipa)) static void hill(int count) {
    for (int i = 0; i < count; i++)
        held[i] = take(1000 + i);
    for (int i = 0; i < count; i++)
        free(held[i]);
    calls++;
}

__attribute__((noipa)) static void leak(int count) {
    for (int i = 0; i < count; i++)
        held[i] = calloc(2, 32);
    calls++;
}

int main(void) {
    temporary(50);
    hill(300);
    leak(40);
    hill(700);
    temporary(10);
    return 0;
}
