// The guarded process. Writes a line for each thing it has done; does the next when it reads a letter.
//
//   target busy THREADS        threads that call bump() without end; 's' stops them
//   target trap ACTION         one thread and an action for SIGTRAP; see command()
//   target wait CALL           a thread blocked in a system call; tells what that returned
//   target rseq                a thread in a restartable sequence; tells whether it was left in it
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// The breakpoint's place: its first instruction has three bytes, and may be executed anywhere. Adds 1 to *rdi.
void bump(uint64_t *counter);
__asm__(".text\n"
        ".globl bump\n"
        ".type bump, @function\n"
        "bump: mov %rdi, %rax\n"
        "  incq (%rax)\n"
        "  ret\n"
        ".size bump, .-bump\n");

static void say(const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    line[length++] = '\n';
    if (write(STDOUT_FILENO, line, length) != length) abort();
}

static int read_letter(void) {
    char letter;
    ssize_t count;
    do count = read(STDIN_FILENO, &letter, 1);
    while (count == -1 && errno == EINTR);
    return count == 1 ? letter : -1;
}

static atomic_bool stopping;

static void *bump_without_end(void *argument) {
    uint64_t counter = 0, calls = 0;
    // Some more after the end was asked for, so that each thread surely calls it after the tracer was killed.
    for (uint64_t rest = 100; rest > 0; rest -= atomic_load(&stopping)) {
        bump(&counter);
        calls++;
    }
    *(bool *)argument = counter == calls;
    return NULL;
}

static int busy(int threads) {
    pthread_t ids[64];
    bool right[64];
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, bump_without_end, &right[i]);
    say("bump %p", (void *)bump);
    read_letter();
    atomic_store(&stopping, true);
    bool all = true;
    for (int i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        all = all && right[i];
    }
    say(all ? "right" : "wrong");
    return 0;
}

static volatile int handled, handled_code;

static void simple_handler(int signal) { handled += signal == SIGTRAP; }

static void info_handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    handled += signal == SIGTRAP;
    handled_code = info->si_code;
}

// struct kernel_sigaction
struct action {
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

static void set_action(const char *name) {
    struct sigaction action = {0};
    if (!strcmp(name, "none")) return;
    sigaddset(&action.sa_mask, SIGUSR1);
    if (!strcmp(name, "handler")) action.sa_handler = simple_handler;
    else if (!strcmp(name, "ignore")) action.sa_handler = SIG_IGN;
    else if (!strcmp(name, "default")) action.sa_handler = SIG_DFL;
    else {
        action.sa_sigaction = info_handler;
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
        if (!strcmp(name, "once")) action.sa_flags |= SA_RESETHAND;
    }
    sigaction(SIGTRAP, &action, NULL);
}

static void describe_action(void) {
    struct action action;
    syscall(SYS_rt_sigaction, SIGTRAP, NULL, &action, 8);
    const char *name = action.handler == (void *)SIG_DFL       ? "default"
                       : action.handler == (void *)SIG_IGN     ? "ignore"
                       : action.handler == (void *)simple_handler ? "handler"
                       : action.handler == (void *)info_handler   ? "info"
                                                                  : "foreign";
    say("action %s %lx %d %lx", name, action.flags, action.restorer != NULL, action.mask);
}

// Anonymous memory that is executable or of the size of a page: what a tracer might leave behind.
static void describe_memory(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    int count = 0;
    while (fgets(line, sizeof line, maps)) {
        char permissions[8];
        unsigned long inode, start, end;
        char path[256] = "";
        sscanf(line, "%lx-%lx %7s %*s %*s %lu %255s", &start, &end, permissions, &inode, path);
        count += inode == 0 && !path[0] && permissions[2] == 'x';
    }
    fclose(maps);
    say("executable %d", count);
}

// Bytes of this program's text that are not its file's.
static void describe_text(void) { say("byte %02x", *(const unsigned char *)bump); }

static int child_status(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) == -1 && errno == EINTR) {}
    return status;
}

static void *blocked_bump(void *argument) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    bump(argument);
    return NULL;
}

static volatile int queued_value, queued_sender;

static void queued_handler(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    queued_value = info->si_value.sival_int;
    queued_sender = info->si_pid;
}

