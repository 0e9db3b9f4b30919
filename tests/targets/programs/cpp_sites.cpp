// Leaks by every allocation of C++, through every shape of call. Commands: `go N` (N leaks and N pairs a site),
// `throw N` (N rounds of exceptions thrown across frames that own memory; answers `caught N` with its own count).
#include "target.h"

#include <functional>
#include <map>
#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#define CHAIN(inner) inner "<-run_sites<-main"

// The ground truth's own book-keeping for blocks that the language frees.
NOINLINE static void count(struct site &site, bool leaked, size_t bytes) {
    target_enlist(&site);
    site.allocations++;
    if (leaked) {
        site.blocks++;
        site.bytes += bytes;
    } else {
        site.frees++;
    }
    KEEP();
}

// The compiler must not see through a new that is followed by delete.
template <class T> static T *opaque(T *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

struct Small {
    long words[7];
};

SITE(by_new, CHAIN("malloc|operator new|operator new[]<-*<-site_new:@"));
NOINLINE static void site_new(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        Small *p = opaque(AT(by_new, new Small));
        count(by_new, i % 2 == 0, sizeof *p);
        if (i % 2)
            delete p;
    }
}

SITE(by_new_array, CHAIN("malloc|operator new|operator new[]<-*<-site_new_array:@"));
NOINLINE static void site_new_array(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        int *p = opaque(AT(by_new_array, new int[17]));
        count(by_new_array, i % 2 == 0, 17 * sizeof *p);
        if (i % 2)
            delete[] p;
    }
}

SITE(by_new_nothrow, CHAIN("malloc|operator new|tc_new_nothrow|mi_new_nothrow<-*<-site_new_nothrow:@"));
NOINLINE static void site_new_nothrow(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        char *p = opaque(AT(by_new_nothrow, static_cast<char *>(operator new(61, std::nothrow))));
        count(by_new_nothrow, i % 2 == 0, 61);
        if (i % 2)
            operator delete(p);
    }
}

// Asks for a multiple of the alignment, so that the rounding of some libraries changes nothing.
struct alignas(64) Aligned {
    char bytes[192];
};
#define ALIGNED "aligned_alloc|memalign|posix_memalign|operator new|tc_new_aligned|mi_malloc_aligned"
SITE(by_new_aligned, CHAIN(ALIGNED "<-*<-site_new_aligned:@"));
NOINLINE static void site_new_aligned(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        Aligned *p = opaque(AT(by_new_aligned, new Aligned));
        count(by_new_aligned, i % 2 == 0, sizeof *p);
        if (i % 2)
            delete p;
    }
}

SITE(by_string, CHAIN("malloc|operator new|operator new[]<-*<-site_string:@"));
NOINLINE static void site_string(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        alignas(std::string) char room[sizeof(std::string)];
        std::string *s = opaque(AT(by_string, new (room) std::string(45, 'x')));
        count(by_string, i % 2 == 0, 46);
        if (i % 2)
            s->~basic_string();
    }
}

SITE(by_vector, CHAIN("malloc|operator new|operator new[]<-*<-site_vector:@"));
NOINLINE static void site_vector(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        alignas(std::vector<short>) char room[sizeof(std::vector<short>)];
        auto *v = opaque(new (room) std::vector<short>);
        AT(by_vector, v->reserve(51));
        count(by_vector, i % 2 == 0, 51 * sizeof(short));
        if (i % 2)
            v->~vector();
    }
}

// push_back grows by doubling: 8 elements take 4 buffers, of which 3 are freed again at once.
SITE(by_growth, CHAIN("malloc|operator new|operator new[]<-*<-grow:@<-site_growth"));
NOINLINE static void grow(std::vector<Small> *v) { AT(by_growth, v->push_back(Small{})); }
NOINLINE static void site_growth(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        alignas(std::vector<Small>) char room[sizeof(std::vector<Small>)];
        auto *v = opaque(new (room) std::vector<Small>);
        for (int k = 0; k < 8; k++)
            grow(v);
        for (int k = 0; k < 3; k++)
            count(by_growth, false, 0);
        count(by_growth, true, 8 * sizeof(Small));
    }
}

