// What README's pictures show: a shop that imports orders in rounds, bills them, and keeps more than it needs.
#include <chrono>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

struct Line {
    std::string article;
    int amount;
};

struct Order {
    int customer;
    std::vector<Line> lines;
};

using Orders = std::vector<std::unique_ptr<Order>>;

static void rest() { std::this_thread::sleep_for(std::chrono::milliseconds(400)); }

class Feed {
public:
    std::string download(int round)
    {
        std::ostringstream text;
        for (int n = 0; n < 300; n++) {
            text << n % 40 << " a-rather-long-article-" << round << "-" << n << " " << n % 9 << " another-article-" << n << " 1\n";
        }
        return text.str();
    }

    Orders parse(const std::string& text)
    {
        Orders orders;
        std::istringstream rows(text);
        for (std::string row; std::getline(rows, row);) {
            orders.push_back(parse_order(row));
        }
        return orders;
    }

private:
    std::unique_ptr<Order> parse_order(const std::string& row)
    {
        auto order = std::make_unique<Order>();
        std::istringstream words(row);
        words >> order->customer;
        for (Line line; words >> line.article >> line.amount;) {
            order->lines.push_back(line);
        }
        return order;
    }
};

class Shop {
public:
    void take(const Orders& orders)
    {
        for (const auto& order : orders) {
            reserve_stock(*order);
            open_session(*order);
        }
    }

    std::size_t bill(const Orders& orders)
    {
        std::size_t size = 0;
        for (const auto& order : orders) {
            size += print_invoice(*order).size();
        }
        return size;
    }

private:
    std::map<std::string, int> stock;
    std::vector<std::unique_ptr<std::vector<char>>> sessions;

    void reserve_stock(const Order& order)
    {
        for (const auto& line : order.lines) {
            stock[line.article] -= line.amount;
        }
    }

    // Nobody closes them: this is the leak.
    void open_session(const Order& order) { sessions.push_back(std::make_unique<std::vector<char>>(512 + order.customer)); }

    std::string print_invoice(const Order& order)
    {
        std::string invoice = "Invoice for customer " + std::to_string(order.customer) + "\n";
        for (const auto& line : order.lines) {
            invoice += line.article + ": " + std::to_string(line.amount) + "\n";
        }
        return invoice;
    }
};

static void run(Shop& shop, Feed& feed, int round)
{
    std::string text = feed.download(round);
    Orders orders = feed.parse(text);
    rest();
    shop.take(orders);
    rest();
    shop.bill(orders);
    rest();
}

int main()
{
    auto* shop = new Shop;
    Feed feed;
    for (int round = 0; round < 5; round++) {
        run(*shop, feed, round);
        rest();
    }
}
