// Call stacks of every kind of frame in random order: alloca, frames aligned to 32 and 64 bytes, arguments on the stack, exceptions, callbacks
// from libraries, coroutines; in four threads, each of which 2000 signals a second interrupt wherever it is. Command: `go N`: each
// thread allocates by N random stacks.
#include "target.h"

#include <alloca.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <csignal>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <pthread.h>
#include <search.h>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <utility>
#include <vector>

#define THREADS 4
#define NANOSECONDS_BETWEEN_SIGNALS 500000

// By this name memleax takes it for jemalloc's. It may be called from a signal handler, which malloc may not.
static thread_local char arena[64][64];
static thread_local unsigned used;
extern "C" NOINLINE void *je_malloc(size_t size) {
    KEEP();
    return size > sizeof arena[0] ? nullptr : arena[used++ % 64];
}

static thread_local volatile void *sink;
static thread_local volatile long number;
static std::atomic<unsigned long> signals;

// xorshift
static thread_local uint64_t random_state;
static inline unsigned random_below(unsigned limit) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return unsigned((random_state >> 33) % limit);
}

static void descend(int depth);

struct Thrown : std::runtime_error {
    using std::runtime_error::runtime_error;
};

NOINLINE static void by_malloc(int size) {
    free(const_cast<void *>(sink = malloc(size_t(size) + 1)));
    KEEP();
}

NOINLINE static void by_new(int size) {
    auto block = std::make_unique<std::array<char, 48>>();
    sink = block.get();
    std::string text(size_t(size) + 40, 'x');
    sink = text.data();
}

NOINLINE static void by_duplicate(int) {
    free(const_cast<void *>(sink = strdup("text")));
    KEEP();
}

NOINLINE static void by_realloc(int size) {
    void *volatile block = malloc(size_t(size) + 1);
    block = realloc(block, size_t(size) + 10000);
    free(block);
}

NOINLINE static void by_throw(int size) {
    std::string alive(size_t(size) + 40, 'y');
    sink = alive.data();
    throw Thrown("an exception whose text is long enough for a block of its own");
}

NOINLINE static void plain(int depth) {
    descend(depth);
    KEEP();
}

NOINLINE static void with_alloca(int depth) {
    char *p = static_cast<char *>(alloca(size_t(depth) * 24 + 8));
    p[0] = 1;
    sink = p;
    descend(depth);
    sink = p;
}

NOINLINE static void with_alloca_in_a_loop(int depth) {
    for (int i = 0; i < 3; i++)
        sink = alloca(16 + size_t(depth) * size_t(i));
    descend(depth);
    KEEP();
}

NOINLINE __attribute__((target("avx2"))) static void aligned_32(int depth) {
    alignas(32) long vector[8];
    for (long &lane : vector)
        lane = depth + number;
    sink = vector;
    descend(depth);
    for (long lane : vector)
        number = number + lane;
}

NOINLINE __attribute__((target("avx2"))) static void aligned_64(int depth) {
    alignas(64) char buffer[128];
    memset(buffer, depth, sizeof buffer);
    sink = buffer;
    descend(depth);
    sink = buffer;
}

NOINLINE static void aligned_with_alloca(int depth) {
    alignas(64) char buffer[64];
    sink = alloca(size_t(depth) + 8);
    sink = buffer;
    descend(depth);
    sink = buffer;
}

NOINLINE __attribute__((target("avx2"))) static void aligned_that_saves_all(int depth) {
    alignas(32) long vector[4] = {depth, 1, 2, 3};
    long a = number, b = a * 3, c = b ^ a, d = c + 7, e = d * a, f = e - b;
    sink = vector;
    descend(depth);
    number = a + b + c + d + e + f + vector[random_below(4)];
}

// gcc keeps the CFA in r10 and saves that in the frame.
NOINLINE static void aligned_with_arguments(int depth, long b, long c, long d, long e, long f, long g, long h) {
    alignas(64) char buffer[128];
    for (long i = 0; i < b; i++)
        sink = alloca(size_t(c + d + e + f + 8));
    sink = buffer;
    descend(depth);
    number = g + h;
    sink = buffer;
}

NOINLINE static void with_arguments(int depth, long b, long c, long d, long e, long f, long g, long h) {
    descend(depth);
    number = b + c + d + e + f + g + h;
}

NOINLINE static void that_saves_all(int depth) {
    long a = number, b = a * 3, c = b ^ a, d = c + 7, e = d * a, f = e - b, g = f ^ d;
    descend(depth);
    number = a + b * 2 + c * 3 + d * 5 + e * 7 + f * 11 + g * 13;
}

NOINLINE static void large(int depth) {
    volatile char buffer[3000];
    buffer[0] = buffer[2999] = 1;
    descend(depth);
    number = buffer[2999];
}

NOINLINE static void that_catches(int depth) {
    std::string alive(50, 'z');
    try {
        descend(depth);
    } catch (const Thrown &thrown) {
        number = long(strlen(thrown.what()));
        by_malloc(depth);
    }
    sink = alive.data();
}

