// Every kind of frame that a C++ compiler makes, each above a call of malloc: for the comparison with gdb. Takes no commands.
#include <alloca.h>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <immintrin.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <ucontext.h>
#include <vector>
volatile void *sink;
__attribute__((noinline)) void leaf(size_t n) { sink = malloc(n); asm volatile(""); }
__attribute__((noinline)) void with_alloca(size_t n) { char *p = (char *)alloca(n); memset(p, 1, n); sink = p; leaf(n); asm volatile(""); }
__attribute__((noinline, target("avx2"))) void realigned(size_t n) { alignas(64) char b[128]; memset(b, 2, sizeof b); sink = b; leaf(n); sink = b; }
__attribute__((noinline)) void realigned_alloca(size_t n) { alignas(64) char b[128]; char *p = (char *)alloca(n); sink = p; sink = b; leaf(n); sink = b; }
// Arguments on the stack, an aligned buffer and alloca: gcc keeps the CFA in r10 and saves that in the frame.
__attribute__((noinline)) void realigned_arguments(size_t n, long b, long c, long d, long e, long f, long g) { alignas(64) char buffer[128]; for (long i = 0; i < b; i++) sink = alloca(n + c + d + e + f); sink = buffer; leaf(n + g); sink = buffer; }
__attribute__((noinline)) void many(long a, long b, long c, long d, long e, long f, long g, long h) { leaf(a + b + c + d + e + f + g + h); asm volatile(""); }
__attribute__((noinline)) void thrower(int n) { if (n == 0) throw std::runtime_error("x"); std::string s(100, 'x'); thrower(n - 1); sink = s.data(); }
__attribute__((noinline)) void handler(int) { leaf(77); asm volatile(""); }
[[noreturn]] __attribute__((noinline)) void never(int n) { leaf(n); throw n; }
__attribute__((noinline)) int cmp(const void *a, const void *b) { leaf(5); return *(int *)a - *(int *)b; }
ucontext_t back, there;
__attribute__((noinline)) void coroutine() { leaf(9); swapcontext(&there, &back); }
int main(int argc, char **) {
    size_t n = 100 + argc;
    with_alloca(n);
    realigned(n);
    realigned_alloca(n);
    realigned_arguments(n, 2, 3, 4, 5, 6, 7);
    many(1, 2, 3, 4, 5, 6, 7, 8);
    try { thrower(3); } catch (std::exception &e) { leaf(1); }
    try { never(3); } catch (int) { leaf(2); }
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    stack_t alt{}; alt.ss_size = 65536; alt.ss_sp = malloc(65536); sigaltstack(&alt, nullptr);
    struct sigaction sa{}; sa.sa_handler = handler; sa.sa_flags = SA_ONSTACK; sigaction(SIGUSR2, &sa, nullptr);
    raise(SIGUSR2);
    int v[] = {3, 1, 2, 5, 4}; qsort(v, 5, sizeof *v, cmp);
    std::thread([&] { std::function<void()> f = [&] { leaf(8); }; f(); }).join();
    std::vector<std::unique_ptr<std::string>> w; for (int i = 0; i < 5; i++) w.push_back(std::make_unique<std::string>(50, 'a'));
    getcontext(&there); there.uc_stack.ss_sp = malloc(65536); there.uc_stack.ss_size = 65536; there.uc_link = &back;
    makecontext(&there, coroutine, 0); swapcontext(&back, &there);
    char *s = nullptr; sink = &s; if (asprintf(&s, "%d %s", 4, "abc") < 0) return 1; sink = strdup(s);
    return 0;
}
