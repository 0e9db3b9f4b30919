/* Objects of several types, each with functions of its own; of each call site every second object is leaked. They are handed out by return value,
 * through a pointer or in place, have references, are made within each other's functions and by jumps into malloc. Sites are named TYPE:SITE.
 * Commands: `go N` (N leaks and N pairs a site), `threads N` (the same in four threads at once). */
#include "target.h"

#include <pthread.h>

#define API NOINLINE __attribute__((noclone))
#define CHAIN(inner) inner "<-run_sites<-main"
#define OBJECTS(type, name, chain) static struct site type##_##name = {#type ":" #name, chain, 0, 0, 0, 0, 0, 0}

/* Counts an object; true if it is to be freed. */
static int is_freed(struct site *site, size_t bytes, unsigned i) {
    target_enlist(site);
    site->allocations++;
    if (i % 2) {
        site->frees++;
        return 1;
    }
    site->blocks++;
    site->bytes += bytes;
    return 0;
}

/* Connections: conn=conn_new,conn_dup|conn_free,conn_close(2) */
struct conn {
    int fd;
};

API struct conn *conn_new(int fd) {
    struct conn *c = malloc(sizeof *c);
    c->fd = fd;
    return c;
}

API struct conn *conn_dup(const struct conn *of) {
    struct conn *c = conn_new(of->fd);
    KEEP();
    return c;
}

API void conn_free(struct conn *c) {
    free(c);
    KEEP();
}

API int conn_close(int why, struct conn *c) {
    conn_free(c);
    return why;
}

OBJECTS(conn, by_new, CHAIN("conn_new<-site_new:@"));
NOINLINE static void site_new(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct conn *c = AT(conn_by_new, conn_new(3));
        if (is_freed(&conn_by_new, 0, i))
            conn_free(c);
    }
    conn_free(NULL);
}

OBJECTS(conn, by_dup, CHAIN("conn_dup<-site_dup:@"));
NOINLINE static void site_dup(unsigned n) {
    struct conn one = {7};
    for (unsigned i = 0; i < 2 * n; i++) {
        struct conn *c = AT(conn_by_dup, conn_dup(&one));
        if (is_freed(&conn_by_dup, 0, i))
            conn_close(1, c);
    }
}

/* Servers, which have connections: server=server_new|server_free */
struct server {
    struct conn *conns[2];
};

OBJECTS(server, plain, CHAIN("server_new<-site_server:@"));
OBJECTS(conn, of_server, CHAIN("conn_new<-server_new:@<-site_server"));

API struct server *server_new(void) {
    struct server *s = malloc(sizeof *s);
    for (unsigned i = 0; i < 2; i++) {
        s->conns[i] = AT(conn_of_server, conn_new(4));
        KEEP();
    }
    return s;
}

API void server_free(struct server *s) {
    conn_free(s->conns[0]);
    conn_free(s->conns[1]);
    free(s);
    KEEP();
}

NOINLINE static void site_server(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct server *s = AT(server_plain, server_new());
        int frees = is_freed(&server_plain, 0, i);
        is_freed(&conn_of_server, 0, i);
        is_freed(&conn_of_server, 0, i);
        if (frees)
            server_free(s);
    }
}

/* Databases, stored through a pointer even if they cannot be opened: db=db_open(out=2,always)|db_close */
struct db {
    int is_open;
};

API int db_open(const char *name, struct db **out) {
    if (!*name) {
        *out = NULL;
        return 2;
    }
    *out = malloc(sizeof **out);
    (*out)->is_open = *name != '?';
    return !(*out)->is_open;
}

API void db_close(struct db *db) {
    free(db);
    KEEP();
}

OBJECTS(db, opened, CHAIN("db_open<-site_db:@"));
OBJECTS(db, unopened, CHAIN("db_open<-site_bad_db:@"));
NOINLINE static void site_db(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct db *db;
        AT(db_opened, db_open("name", &db));
        if (is_freed(&db_opened, 0, i))
            db_close(db);
    }
}

NOINLINE static void site_bad_db(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct db *db;
        db_open("", &db);
        db_close(db);
        AT(db_unopened, db_open("?", &db));
        if (is_freed(&db_unopened, 0, i))
            db_close(db);
    }
}

/* Files, stored through a pointer if all went well: file=file_open(out=1,size=2*3)|file_close */
API long file_open(void **out, size_t width, size_t height) {
    *out = malloc(width * height);
    if (height != 5)
        return 0x100000000; /* An int: only the lower half counts. */
    free(*out);
    return -1;
}

API void file_close(void *file) {
    free(file);
    KEEP();
}

OBJECTS(file, opened, CHAIN("file_open<-site_file:@"));
NOINLINE static void site_file(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *file;
        file_open(&file, 3, 5);
        AT(file_opened, file_open(&file, 3, 7));
        if (is_freed(&file_opened, 21, i))
            file_close(file);
    }
}

/* Streams, in the caller's memory: stream=stream_init(this=1)|stream_end */
struct stream {
    int level;
};

API int stream_init(struct stream *s, int level) {
    s->level = level;
    return level > 9 ? -2 : 0;
}

API int stream_end(struct stream *s) {
    s->level = 0;
    return 0;
}