static void queue_signal(int signal) {
    struct sigaction action = {.sa_sigaction = queued_handler, .sa_flags = SA_SIGINFO};
    sigaction(signal, &action, NULL);
    sigqueue(getpid(), signal, (union sigval){.sival_int = 42});
    say("queued %d %d", queued_value, queued_sender == getpid());
    queued_value = 0;
}

// A filter that allows everything.
static void filter(void) {
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    say("filter %d", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
}

// System calls from everywhere are exempt.
static void dispatch(void) {
    static char selector;
    say("dispatch %d", prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, ~0UL, &selector));
}

static struct sigaction saved;

static bool command(int letter) {
    static uint64_t counter;
    pid_t child;
    switch (letter) {
    case 'b':
        for (int i = 0; i < 10; i++) bump(&counter);
        say("bumped %d", (int)counter);
        return true;
    case 'r':
        raise(SIGTRAP);
        say("raised %d %d", handled, handled_code);
        return true;
    case 'i':
        __asm__ volatile("int3");
        say("int3 %d %d", handled, handled_code);
        return true;
    case 'I':
        __asm__ volatile(".byte 0xcd, 3");
        say("int3 %d %d", handled, handled_code);
        return true;
    case 't': // one single step of its own
        __asm__ volatile("pushfq\n orl $0x100, (%%rsp)\n popfq\n nop\n pushfq\n andl $~0x100, (%%rsp)\n popfq\n" ::: "cc", "memory");
        say("stepped %d", handled);
        return true;
    case 'q': describe_action(); return true;
    case 'm': describe_memory(); return true;
    case 'y': describe_text(); return true;
    case 'h': set_action("info"); say("set"); return true;
    case 'd': set_action("default"); say("set"); return true;
    case 'v': sigaction(SIGTRAP, NULL, &saved); set_action("info"); say("saved"); return true;
    case 'w': sigaction(SIGTRAP, &saved, NULL); say("restored"); return true;
    case 'f':
        child = fork();
        if (child == 0) {
            for (int i = 0; i < 10; i++) bump(&counter);
            _exit(counter % 10 ? 1 : 0);
        }
        say("child %x", child_status(child));
        return true;
    case 'o': { // the breakpoint is met by a thread that blocks SIGTRAP
        pthread_t id;
        pthread_create(&id, NULL, blocked_bump, &counter);
        pthread_join(id, NULL);
        say("blocked %d", (int)counter);
        return true;
    }
    case 's': { // SIGTRAP pending, unblocked by sigsuspend only
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGTRAP);
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGTRAP);
        sigemptyset(&set);
        sigsuspend(&set);
        say("suspended %d", handled);
        return true;
    }
    case 'u': queue_signal(SIGUSR1); return true;
    case 'U': queue_signal(SIGRTMIN + 3); return true;
    case 'p': filter(); return true;
    case 'P': dispatch(); return true;
    case 'e': execl("/proc/self/exe", "target", "trap", "none", NULL); abort();
    default: return false;
    }
}

static int trap(const char *action) {
    set_action(action);
    say("bump %p", (void *)bump);
    while (command(read_letter())) {}
    return 0;
}

static int pipes[2];

