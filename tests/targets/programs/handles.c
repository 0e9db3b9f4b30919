/* Functions that hand out objects within one another, and memory within those. Command: `go N`: says what objects and blocks of memory were
 * made and ended by then, as `TYPE MADE ENDED`. `above N`: N times a signal comes amid such a function, whose handler has a stack above and
 * allocates there. */
#include "target.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

struct conn {
    long references;
    void *buffer;
};

/* What main has asked for: the blocks of memory and the objects that each function has made and ended. */
static long made[4], ended[4];
enum { MEMORY, CONN, POOL, SESSION };
static const char *const names[] = {"memory", "conn", "pool", "session"};

static jmp_buf out;
static volatile int refuses, is_interrupted;
static long rounds;

NOINLINE static void *buffer_of(size_t size) {
    void *buffer = malloc(size);
    made[MEMORY]++;
    KEEP();
    return buffer;
}

NOINLINE struct conn *conn_new(void) {
    if (refuses)
        longjmp(out, 1);
    if (is_interrupted)
        raise(SIGUSR2);
    struct conn *conn = calloc(1, sizeof *conn);
    made[MEMORY]++;
    conn->references = 1;
    conn->buffer = buffer_of(100);
    return conn;
}

/* Part of which is a call of the same type's. */
NOINLINE struct conn *conn_dup(const struct conn *conn) {
    struct conn *new = conn_new();
    memcpy(new->buffer, conn->buffer, 100);
    KEEP();
    return new;
}

NOINLINE void conn_free(struct conn *conn) {
    free(conn->buffer);
    free(conn);
    ended[MEMORY] += 2;
    KEEP();
}

NOINLINE void conn_ref(struct conn *conn) {
    conn->references++;
}

NOINLINE void conn_unref(struct conn *conn) {
    if (--conn->references == 0)
        conn_free(conn);
    KEEP();
}

/* Another function to the same end: the reference is one, though both are called. */
NOINLINE void conn_put(struct conn *conn) {
    conn_unref(conn);
    KEEP();
}

/* Ends by a jump to malloc: the object is the block, and both calls return at once. */
NOINLINE void *pool_new(void) {
    made[MEMORY]++;
    return malloc(64);
}

NOINLINE void pool_free(void *pool) {
    ended[MEMORY]++;
    free(pool);
}

struct session {
    struct conn *conn;
    void *pool;
};

/* Of several types at once. */
NOINLINE int session_open(int flags, struct session **session) {
    *session = malloc(sizeof **session);
    made[MEMORY]++;
    (*session)->conn = conn_new();
    (*session)->pool = pool_new();
    made[CONN]++;
    made[POOL]++;
    return flags;
}

NOINLINE void session_close(struct session *session) {
    conn_put(session->conn);
    pool_free(session->pool);
    free(session);
    ended[MEMORY]++;
    ended[CONN]++;
    ended[POOL]++;
    KEEP();
}

NOINLINE static void conns(void) {
    struct conn *kept = conn_new(), *gone = conn_new(), *held = conn_dup(kept);
    made[CONN] += 3;
    conn_free(gone);
    ended[CONN]++;
    /* Three references, of which one is left. */
    conn_ref(held);
    conn_ref(held);
    for (int i = 0; i < 2; i++)
        conn_unref(held);
    KEEP();
}

NOINLINE static void shared(void) {
    struct conn *shared = conn_new();
    made[CONN]++;
    conn_ref(shared);
    conn_put(shared);
    conn_put(shared);
    ended[CONN]++;
    KEEP();
}

NOINLINE static void pools(void) {
    pool_new();
    made[POOL] += 2;
    pool_free(pool_new());
    ended[POOL]++;
    KEEP();
}

NOINLINE static void sessions(void) {
    struct session *session;
    session_open(0, &session);
    session_open(1, &session);
    made[SESSION] += 2;
    session_close(session);
    ended[SESSION]++;
    KEEP();
}

/* Nothing comes of it: it does not return. */
NOINLINE static void refused(void) {
    if (!setjmp(out)) {
        refuses = 1;
        conn_new();
    }
    refuses = 0;
    KEEP();
}

/* An allocator that nobody else watches, whose probes would trap returns here, too. */
NOINLINE void *je_malloc(size_t size) {
    static char block[100];
    KEEP();
    return size <= sizeof block ? block : NULL;
}

static void handle(int signal) {
    (void)signal;
    void *volatile block = je_malloc(100);
    (void)block;
}

/* Its stack lies below that of main, which lends it a part for its alternate stack. */
NOINLINE static void *interrupted(void *alternate) {
    stack_t stack = {.ss_sp = alternate, .ss_size = 1 << 16};
    sigaltstack(&stack, NULL);
    is_interrupted = 1;
    for (long i = 0; i < rounds; i++)
        conn_new();
    is_interrupted = 0;
    return NULL;
}

static void above(void) {
    static char low[1 << 18];
    char high[1 << 16];
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR2, &action, NULL);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, low, sizeof low);
    pthread_t thread;
    pthread_create(&thread, &attributes, interrupted, high);
    pthread_join(thread, NULL);
}

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        rounds = target_number(command, "above");
        if (rounds > 0)
            above();
        for (long i = 0; i < n; i++) {
            conns();
            shared();
            refused();
            pools();
            sessions();
        }
        for (int type = 0; type < 4; type++)
            target_say("%s %ld %ld", names[type], made[type], ended[type]);
        target_say("DONE");
    }
}
