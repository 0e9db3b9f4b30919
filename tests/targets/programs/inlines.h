#include <stdlib.h>

static inline __attribute__((always_inline)) void *header_allocate(size_t size) {
    size_t rounded = (size + 15) & ~(size_t)15;
    return malloc(rounded);
}