static void *wait_in(void *name) {
    struct timespec begin, end, time = {0, 300 * 1000 * 1000};
    struct timeval timeval = {0, 300 * 1000};
    struct pollfd poll_in = {.fd = pipes[0], .events = POLLIN};
    struct epoll_event event = {.events = EPOLLIN};
    uint32_t futex = 0;
    sigset_t signals;
    char byte;
    fd_set set;
    long result = -2;
    int sockets[2], epoll = epoll_create1(0), semaphore = semget(IPC_PRIVATE, 1, 0600);
    struct sembuf take = {0, -1, 0};
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR2);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
    setsockopt(sockets[0], SOL_SOCKET, SO_RCVTIMEO, &timeval, sizeof timeval);
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    say("waiting %d", (int)gettid());
    clock_gettime(CLOCK_MONOTONIC, &begin);
    errno = 0;
    if (!strcmp(name, "nanosleep")) result = nanosleep(&time, NULL);
    else if (!strcmp(name, "clock_nanosleep")) result = clock_nanosleep(CLOCK_REALTIME, 0, &time, NULL);
    else if (!strcmp(name, "futex")) result = syscall(SYS_futex, &futex, FUTEX_WAIT, 0, &time, NULL, 0);
    else if (!strcmp(name, "poll")) result = poll(&poll_in, 1, 300);
    else if (!strcmp(name, "ppoll")) result = ppoll(&poll_in, 1, &time, &signals);
    else if (!strcmp(name, "select")) result = select(pipes[0] + 1, &set, NULL, NULL, &timeval);
    else if (!strcmp(name, "pselect")) result = pselect(pipes[0] + 1, &set, NULL, NULL, &time, &signals);
    else if (!strcmp(name, "epoll_wait")) result = epoll_wait(epoll, &event, 1, 300);
    else if (!strcmp(name, "epoll_pwait")) result = epoll_pwait(epoll, &event, 1, 300, &signals);
    else if (!strcmp(name, "semtimedop")) result = semtimedop(semaphore, &take, 1, &time);
    else if (!strcmp(name, "sigtimedwait")) result = sigtimedwait(&signals, NULL, &time);
    else if (!strcmp(name, "recv_timeout")) result = recv(sockets[0], &byte, 1, 0);
    else if (!strcmp(name, "read")) result = read(pipes[0], &byte, 1);
    else if (!strcmp(name, "poll_forever")) result = poll(&poll_in, 1, -1);
    else if (!strcmp(name, "epoll_forever")) result = epoll_wait(epoll, &event, 1, -1);
    else if (!strcmp(name, "futex_forever")) result = syscall(SYS_futex, &futex, FUTEX_WAIT, 0, NULL, NULL, 0);
    else if (!strcmp(name, "pause")) result = pause();
    int error = errno;
    clock_gettime(CLOCK_MONOTONIC, &end);
    long milliseconds = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
    semctl(semaphore, 0, IPC_RMID);
    say("result %ld %s %s", result, result == -1 ? strerrorname_np(error) : "-", milliseconds >= 299 ? "late" : "early");
    return NULL;
}

static int wait_call(char *name) {
    pthread_t id;
    if (pipe(pipes)) abort();
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = simple_handler}, NULL); // without SA_RESTART
    pthread_create(&id, NULL, wait_in, name);
    int letter = read_letter();
    if (letter == 'w' && write(pipes[1], "x", 1) != 1) abort();
    if (letter == 'k') pthread_kill(id, SIGUSR1);
    pthread_join(id, NULL);
    return 0;
}

// Sets *sequence, and *entered, and spins until *released; returns what *sequence is then. Begins anew whenever it is
// aborted.
uint64_t spin_in_sequence(uint64_t *sequence, atomic_int *entered, atomic_int *released);
__asm__(".text\n"
        "spin_in_sequence: lea descriptor(%rip), %rax\n"
        "  mov %rax, (%rdi)\n"
        "sequence_start: movl $1, (%rsi)\n"
        "1: cmpl $0, (%rdx)\n"
        "  je 1b\n"
        "  mov (%rdi), %rax\n"
        "sequence_end: movq $0, (%rdi)\n"
        "  ret\n"
        "  .long 0x53053053\n" // RSEQ_SIG
        "sequence_abort: jmp spin_in_sequence\n"
        ".data\n"
        ".balign 32\n"
        "descriptor: .long 0, 0\n"
        "  .quad sequence_start, sequence_end - sequence_start, sequence_abort\n"
        ".text\n");

static atomic_int entered, released;

static void *sequence(void *left) {
    struct rseq *area = (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
    *(bool *)left = spin_in_sequence((uint64_t *)&area->rseq_cs, &entered, &released) == 0;
    return NULL;
}

static int rseq(void) {
    pthread_t id;
    bool left = false;
    if (__rseq_size == 0) {
        say("none");
        return 0;
    }
    pthread_create(&id, NULL, sequence, &left);
    while (!atomic_load(&entered)) sched_yield();
    say("entered");
    read_letter();
    atomic_store(&released, 1);
    pthread_join(id, NULL);
    say(left ? "wrong" : "right");
    return 0;
}

int main(int count, char **arguments) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count == 3 && !strcmp(arguments[1], "busy")) return busy(atoi(arguments[2]));
    if (count == 3 && !strcmp(arguments[1], "trap")) return trap(arguments[2]);
    if (count == 3 && !strcmp(arguments[1], "wait")) return wait_call(arguments[2]);
    if (count == 2 && !strcmp(arguments[1], "rseq")) return rseq();
    return 2;
}
