/* Everything that a tracer could do to signals. Commands, each of which answers with what happened:
 *   handler    installs a SIGTRAP handler that counts
 *   raise N    raise(SIGTRAP) N times                          -> traps COUNT
 *   int3 N     executes N breakpoint instructions of its own   -> traps COUNT
 *   value N    sends itself N queued signals with a value      -> values COUNT (those that arrived with the right value)
 *   timer N    allocates until N ticks of a 1 kHz timer came   -> ticks N
 *   mask       -> mask CAUGHT (1 if SIGTRAP still has the program's own handler)
 *   default    restores SIGTRAP's default action
 *   ignore     ignores SIGTRAP, sends it                       -> alive
 *   fault N    N writes to unmapped memory, whose handler goes on behind the fault -> faults COUNT
 *   leak N     leaks, prints the ground truth */
#define _GNU_SOURCE
#include "target.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>

SITE(by_signals, "malloc<-leak:@<-main");
NOINLINE static void leak(unsigned i) {
    void *p = AT(by_signals, malloc(51));
    settle(&by_signals, p, 51, i);
}

NOINLINE static void churn(void) {
    char *volatile p = malloc(48);
    p[0] = 1;
    free(p);
    KEEP();
}

static volatile sig_atomic_t traps, values, ticks, faults, wrong;
static volatile uintptr_t expected_pc;

static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    traps++;
    if (info->si_code > 0 && expected_pc) {
#ifdef __x86_64__
        uintptr_t pc = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
        if (pc != expected_pc)
            wrong++;
#endif
    }
}

static void on_value(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    if (info->si_code == SI_QUEUE && info->si_value.sival_int == 4711 + values && info->si_pid == getpid())
        values++;
}

static void on_tick(int signal) {
    (void)signal;
    ticks++;
}

static volatile int *volatile unmapped = (int *)64;
static sigjmp_buf behind_fault;
static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    if (info->si_addr == (void *)unmapped)
        faults++;
    siglongjmp(behind_fault, 1);
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(signal, &action, NULL))
        _exit(91);
}

NOINLINE static void own_breakpoint(void) {
#ifdef __x86_64__
    uintptr_t behind;
    __asm__ volatile("lea 1f(%%rip), %0\n\tmov %0, %1\n\tint3\n1:" : "=&r"(behind), "=m"(expected_pc) : : "memory");
    expected_pc = 0;
#endif
}

int main(void) {
    handle(SIGRTMIN, on_value);
    handle(SIGSEGV, on_fault);
    signal(SIGALRM, on_tick);
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long raises = target_number(command, "raise"), breakpoints = target_number(command, "int3");
        long sends = target_number(command, "value"), period = target_number(command, "timer");
        long leaks = target_number(command, "leak"), bad = target_number(command, "fault");
        if (!strcmp(command, "quit"))
            return 0;
        if (!strcmp(command, "handler"))
            handle(SIGTRAP, on_trap);
        if (!strcmp(command, "default"))
            signal(SIGTRAP, SIG_DFL);
        if (!strcmp(command, "ignore")) {
            signal(SIGTRAP, SIG_IGN);
            raise(SIGTRAP);
            target_say("alive");
        }
        if (!strcmp(command, "mask")) {
            struct sigaction action;
            sigaction(SIGTRAP, NULL, &action);
            target_say("mask %d", action.sa_sigaction == on_trap);
        }
        if (raises > 0 || breakpoints > 0) {
            traps = wrong = 0;
            for (long i = 0; i < raises; i++) {
                churn();
                raise(SIGTRAP);
            }
            for (long i = 0; i < breakpoints; i++) {
                churn();
                own_breakpoint();
            }
            target_say("traps %d wrong %d", (int)traps, (int)wrong);
        }
        if (sends > 0) {
            values = 0;
            for (long i = 0; i < sends; i++) {
                union sigval value = {.sival_int = 4711 + (int)i};
                churn();
                sigqueue(getpid(), SIGRTMIN, value);
            }
            target_say("values %d", (int)values);
        }
        if (period > 0) {
            struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
            ticks = 0;
            setitimer(ITIMER_REAL, &every, NULL);
            while (ticks < period)
                churn();
            setitimer(ITIMER_REAL, &never, NULL);
            target_say("ticks %ld", period);
        }
        if (bad > 0) {
            faults = 0;
            for (volatile long i = 0; i < bad; i++) {
                churn();
                if (!sigsetjmp(behind_fault, 1))
                    *unmapped = 1;
            }
            target_say("faults %d", (int)faults);
        }
        for (long i = 0; i < 2 * leaks; i++)
            leak((unsigned)i);
        target_report();
        target_say("DONE");
    }
}