NOINLINE static void that_throws_on(int depth) {
    try {
        descend(depth);
    } catch (...) {
        by_new(depth);
        throw;
    }
}

NOINLINE static void by_function(int depth) {
    std::function<void(int)> function = [depth](int i) {
        descend(depth);
        number = i;
    };
    function(depth);
    KEEP();
}

static thread_local int depth_below;
static int compare(const void *a, const void *b) {
    if (depth_below >= 0) {
        int depth = depth_below;
        depth_below = -1;
        descend(depth);
    }
    return *static_cast<const int *>(a) - *static_cast<const int *>(b);
}

NOINLINE static void by_qsort(int depth) {
    int numbers[] = {3, 1, 2};
    depth_below = depth;
    qsort(numbers, 3, sizeof *numbers, compare);
    depth_below = -1;
}

NOINLINE static void by_search(int depth) {
    int numbers[] = {1, 2, 3};
    depth_below = depth;
    sink = bsearch(numbers, numbers, 3, sizeof *numbers, compare);
    depth_below = -1;
}

NOINLINE static void by_sort(int depth) {
    std::vector<int> numbers = {3, 1, 2};
    int left = depth;
    std::sort(numbers.begin(), numbers.end(), [&left](int a, int b) {
        if (left >= 0)
            descend(std::exchange(left, -1));
        return a < b;
    });
    KEEP();
}

struct Node {
    int depth;
    Node(int d) : depth(d) { descend(d); }
    virtual ~Node() { KEEP(); }
};
struct Derived : Node {
    std::map<int, std::string> names;
    Derived(int d) : Node(d) { names[d] = std::string(30, 'n'); }
};

NOINLINE static void by_constructor(int depth) {
    Derived node(depth);
    sink = &node;
    KEEP();
}

/* Most calls to the right depth end in a jump. */
NOINLINE static void by_jump(int depth) { return plain(depth); }

struct Coroutine {
    ucontext_t back, there;
    int depth;
    bool threw;
    char stack[1 << 18];
};
static thread_local std::array<Coroutine *, 3> coroutines;
static thread_local unsigned coroutines_in_use;

NOINLINE static void in_coroutine() {
    Coroutine *self = coroutines[coroutines_in_use - 1];
    self->threw = false;
    try {
        descend(self->depth);
    } catch (...) {
        self->threw = true;
    }
    swapcontext(&self->there, &self->back);
    abort();
}

NOINLINE static void by_coroutine(int depth) {
    if (coroutines_in_use == coroutines.size())
        return plain(depth);
    Coroutine *&next = coroutines[coroutines_in_use++];
    if (!next)
        next = new Coroutine;
    Coroutine *own = next;
    getcontext(&own->there);
    own->there.uc_stack.ss_sp = own->stack;
    own->there.uc_stack.ss_size = sizeof own->stack;
    own->there.uc_link = nullptr;
    own->depth = depth;
    makecontext(&own->there, in_coroutine, 0);
    swapcontext(&own->back, &own->there);
    coroutines_in_use--;
    if (own->threw)
        throw Thrown("what a coroutine let through");
}

// Calls a function on the stack that ends at `top`.
extern "C" void call_on_stack(void *top, void (*function)());
__asm__(".text\n.type call_on_stack, @function\ncall_on_stack:\n.cfi_startproc\n"
        "push %rbp\n.cfi_def_cfa_offset 16\n.cfi_offset 6, -16\nmov %rsp, %rbp\n.cfi_def_cfa_register 6\n"
        "mov %rdi, %rsp\ncall *%rsi\nleave\n.cfi_def_cfa 7, 8\nret\n.cfi_endproc\n.size call_on_stack, . - call_on_stack\n");

static thread_local char *higher_stack;
static thread_local int depth_on_stack;
NOINLINE static void on_higher_stack() {
    descend(depth_on_stack);
    KEEP();
}

// Stacks grow down, so the callers of what runs on a higher one lie below it.
NOINLINE static void by_higher_stack(int depth) {
    char *top = std::exchange(higher_stack, nullptr);
    if (!top)
        return plain(depth);
    depth_on_stack = depth;
    try {
        call_on_stack(top, on_higher_stack);
    } catch (...) {
        higher_stack = top;
        throw;
    }
    higher_stack = top;
}

// Something for signals to interrupt, in the program and in libraries, that allocates nothing.
NOINLINE static void be_busy(int depth) {
    char text[200];
    std::array<double, 40> numbers;
    for (int i = 0; i < 50 + depth; i++) {
        for (double &x : numbers)
            x = sin(double(random_below(1000)));
        std::sort(numbers.begin(), numbers.end());
        snprintf(text, sizeof text, "%d %s %.3f %lx", i, "text", numbers[size_t(i) % numbers.size()], number);
        number = number + long(strlen(text)) + strtol(text, nullptr, 10);
        timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        memmove(text + 1, text, 100);
        depth_below = -1;
        int small[] = {3, 1, 2};
        qsort(small, 3, sizeof *small, compare);
    }
}

