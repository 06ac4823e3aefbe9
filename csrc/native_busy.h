// Streams have one caller at a time: another would mix two sequences.
#ifndef MODELFLEX_NATIVE_BUSY_H
#define MODELFLEX_NATIVE_BUSY_H

#include <atomic>
#include <stdexcept>
#include <thread>

class Busy {
  public:
    struct State {
        std::atomic_flag flag = ATOMIC_FLAG_INIT;
        std::atomic<std::thread::id> caller = std::thread::id();
    };

    explicit Busy(State &state) : state_(state) {
        const std::thread::id own = std::this_thread::get_id();
        if (!state_.flag.test_and_set(std::memory_order_acquire)) {
            state_.caller.store(own, std::memory_order_relaxed);
            return;
        }
        if (state_.caller.load(std::memory_order_relaxed) == own) {
            throw std::runtime_error(
                "this stream is used while it is at work, by its clock or by something it was given; expected "
                "a clock and limits that leave the stream alone: stream() makes another");
        }
        throw std::runtime_error("this stream is running in another thread; expected one stream for each "
                                 "thread: stream() makes another with the same weights");
    }
    ~Busy() {
        state_.caller.store(std::thread::id(), std::memory_order_relaxed);
        state_.flag.clear(std::memory_order_release);
    }
    Busy(const Busy &) = delete;
    Busy &operator=(const Busy &) = delete;

  private:
    State &state_;
};

#endif
