// The process that the tests trace. Its parent waits for it and tells on stderr how it stops, continues and ends; it
// tells on stdout what it did, and goes on when it reads a line on stdin.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *program;
static atomic_bool done;

static void say(const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, length) != length)
        _exit(3);
}

// Waits for a line; ends the process when nobody can write one any more.
static void read_line(void) {
    char byte;
    ssize_t count;
    do
        count = read(STDIN_FILENO, &byte, 1);
    while (count == 1 ? byte != '\n' : count == -1 && errno == EINTR);
    if (count != 1)
        _exit(4);
}

static pthread_t start(void *(*function)(void *), void *argument) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, function, argument);
    if (error) {
        say("pthread_create: %s", strerror(error));
        _exit(5);
    }
    return thread;
}

// A function whose first byte is a nop: after a breakpoint there a thread may simply go on.
extern void bump(void);
_Atomic uint64_t counter;
__asm__(".text\n.globl bump\n.type bump, @function\nbump: nop\n lock incq counter(%rip)\n ret\n.size bump, . - bump\n");

static void idle(void) {
    say("ready");
    read_line();
}

static void *storm_child(void *argument) {
    atomic_fetch_add(&counter, 1);
    return argument;
}

static void *storm(void *argument) {
    uint64_t *rounds = argument;
    while (!done) {
        void *result;
        pthread_join(start(storm_child, rounds), &result);
        if (result != rounds)
            abort();
        ++*rounds;
    }
    return NULL;
}

static void thread_storm(void) {
    static uint64_t rounds[8];
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        threads[i] = start(storm, &rounds[i]);
    say("ready");
    read_line();
    done = true;
    uint64_t total = 0;
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        total += rounds[i];
    }
    say(total == counter ? "right" : "wrong");
}

static void *call_often(void *argument) {
    for (uint64_t i = *(uint64_t *)argument; i > 0 && !done; i--)
        bump();
    return NULL;
}