OBJECTS(stream, plain, CHAIN("stream_init<-site_stream:@"));
NOINLINE static void site_stream(unsigned n) {
    static struct stream streams[4096];
    static unsigned used;
    for (unsigned i = 0; i < 2 * n; i++) {
        struct stream *s = &streams[used++ % 4096];
        stream_init(s, 10);
        AT(stream_plain, stream_init(s, 3));
        if (is_freed(&stream_plain, 0, i))
            stream_end(s);
    }
}

/* Handles, which are memory: handle=handle_new(size=1)|handle_free. Both jump. */
API void *handle_new(size_t size) {
    return malloc(size);
}

API void handle_free(void *handle) {
    free(handle);
}

OBJECTS(handle, plain, CHAIN("handle_new<-site_handle:@"));
NOINLINE static void site_handle(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *h = AT(handle_plain, handle_new(33));
        KEEP();
        if (is_freed(&handle_plain, 33, i))
            handle_free(h);
    }
}

/* Nodes, with references: node=node_new|node_destroy|node_ref,node_share|node_unref */
struct node {
    int references;
};

API struct node *node_new(void) {
    struct node *node = malloc(sizeof *node);
    node->references = 1;
    return node;
}

API struct node *node_ref(struct node *node) {
    node->references++;
    return node;
}

API struct node *node_share(int why, struct node *node) {
    node_ref(node);
    KEEP();
    return why ? node : NULL;
}

API void node_destroy(struct node *node) {
    free(node);
    KEEP();
}

API void node_unref(struct node *node) {
    if (!--node->references)
        node_destroy(node);
    KEEP();
}

OBJECTS(node, forgotten, CHAIN("node_new<-site_node:@"));
NOINLINE static void site_node(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct node *node = AT(node_forgotten, node_new());
        node_ref(node);
        node_share(1, node);
        node_unref(node);
        node_unref(node);
        if (is_freed(&node_forgotten, 0, i))
            node_unref(node);
    }
}

OBJECTS(node, destroyed, CHAIN("node_new<-site_destroyed:@"));
NOINLINE static void site_destroyed(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct node *node = AT(node_destroyed, node_new());
        node_ref(node);
        if (is_freed(&node_destroyed, 0, i))
            node_destroy(node);
    }
}

/* Calls from changing depths leave in the stack what a look at it must not take for a call that goes on. */
NOINLINE static void deeper(struct node *node, unsigned depth) {
    volatile char room[64 * 3];
    (void)room;
    if (depth)
        deeper(node, depth - 1);
    else
        node_ref(node);
    room[0] = 1;
}

OBJECTS(node, by_depth, CHAIN("node_new<-site_by_depth:@"));
NOINLINE static void site_by_depth(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        struct node *node = AT(node_by_depth, node_new());
        for (unsigned depth = 0; depth < 3; depth++) {
            node_share(1, node);
            deeper(node, depth);
            node_unref(node);
            node_unref(node);
        }
        if (is_freed(&node_by_depth, 0, i))
            node_unref(node);
    }
}

/* Tokens: token=tok_*_new|tok_*_free. In functions local to this file, so that a glob must not take a part of one for another. */
API void *tok_word_new(void) {
    return malloc(1);
}

API void *tok_line_new(void) {
    return malloc(2);
}

API void tok_any_free(void *token) {
    free(token);
}

OBJECTS(token, word, CHAIN("tok_word_new<-site_token:@"));
OBJECTS(token, line, CHAIN("tok_line_new<-site_line:@"));
NOINLINE static void site_token(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *token = AT(token_word, tok_word_new());
        if (is_freed(&token_word, 0, i))
            tok_any_free(token);
    }
}

NOINLINE static void site_line(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *token = AT(token_line, tok_line_new());
        if (is_freed(&token_line, 0, i))
            tok_any_free(token);
    }
}

NOINLINE static void run_sites(unsigned n) {
    site_new(n);
    site_dup(n);
    site_server(n);
    site_db(n);
    site_bad_db(n);
    site_file(n);
    site_stream(n);
    site_handle(n);
    site_node(n);
    site_destroyed(n);
    site_by_depth(n);
    site_token(n);
    site_line(n);
    KEEP();
}

/* Connections that go from thread to thread. */
OBJECTS(conn, of_thread, "conn_new<-worker:@");
static struct conn *passed;

NOINLINE static void *worker(void *argument) {
    unsigned n = (unsigned)(uintptr_t)argument;
    for (unsigned i = 0; i < 2 * n; i++) {
        struct conn *c = AT(conn_of_thread, conn_new(1));
        if (i % 2 == 0)
            continue;
        c = __atomic_exchange_n(&passed, c, __ATOMIC_ACQ_REL);
        conn_free(c);
    }
    return NULL;
}

static void run_threads(unsigned n) {
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)n);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    conn_free(__atomic_exchange_n(&passed, NULL, __ATOMIC_ACQ_REL));
    target_enlist(&conn_of_thread);
    conn_of_thread.allocations += 8 * n;
    conn_of_thread.frees += 4 * n;
    conn_of_thread.blocks += 4 * n;
}

int main(void) {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go"), in_threads = target_number(command, "threads");
        if (!strcmp(command, "quit"))
            return 0;
        if (n >= 0)
            run_sites(n);
        if (in_threads >= 0)
            run_threads(in_threads);
        target_report();
        target_say("DONE");
    }
}
