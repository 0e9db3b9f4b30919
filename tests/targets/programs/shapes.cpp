// Namespaces, methods, templates, constructors, lambdas, operators, exceptions.
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace shapes {

struct Shape {
    explicit Shape(std::string name) : name(std::move(name)) {}
    virtual ~Shape() = default;
    virtual double area() const = 0;
    std::string name;
};

struct Square final : Shape {
    explicit Square(double side) : Shape("square"), side(side) {}
    double area() const override { return side * side; }
    double side;
};

template <typename T> struct Pool {
    std::vector<std::unique_ptr<T>> items;

    template <typename... Arguments> __attribute__((noinline)) T &make(Arguments &&...arguments) {
        items.push_back(std::make_unique<T>(std::forward<Arguments>(arguments)...));
        return *items.back();
    }
};

namespace {
__attribute__((noinline)) double hidden(const Shape &shape) {
    if (shape.area() < 0)
        throw std::runtime_error("negative " + shape.name);
    return shape.area();
}

inline __attribute__((always_inline)) void *keep_inlined(const Shape &shape) {
    return new std::string(shape.name);
}

struct Keeper {
    static inline __attribute__((always_inline)) void *keep(const Shape &shape) { return keep_inlined(shape); }
};
} // namespace

__attribute__((noinline)) void *keep(const Shape &shape) {
    auto twice = [&](int) __attribute__((always_inline)) { return Keeper::keep(shape); };
    return twice(1);
}

__attribute__((noinline)) bool operator<(const Shape &one, const Shape &other) { return one.area() < other.area(); }

} // namespace shapes

int main(int argc, char **) {
    shapes::Pool<shapes::Square> pool;
    auto grow = [&pool](double side) __attribute__((noinline)) { return shapes::hidden(pool.make(side)); };
    double sum = grow(argc) + grow(argc + 1);
    try {
        sum += std::stod(std::string(static_cast<size_t>(argc), '1'));
    } catch (const std::exception &) {
        sum -= 1;
    }
    return *pool.items[0] < *pool.items[1] && sum < 0 && shapes::keep(*pool.items[0]) == nullptr;
}
