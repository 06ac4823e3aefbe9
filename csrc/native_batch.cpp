// Batches: ragged sequences that start from reset, stepped together, over threads.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <thread>

#include "native_plan.h"
#include "native_rows.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Sequences that start from reset, longest first, `plan.rows` of them stepped together.
struct Batch {
    const Plan &plan;
    const uint8_t *x;
    bool wide;                                   // x is float64, not float32
    std::vector<int64_t> order, starts, lengths; // numbers of sequences, longest first; of the sequences
    size_t count;
    double *outputs;               // [steps or count, K]
    std::vector<uint8_t *> states; // of every slot: [count, bytes]
    std::vector<int16_t *> codes;  // of every site: [steps, or sequences where it runs once; inputs]
    std::vector<uint32_t> limits; // of terms of every refinement; empty: none
    std::atomic<size_t> next{0};

    // Of every lane: the row of x, the number of the sequence.
    struct Rows {
        std::vector<size_t> step, once;
    };

    // What a thread needs.
    struct Worker {
        Worker(const Plan &plan, size_t sites)
            : memory(plan.memory_bytes), scratch(plan.weights->scratch_bytes()), counts(sites),
              used(plan.refinements.size()),
              rows{std::vector<size_t>(plan.rows), std::vector<size_t>(plan.rows)} {}
        Memory memory, scratch;
        std::vector<mf_counts> counts;
        std::vector<uint32_t> used;
        Rows rows;
        std::exception_ptr failed;
    };

    void work(Worker &own) noexcept {
        try {
            const mf_budget budget = {limits.data(), own.used.data(), nullptr, nullptr, nullptr, 0, nullptr};
            const mf_run run = {own.memory.data(), own.scratch.data(), own.counts.data(), nullptr,
                                limits.empty() ? nullptr : &budget};
            for (size_t first; (first = next.fetch_add(plan.rows)) < count;) {
                group(run, first, std::min<size_t>(plan.rows, count - first), own.rows);
            }
        } catch (...) {
            own.failed = std::current_exception();
        }
    }

    // All workers at once, the first in this thread; without more threads to be had, fewer do the work.
    void work_together(std::vector<Worker> &workers) {
        struct Threads {
            std::vector<std::thread> all;
            ~Threads() {
                for (std::thread &one : all) {
                    one.join();
                }
            }
        };
        {
            Threads others;
            others.all.reserve(workers.size());
            try {
                for (size_t i = 1; i < workers.size(); i++) {
                    others.all.emplace_back([this, &own = workers[i]] { work(own); });
                }
            } catch (const std::exception &) {
            }
            work(workers[0]);
        }
        for (const Worker &worker : workers) {
            if (worker.failed) {
                std::rethrow_exception(worker.failed);
            }
        }
    }

    void group(mf_run run, size_t first, size_t lanes, Rows &rows) const {
        const int64_t *numbers = order.data() + first;
        const size_t row_bytes = plan.x.size * (wide ? sizeof(double) : sizeof(float));
        const mf_trace step = {codes.data(), rows.step.data()}, once = {codes.data(), rows.once.data()};
        std::copy(numbers, numbers + lanes, rows.once.begin());
        for (const mf_stage &stage : plan.stages) {
            mf_reset_stage(&stage, run.memory, 0, lanes);
        }
        size_t alive = lanes;
        for (int64_t t = 0; alive; t++) {
            for (size_t lane = 0; lane < alive; lane++) {
                const size_t row = static_cast<size_t>(starts[numbers[lane]] + t);
                rows.step[lane] = row;
                enter(plan, run.memory, lane, x + row * row_bytes, wide);
            }
            size_t going = alive;
            while (going && lengths[numbers[going - 1]] == t + 1) {
                going--;
            }
            for (const mf_stage &stage : plan.stages) {
                run.trace = codes.empty() ? nullptr : (stage.once ? &once : &step);
                if (!stage.once) {
                    mf_run_stage(&stage, &run, 0, alive);
                } else if (going < alive) {
                    mf_run_stage(&stage, &run, going, alive - going);
                }
            }
            for (size_t lane = plan.per_step ? 0 : going; lane < alive; lane++) {
                const int64_t number = numbers[lane];
                const auto row = static_cast<size_t>(plan.per_step ? starts[number] + t : number);
                leave(plan, row_of(plan.y.place, run.memory, lane), outputs + row * plan.y.size,
                      plan.y.size, true);
            }
            alive = going;
        }
        for (size_t s = 0; s < plan.slots.size(); s++) {
            const Plan::Slot &slot = plan.slots[s];
            for (size_t lane = 0; lane < lanes; lane++) {
                std::memcpy(states[s] + static_cast<size_t>(numbers[lane]) * slot.bytes,
                            row_of(slot.place, run.memory, lane), slot.bytes);
            }
        }
    }
};

void check_batch(const Batch &b, size_t steps) {
    std::vector<bool> seen(b.count, false);
    std::vector<std::pair<int64_t, int64_t>> pieces; // first steps and lengths
    int64_t before = INT64_MAX;
    for (const int64_t number : b.order) {
        require(number >= 0 && static_cast<size_t>(number) < b.count && !seen[number],
                "order must hold every sequence once");
        seen[number] = true;
        const int64_t start = b.starts[number], length = b.lengths[number];
        require(length >= 1 && length <= before, "order must be of falling lengths");
        require(start >= 0 && length <= static_cast<int64_t>(steps) &&
                    start <= static_cast<int64_t>(steps) - length,
                "a sequence lies beyond x");
        pieces.emplace_back(start, length);
        before = length;
    }
    std::sort(pieces.begin(), pieces.end());
    for (size_t i = 1; i < pieces.size(); i++) {
        require(pieces[i - 1].first + pieces[i - 1].second <= pieces[i].first,
                "sequences overlap");
    }
}