// libstdc++'s control block holds a vtable pointer, two counts, and the object.
SITE(by_make_shared, CHAIN("malloc|operator new|operator new[]<-*<-site_make_shared:@"));
NOINLINE static void site_make_shared(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        alignas(std::shared_ptr<Small>) char room[sizeof(std::shared_ptr<Small>)];
        auto *p = opaque(AT(by_make_shared, new (room) std::shared_ptr<Small>(std::make_shared<Small>())));
        count(by_make_shared, i % 2 == 0, 16 + sizeof(Small));
        if (i % 2)
            p->~shared_ptr();
    }
}

// Destructors run and memory is freed while the stack unwinds; what was released before the throw leaks.
SITE(by_exception, CHAIN("malloc|operator new|operator new[]<-*<-leak_and_throw:@<-thrown_through<-site_exception"));
NOINLINE static void leak_and_throw(unsigned i) {
    char *p = opaque(AT(by_exception, new char[52]));
    count(by_exception, i % 2 == 0, 52);
    if (i % 2)
        delete[] p;
    throw std::runtime_error("planted");
}
NOINLINE static void thrown_through(unsigned i) {
    std::vector<int> owned(10 + i % 5);
    opaque(owned.data());
    leak_and_throw(i);
    KEEP();
}
NOINLINE static void site_exception(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++) {
        try {
            thrown_through(i);
        } catch (const std::runtime_error &) {
        }
    }
}

// The exception object itself, kept alive forever.
SITE(by_exception_object, CHAIN("malloc<-*<-throw_kept:@<-site_exception_object"));
static size_t exception_object_bytes;
NOINLINE static void throw_kept() { AT(by_exception_object, throw Small{}); }
NOINLINE static void site_exception_object(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        try {
            throw_kept();
        } catch (const Small &) {
            alignas(std::exception_ptr) char room[sizeof(std::exception_ptr)];
            opaque(new (room) std::exception_ptr(std::current_exception()));
            count(by_exception_object, true, exception_object_bytes);
        }
    }
}

// A new that fails must leave no block behind, and the next allocation must be seen as any other.
SITE(by_bad_alloc, CHAIN("malloc|operator new|operator new[]<-*<-site_bad_alloc:@"));
NOINLINE static void site_bad_alloc(unsigned n) {
    static volatile size_t too_much = PTRDIFF_MAX - 16384;
    for (unsigned i = 0; i < 2 * n; i++) {
        try {
            opaque(new char[too_much]);
            _exit(91);
        } catch (const std::bad_alloc &) {
        }
        char *p = opaque(AT(by_bad_alloc, new char[53]));
        count(by_bad_alloc, i % 2 == 0, 53);
        if (i % 2)
            delete[] p;
    }
}

SITE(by_template, CHAIN("malloc|operator new|operator new[]<-*<-Deep<0>::leak:@<-Deep<1>::leak<-Deep<2>::leak<-Deep<3>::leak<-site_template"));
template <int N> struct Deep {
    NOINLINE static void leak(unsigned i) {
        Deep<N - 1>::leak(i);
        KEEP();
    }
};
template <> struct Deep<0> {
    NOINLINE static void leak(unsigned i);
};
void Deep<0>::leak(unsigned i) {
    char *p = opaque(AT(by_template, new char[54]));
    count(by_template, i % 2 == 0, 54);
    if (i % 2)
        delete[] p;
}
NOINLINE static void site_template(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++)
        Deep<3>::leak(i);
}

