// Objects of C++, named as the source names them, and memory from a pool. Sites are named TYPE:SITE; those of memory have no type.
// Command: `go N` (N leaks and N pairs a site).
#include "target.h"

#include <initializer_list>
#include <new>

#define API __attribute__((noinline, noclone))
#define CHAIN(inner) inner "<-run_sites<-main"
#define OBJECTS(type, name, chain) static struct site type##_##name = {#type ":" #name, chain, 0, 0, 0, 0, 0, 0}

namespace net {

struct Session {
    API explicit Session(int id) : id(id) { KEEP(); }
    API ~Session() { KEEP(); }
    int id;
};

template <typename T> struct Cache {
    API static T *take(int key, const char *name) {
        KEEP();
        return new T(key + (name ? 1 : 0));
    }
    API static T *take(long key) {
        KEEP();
        return new T(static_cast<int>(key));
    }
    API static void give(T *what) {
        delete what;
        KEEP();
    }
};

} // namespace net

// A pool of its own memory, which it gets by malloc when it is first used.
struct pool {
    char *memory;
    size_t used;
    char *last;
};

extern "C" {
API void *pool_alloc(struct pool *pool, size_t size) {
    if (!pool->memory)
        pool->memory = static_cast<char *>(malloc(1 << 20));
    if (pool->last) {
        char *again = pool->last;
        pool->last = nullptr;
        return again;
    }
    pool->used = (pool->used + size + 15) & ~static_cast<size_t>(15);
    return pool->memory + pool->used - ((size + 15) & ~static_cast<size_t>(15));
}

API void pool_free(struct pool *pool, void *block) {
    pool->last = static_cast<char *>(block);
}

API void *pool_resize(struct pool *pool, void *block, size_t size) {
    (void)size;
    (void)pool;
    KEEP();
    return block;
}
}

OBJECTS(session, made, CHAIN("Session<-site_session:@"));
NOINLINE static void site_session(unsigned n) {
    static char room[4096 * sizeof(net::Session)];
    static unsigned used;
    for (unsigned i = 0; i < 2 * n; i++) {
        void *place = room + used++ % 4096 * sizeof(net::Session);
        auto *session = AT(session_made, new (place) net::Session(7));
        target_enlist(&session_made);
        session_made.allocations++;
        if (i % 2) {
            session_made.frees++;
            session->~Session();
        } else {
            session_made.blocks++;
        }
    }
}

OBJECTS(cached, taken, CHAIN("take<-site_taken:@"));
OBJECTS(session, cached, CHAIN("Session<-take<-site_taken:@"));
SITE(cached_memory, CHAIN("malloc<-*<-take<-site_taken:@"));
NOINLINE static void site_taken(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        auto *it = AT(cached_taken, net::Cache<net::Session>::take(3, "x"));
        session_cached.line = cached_memory.line = cached_taken.line;
        cached_memory.bytes += i % 2 ? 0 : sizeof *it;
        for (struct site *site : {&cached_taken, &session_cached, &cached_memory}) {
            target_enlist(site);
            site->allocations++;
            (i % 2 ? site->frees : site->blocks)++;
        }
        if (i % 2)
            net::Cache<net::Session>::give(it);
    }
}

static struct pool pool;

SITE(pooled, CHAIN("pool_alloc<-site_pooled:@"));
NOINLINE static void site_pooled(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        void *block = AT(pooled, pool_alloc(&pool, 40));
        target_enlist(&pooled);
        pooled.allocations++;
        if (i % 2) {
            pooled.frees++;
            pool_free(&pool, block);
        } else {
            pooled.blocks++;
            pooled.bytes += 24;
            pool_resize(&pool, block, 24);
        }
        KEEP();
    }
}

// By the other overload, which is not followed.
OBJECTS(session, otherwise, "Session<-take<-run_sites:@<-main");
SITE(otherwise_memory, "malloc<-*<-take<-run_sites:@<-main");

NOINLINE static void run_sites(unsigned n) {
    AT(session_otherwise, net::Cache<net::Session>::take(5L));
    KEEP();
    otherwise_memory.line = session_otherwise.line;
    otherwise_memory.bytes += sizeof(net::Session);
    for (struct site *site : {&session_otherwise, &otherwise_memory}) {
        target_enlist(site);
        site->allocations++;
        site->blocks++;
    }
    site_session(n);
    site_taken(n);
    site_pooled(n);
    KEEP();
}

int main() {
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go");
        if (!strcmp(command, "quit"))
            return 0;
        if (n >= 0)
            run_sites(n);
        target_report();
        target_say("DONE");
    }
}