// Calls bump() so often in each of 4 threads; 0 for until the next line.
static void calls(uint64_t times) {
    bool forever = times == 0;
    uint64_t each = forever ? UINT64_MAX : times;
    say("bump %p", (void *)bump);
    read_line();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = start(call_often, &each);
    if (forever) {
        say("started");
        read_line();
        done = true;
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    say("counted %lu", (unsigned long)counter);
}

static void tell_signal(int signal, siginfo_t *info, void *context) {
    (void)context;
    say("signal %d code %d value %d", signal, info->si_code, info->si_code == SI_QUEUE ? info->si_value.sival_int : 0);
}

static void handle(int signal) {
    struct sigaction action = {.sa_sigaction = tell_signal, .sa_flags = SA_SIGINFO};
    sigaction(signal, &action, NULL);
}

static void signals(void) {
    handle(SIGUSR1);
    handle(SIGRTMIN);
    handle(SIGCONT);
    handle(SIGTSTP);
    handle(SIGTRAP);
    handle(SIGSEGV);
    say("ready");
    read_line();
}

static void *read_until_done(void *argument) {
    read_line();
    done = true;
    return argument;
}

// The main thread is never in a system call.
static void busy(void) {
    handle(SIGUSR1);
    handle(SIGRTMIN);
    sigset_t set;
    sigfillset(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t reader = start(read_until_done, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    say("ready");
    while (!done)
        bump();
    pthread_join(reader, NULL);
}

static void own_traps(void) {
    handle(SIGTRAP);
    idle();
    raise(SIGTRAP);
    __asm__ volatile("int3");
    say("survived");
    read_line();
}

static void report_child(const char *how, pid_t pid) {
    int status;
    if (pid < 0 || waitpid(pid, &status, __WALL) != pid)
        say("%s: lost", how);
    else if (WIFEXITED(status))
        say("%s: exited %d", how, WEXITSTATUS(status));
    else
        say("%s: killed %d", how, WTERMSIG(status));
    read_line();
}

static int sharing_child(void *argument) {
    (void)argument;
    bump();
    return 7;
}

static void children(void) {
    char *arguments[] = {(char *)program, "exit", NULL};
    static char stack[65536];
    say("bump %p", (void *)bump);
    read_line();
    pid_t pid = fork();
    if (pid == 0) {
        bump();
        _exit(7);
    }
    report_child("fork", pid);
    pid = vfork();
    if (pid == 0) {
        bump();
        execve(program, arguments, environ);
        _exit(1);
    }
    report_child("vfork", pid);
    if (posix_spawn(&pid, program, NULL, NULL, arguments, environ))
        pid = -1;
    report_child("posix_spawn", pid);
    report_child("clone without memory", clone(sharing_child, stack + sizeof stack, SIGURG, NULL));
    report_child("clone with memory", clone(sharing_child, stack + sizeof stack, CLONE_VM | SIGCHLD, NULL));
    int status = system("exit 7");
    say("system: exited %d", WEXITSTATUS(status));
    read_line();
    say("counted %lu", (unsigned long)counter);
    read_line();
}

// vfork and posix_spawn, again and again, in two threads.
static void *spawn_often(void *argument) {
    char *arguments[] = {(char *)program, "exit", NULL};
    while (!done) {
        pid_t pid;
        int status = 0;
        bump();
        if (posix_spawn(&pid, program, NULL, NULL, arguments, environ) || waitpid(pid, &status, 0) != pid ||
            !WIFEXITED(status) || WEXITSTATUS(status) != 7)
            atomic_fetch_add((atomic_int *)argument, 1);
    }
    return NULL;
}

static void spawns(void) {
    static atomic_int failures;
    pthread_t threads[2] = {start(spawn_often, &failures), start(spawn_often, &failures)};
    say("bump %p", (void *)bump);
    read_line();
    done = true;
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    say("failures %d", failures);
}

// A child of vfork that does not end before a line comes.
static void long_vfork(void) {
    pid_t pid = vfork();
    if (pid == 0) {
        say("ready");
        read_line();
        _exit(7);
    }
    report_child("vfork", pid);
}

static void count_signal(int signal) {
    (void)signal;
    atomic_fetch_add(&counter, 1);
}

// Threads that come and go, children of each kind, and signals from one thread to another.
static void *turmoil(void *argument) {
    static char *arguments[] = {NULL, "exit", NULL};
    atomic_int *failures = argument;
    arguments[0] = (char *)program;
    for (unsigned round = 0; !done; round++) {
        pid_t pid = -1;
        int status = 0;
        switch (round % 4) {
        case 0:
            pthread_join(start(storm_child, NULL), NULL);
            continue;
        case 1:
            pid = fork();
            if (pid == 0) {
                bump();
                _exit(7);
            }
            break;
        case 2:
            if (posix_spawn(&pid, program, NULL, NULL, arguments, environ))
                pid = -1;
            break;
        case 3:
            pthread_kill(pthread_self(), SIGUSR1);
            bump();
            continue;
        }
        if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 7)
            atomic_fetch_add(failures, 1);
    }
    return NULL;
}

static void turmoils(void) {
    static atomic_int failures;
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        threads[i] = start(turmoil, &failures);
    say("bump %p", (void *)bump);
    read_line();
    done = true;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    say("failures %d", failures);
}

static void *burn(void *argument) {
    while (!done)
        sched_yield();
    return argument;
}

static void *exec_self(void *argument) {
    (void)argument;
    char *arguments[] = {(char *)program, "idle", NULL};
    execve(program, arguments, environ);
    return NULL;
}

// exec in the main thread, or in another one, while three more are busy.
static void exec(bool other_thread) {
    for (int i = 0; i < 3; i++)
        start(burn, NULL);
    say("ready");
    read_line();
    if (other_thread)
        start(exec_self, NULL);
    else
        exec_self(NULL);
    for (;;)
        pause();
}

static void *outlive(void *argument) {
    pthread_join(*(pthread_t *)argument, NULL);
    idle();
    say("outlived");
    read_line();
    exit(9);
}

static void main_thread_ends(void) {
    static pthread_t main_thread;
    main_thread = pthread_self();
    start(outlive, &main_thread);
    pthread_exit(NULL);
}

static void *sleeper(void *argument) {
    pause();
    return argument;
}

static void many_threads(int count) {
    while (count-- > 0)
        start(sleeper, NULL);
    idle();
}

static void blocked_trap(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTRAP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    start(sleeper, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    idle();
}

static void undumpable(void) {
    prctl(PR_SET_DUMPABLE, 0);
    idle();
}

static void crash(void) {
    idle();
    *(volatile int *)16 = 1;
}

static void memory(void) {
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(pages, 'x', 2 * 4096);
    munmap(pages + 2 * 4096, 4096);
    mprotect(pages, 4096, PROT_NONE);
    say("pages %p", (void *)pages);
    read_line();
    mprotect(pages, 4096, PROT_READ);
    say("%.4s", pages);
    read_line();
}

// A read by io_uring that never ends, in a thread that the kernel makes for it.
static void io_uring(void) {
    struct io_uring_params parameters = {0};
    int ring = syscall(SYS_io_uring_setup, 1, &parameters);
    if (ring == -1) {
        say("refused: %s", strerror(errno));
        return read_line();
    }
    int protection = PROT_READ | PROT_WRITE;
    size_t size = parameters.sq_off.array + sizeof(unsigned);
    char *queue = mmap(NULL, size, protection, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entry =
        mmap(NULL, sizeof *entry, protection, MAP_SHARED, ring, IORING_OFF_SQES);
    static char buffer[1];
    int pipes[2];
    if (pipe(pipes))
        abort();
    *entry = (struct io_uring_sqe){.opcode = IORING_OP_READ, .flags = IOSQE_ASYNC, .fd = pipes[0],
                                   .addr = (uintptr_t)buffer, .len = 1};
    *(_Atomic unsigned *)(queue + parameters.sq_off.tail) = 1;
    say(syscall(SYS_io_uring_enter, ring, 1, 0, 0, NULL, 0) == 1 ? "ready" : "failed");
    read_line();
    if (write(pipes[1], "x", 1) != 1 || syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 0)
        abort();
    say("read %c", *buffer);
}

// A thread that a second tracer holds, beside the main thread.
static void *say_thread(void *argument) {
    say("thread %d", (int)syscall(SYS_gettid));
    return sleeper(argument);
}

static void two_threads(void) {
    start(say_thread, NULL);
    read_line();
}

static int run(char **arguments) {
    const char *mode = arguments[0];
    if (!strcmp(mode, "exit"))
        return 7;
    else if (!strcmp(mode, "idle"))
        idle();
    else if (!strcmp(mode, "storm"))
        thread_storm();
    else if (!strcmp(mode, "calls"))
        calls(strtoull(arguments[1], NULL, 10));
    else if (!strcmp(mode, "signals"))
        signals();
    else if (!strcmp(mode, "busy"))
        busy();
    else if (!strcmp(mode, "traps"))
        own_traps();
    else if (!strcmp(mode, "children"))
        children();
    else if (!strcmp(mode, "spawns"))
        spawns();
    else if (!strcmp(mode, "vfork"))
        long_vfork();
    else if (!strcmp(mode, "exec"))
        exec(false);
    else if (!strcmp(mode, "exec-thread"))
        exec(true);
    else if (!strcmp(mode, "main-ends"))
        main_thread_ends();
    else if (!strcmp(mode, "blocked-trap"))
        blocked_trap();
    else if (!strcmp(mode, "undumpable"))
        undumpable();
    else if (!strcmp(mode, "crash"))
        crash();
    else if (!strcmp(mode, "memory"))
        memory();
    else if (!strcmp(mode, "turmoil"))
        turmoils();
    else if (!strcmp(mode, "io-uring"))
        io_uring();
    else if (!strcmp(mode, "threads"))
        many_threads(atoi(arguments[1]));
    else if (!strcmp(mode, "two-threads"))
        two_threads();
    else
        return 2;
    return 0;
}

static void tell_status(const char *format, int number) {
    char line[64];
    int length = snprintf(line, sizeof line, format, number);
    if (write(STDERR_FILENO, line, length) != length)
        _exit(3);
}

// Runs a mode in a child and tells what becomes of it.
static int launch(char **arguments) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(run(arguments));
    close(STDIN_FILENO);
    close(STDOUT_FILENO);
    tell_status("pid %d\n", pid);
    for (;;) {
        int status;
        if (waitpid(pid, &status, WUNTRACED | WCONTINUED) != pid)
            return 1;
        if (WIFSTOPPED(status))
            tell_status("stopped %d\n", WSTOPSIG(status));
        else if (WIFCONTINUED(status))
            tell_status("continued %d\n", SIGCONT);
        else if (WIFEXITED(status))
            return tell_status("exited %d\n", WEXITSTATUS(status)), 0;
        else
            return tell_status("killed %d\n", WTERMSIG(status)), 0;
    }
}

int main(int argc, char **argv) {
    program = argv[0];
    if (argc < 2)
        return 2;
    if (!strcmp(argv[1], "launch"))
        return launch(argv + 2);
    return run(argv + 1);
}