SITE(by_lambda, CHAIN("malloc|operator new|operator new[]<-*<-call_back<-site_lambda"));
NOINLINE static void call_back(const std::function<void()> &f) {
    f();
    KEEP();
}
NOINLINE static void site_lambda(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++)
        call_back([i] {
            char *p = opaque(AT(by_lambda, new char[55]));
            count(by_lambda, i % 2 == 0, 55);
            if (i % 2)
                delete[] p;
        });
}

struct Base {
    virtual void leak(unsigned i) = 0;
    virtual ~Base() = default;
};
SITE(by_virtual, CHAIN("malloc|operator new|operator new[]<-*<-Derived::leak:@<-site_virtual"));
struct Derived final : Base {
    NOINLINE void leak(unsigned i) override;
};
void Derived::leak(unsigned i) {
    char *p = opaque(AT(by_virtual, new char[56]));
    count(by_virtual, i % 2 == 0, 56);
    if (i % 2)
        delete[] p;
}
static Derived derived;
static Base *volatile base = &derived;
NOINLINE static void site_virtual(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++)
        base->leak(i);
}

struct Owner {
    char *bytes;
    explicit Owner(unsigned i);
};
SITE(by_constructor, CHAIN("malloc|operator new|operator new[]<-*<-Owner::Owner:@<-site_constructor"));
NOINLINE Owner::Owner(unsigned i) {
    bytes = opaque(AT(by_constructor, new char[58]));
    count(by_constructor, i % 2 == 0, 58);
    if (i % 2)
        delete[] bytes;
}
NOINLINE static void site_constructor(unsigned n) {
    for (unsigned i = 0; i < 2 * n; i++)
        opaque(Owner(i).bytes);
}

// A map node: three pointers and a colour, key and value.
SITE(by_map, CHAIN("malloc|operator new|operator new[]<-*<-site_map:@"));
NOINLINE static void site_map(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        alignas(std::map<long, long>) char room[sizeof(std::map<long, long>)];
        auto *m = opaque(new (room) std::map<long, long>);
        AT(by_map, m->emplace(1, 2));
        count(by_map, true, 48);
    }
}

NOINLINE static void run_sites(unsigned n) {
    site_new(n);
    site_new_array(n);
    site_new_nothrow(n);
    site_new_aligned(n);
    site_string(n);
    site_vector(n);
    site_growth(n);
    site_make_shared(n);
    site_exception(n);
    site_exception_object(n);
    // valgrind and mimalloc end a program whose new fails.
    if (target_includes("bad_alloc"))
        site_bad_alloc(n);
    site_template(n);
    site_lambda(n);
    site_virtual(n);
    site_constructor(n);
    site_map(n);
    KEEP();
}

NOINLINE static void throw_deep(unsigned depth, unsigned i) {
    std::string owned(20 + depth, 'y');
    opaque(owned.data());
    if (depth == 0) {
        if (i % 3)
            throw std::runtime_error("a message that is long enough for the heap");
        throw static_cast<int>(i);
    }
    throw_deep(depth - 1, i);
    KEEP();
}

NOINLINE static unsigned throw_rounds(unsigned n) {
    unsigned caught = 0;
    for (unsigned i = 0; i < n; i++) {
        try {
            throw_deep(i % 20, i);
        } catch (const std::exception &e) {
            caught += e.what()[0] == 'a';
        } catch (int value) {
            caught += value == static_cast<int>(i);
        }
    }
    return caught;
}

// The size that the C++ runtime asks malloc for, which it does not tell: the object behind its header of 128 bytes.
int main() {
    exception_object_bytes = sizeof(Small) + 128;
    try {
        throw_kept();
    } catch (const Small &) {
    }
    target_say("READY");
    for (;;) {
        char *command = target_command();
        long n = target_number(command, "go"), thrown = target_number(command, "throw");
        if (!strcmp(command, "quit"))
            return 0;
        if (n > 0) {
            run_sites(static_cast<unsigned>(n));
            target_report();
        }
        if (thrown > 0)
            target_say("caught %u", throw_rounds(static_cast<unsigned>(thrown)));
        target_say("DONE");
    }
}
