/* hls::stream for simulation with a plain C++ compiler: an unbounded queue that ends the program when a read
   finds it empty.  The vendor's header of the same name takes its place in synthesis. */
#ifndef IRC_HLS_STREAM_H
#define IRC_HLS_STREAM_H

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <deque>

namespace hls {

template <typename T>
class stream {
public:
    explicit stream(const char *label = "stream") : label_(label) {}
    stream(const stream &) = delete;
    stream &operator=(const stream &) = delete;

    void write(const T &value) { items_.push_back(value); }

    T read() {
        if (items_.empty()) {
            std::fprintf(stderr, "stream %s is read while empty\n", label_);
            std::abort();
        }
        const T value = items_.front();
        items_.pop_front();
        return value;
    }

    bool empty() const { return items_.empty(); }
    std::size_t size() const { return items_.size(); }

private:
    const char *label_;
    std::deque<T> items_;
};

} // namespace hls

#endif
