// Functions with the names of allocators: a pool behind some of C++'s operators, wrappers behind the others, and functions
// and data that only have such a name. Only to be read, not to be run.
#include <cstddef>
#include <cstdlib>
#include <new>

static char pool[1 << 16];
static std::size_t used;

void *operator new(std::size_t size) {
    if (used + size > sizeof pool)
        return malloc(size);
    void *block = pool + used;
    used += (size + 15) & ~std::size_t{15};
    return block;
}

void operator delete(void *block) noexcept {
    if (block < pool || block >= pool + sizeof pool)
        free(block);
}

void *operator new[](std::size_t size) {
    return malloc(size);
}

void operator delete[](void *block) noexcept {
    free(block);
}

extern "C" {
__attribute__((used)) int je_malloc = 1;
__attribute__((used, noinline)) void vfree(int *count) {
    --*count;
}
__attribute__((used, noinline)) void cfree(int *count) {
    ++*count;
}
static void *chosen(std::size_t size) {
    return pool + size;
}
__attribute__((used)) void *(*choose(void))(std::size_t) {
    return chosen;
}
__attribute__((used, ifunc("choose"))) void *mi_malloc(std::size_t size);
}

int main() {
    delete new int;
    delete[] new int[3];
    return mi_malloc(1) == nullptr;
}