// Pieces of memory, of which all but x are written.
class Pieces {
  public:
    template <typename T>
    void add(const Array<T> &array) {
        if (array.size()) {
            const auto start = reinterpret_cast<uintptr_t>(array.data());
            all_.emplace_back(start, start + array.nbytes());
        }
    }
    void check_apart() {
        std::sort(all_.begin(), all_.end());
        for (size_t i = 1; i < all_.size(); i++) {
            require(all_[i - 1].second <= all_[i].first, "arrays of a batch share memory");
        }
    }

  private:
    std::vector<std::pair<uintptr_t, uintptr_t>> all_;
};

// Copies: another thread may write to the array while the interpreter's lock is released.
std::vector<int64_t> numbers_of(const Array<const int64_t> &given) {
    return {given.data(), given.data() + given.size()};
}

void check_numbers(const Batch &b, size_t n) {
    const auto *narrow = reinterpret_cast<const float *>(b.x);
    const auto *wide = reinterpret_cast<const double *>(b.x);
    require(b.wide ? mf_finite_f64(wide, n) : mf_finite_f32(narrow, n),
            "x holds NaN or infinity; expected finite numbers");
    require(b.plan.integer || !b.wide || is_within_float(wide, n),
            "x holds numbers beyond float32; expected what float32 can hold");
}

using Numbers = Array<const int64_t>;

template <typename T>
void run_batch(const std::shared_ptr<Plan> &plan, const Array<const T> &x, const Numbers &order,
               const Numbers &starts, const Numbers &lengths, size_t threads,
               const Array<double> &outputs, const nb::list &states,
               const Array<uint64_t> &counts, const nb::list &codes,
               const std::vector<uint32_t> &terms) {
    require(plan && plan->finished, "plans must be finished");
    require(x.ndim() == 2 && x.shape(1) == plan->x.size, "x must be [steps, inputs]");
    const size_t steps = x.shape(0), count = order.size(), sites = plan->weights->count();
    require(starts.size() == count && lengths.size() == count, "a start and a length a sequence");
    require(outputs.ndim() == 2 && outputs.shape(1) == plan->y.size &&
                outputs.shape(0) == (plan->per_step ? steps : count),
            "outputs must be [steps or sequences, outputs]");
    require(counts.ndim() == 2 && counts.shape(0) == sites && counts.shape(1) == 3,
            "counts must be [sites, 3]");
    require(states.size() == plan->slots.size(), "an array for each carried value");
    require(threads >= 1 && threads <= 1024, "threads must be from 1 to 1024");
    Batch batch{*plan, reinterpret_cast<const uint8_t *>(x.data()), sizeof(T) == sizeof(double),
                numbers_of(order), numbers_of(starts), numbers_of(lengths), count,
                outputs.data(), {}, {}, terms};
    Pieces pieces;
    pieces.add(x);
    pieces.add(outputs);
    pieces.add(counts);
    std::vector<Array<uint8_t>> held_states; // alive while the interpreter's lock is released
    std::vector<Array<int16_t>> held_codes;
    for (size_t s = 0; s < plan->slots.size(); s++) {
        const auto array = nb::cast<Array<uint8_t>>(states[s], false);
        require(array.size() == count * plan->slots[s].bytes, "a state of another size");
        batch.states.push_back(array.data());
        pieces.add(array);
        held_states.push_back(array);
    }
    require(codes.size() == 0 || (plan->integer && codes.size() == sites), "an array for each site");
    require(terms.empty() || terms.size() == plan->refinements.size(), "terms of each weight that has any");
    for (size_t site = 0; site < codes.size(); site++) {
        if (codes[site].is_none()) {
            require(plan->is_refined(site), "codes of every product but those of terms");
            batch.codes.push_back(nullptr);
            continue;
        }
        const auto array = nb::cast<Array<int16_t>>(codes[site], false);
        require(array.ndim() == 2 && array.shape(1) == plan->weights->at(site).entering &&
                    array.shape(0) == (plan->runs_once(site) ? count : steps),
                "codes must be [steps or sequences, inputs]");
        batch.codes.push_back(array.data());
        pieces.add(array);
        held_codes.push_back(array);
    }
    pieces.check_apart();
    check_batch(batch, steps);
    check_numbers(batch, x.size());
    threads = std::min(threads, (count + plan->rows - 1) / plan->rows);
    std::vector<Batch::Worker> workers;
    for (size_t i = 0; i < std::max<size_t>(threads, 1); i++) {
        workers.emplace_back(*plan, std::max<size_t>(sites, 1));
    }
    {
        nb::gil_scoped_release unlocked;
        batch.work_together(workers);
    }
    for (size_t site = 0; site < sites; site++) {
        uint64_t *total = counts.data() + 3 * site;
        for (const Batch::Worker &worker : workers) {
            total[0] += worker.counts[site].runs;
            total[1] += worker.counts[site].units;
            total[2] += worker.counts[site].active;
        }
    }
}

template <typename T>
void bind_of(nb::module_ &m) {
    m.def("run_batch", &run_batch<T>, "plan"_a, "x"_a.noconvert(), "order"_a.noconvert(),
          "starts"_a.noconvert(), "lengths"_a.noconvert(), "threads"_a, "outputs"_a.noconvert(),
          "states"_a, "counts"_a.noconvert(), "codes"_a,
          "terms"_a = std::vector<uint32_t>());
}

}  // namespace

void bind_batch(nb::module_ &m) {
    bind_of<float>(m);
    bind_of<double>(m);
}