static void descend(int depth) {
    if (random_below(8) == 0)
        be_busy(depth);
    if (depth <= 0) {
        switch (random_below(6)) {
        case 0: return by_malloc(depth + 20);
        case 1: return by_new(depth + 20);
        case 2: return by_duplicate(depth);
        case 3: return by_realloc(depth + 20);
        case 4: return by_throw(depth + 20);
        default: return be_busy(depth);
        }
    }
    depth--;
    switch (random_below(22)) {
    case 0: plain(depth); break;
    case 1: with_alloca(depth); break;
    case 2: with_alloca_in_a_loop(depth); break;
    case 3: aligned_32(depth); break;
    case 4: aligned_64(depth); break;
    case 5: aligned_with_alloca(depth); break;
    case 6: aligned_that_saves_all(depth); break;
    case 7: aligned_with_arguments(depth, 2, 3, 4, 5, 6, 7, 8); break;
    case 8: with_arguments(depth, 2, 3, 4, 5, 6, 7, 8); break;
    case 9: that_saves_all(depth); break;
    case 10: large(depth); break;
    case 11: that_catches(depth); break;
    case 12: that_throws_on(depth); break;
    case 13: by_function(depth); break;
    case 14: by_qsort(depth); break;
    case 15: by_search(depth); break;
    case 16: by_sort(depth); break;
    case 17: by_constructor(depth); break;
    case 18: by_jump(depth); break;
    case 19: by_coroutine(depth); break;
    case 20: by_higher_stack(depth); break;
    default: {
        // The stack pointer moves while the arguments are pushed, too.
        with_arguments(depth, number, number, number, number, number, number, number);
        break;
    }
    }
    KEEP();
}

// What the handler itself has for frames.
NOINLINE static void in_handler(int depth) {
    if (depth > 0) {
        sink = alloca(size_t(depth) * 8);
        in_handler(depth - 1);
        KEEP();
    } else {
        sink = je_malloc(16);
        KEEP();
    }
}

static void on_signal(int) {
    int error = errno;
    signals++;
    in_handler(int(signals % 3));
    errno = error;
}

static pthread_barrier_t start, finish;
static std::atomic<unsigned> rounds;
static std::atomic<bool> done;

constexpr size_t HIGHER = 1 << 18;
static char *higher_stacks;

static void *work(void *argument) {
    uintptr_t index = uintptr_t(argument);
    random_state = 88172645463325252u + index;
    depth_below = -1;
    if (index % 2) {
        stack_t own{};
        own.ss_size = 1 << 16;
        // Below every other stack: the kernel (cleanup_return_instances, kernel/events/uprobes.c) takes calls in progress on a lower stack
        // than this one for ended, and sends SIGILL when they return.
        void *low = reinterpret_cast<void *>(0x10000000 + index * 2 * own.ss_size);
        own.ss_sp = mmap(low, own.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (own.ss_sp != low)
            abort();
        sigaltstack(&own, nullptr);
    } else {
        // Not both: a record holds copies of two stacks.
        higher_stack = higher_stacks + (index + 1) * HIGHER;
    }
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = index % 2 ? SIGUSR2 : SIGUSR1;
    event._sigev_un._tid = pid_t(syscall(SYS_gettid));
    timer_t timer;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer))
        _exit(92);
    pthread_barrier_wait(&finish);
    for (;;) {
        pthread_barrier_wait(&start);
        if (done)
            return nullptr;
        itimerspec period{{0, NANOSECONDS_BETWEEN_SIGNALS}, {0, NANOSECONDS_BETWEEN_SIGNALS}};
        timer_settime(timer, 0, &period, nullptr);
        for (unsigned i = 0; i < rounds; i++) {
            try {
                descend(int(2 + random_below(10)));
            } catch (const Thrown &) {
                by_malloc(1);
            }
        }
        period = {};
        timer_settime(timer, 0, &period, nullptr);
        pthread_barrier_wait(&finish);
    }
}

int main() {
    // The first thread's stack is above all others.
    alignas(16) char stacks[THREADS * HIGHER];
    higher_stacks = stacks;
    struct sigaction action{};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, nullptr);
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(SIGUSR2, &action, nullptr);
    pthread_barrier_init(&start, nullptr, THREADS + 1);
    pthread_barrier_init(&finish, nullptr, THREADS + 1);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], nullptr, work, reinterpret_cast<void *>(i)))
            return 1;
    pthread_barrier_wait(&finish);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (n > 0) {
            rounds = unsigned(n);
            pthread_barrier_wait(&start);
            pthread_barrier_wait(&finish);
            target_say("signals %lu", signals.load());
        } else if (!strcmp(command, "quit")) {
            done = true;
            pthread_barrier_wait(&start);
            for (pthread_t thread : threads)
                pthread_join(thread, nullptr);
            return 0;
        }
        target_say("DONE");
    }
}
