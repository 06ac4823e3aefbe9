// What callers let a step spend on its progressive products, and what they are told of it.
#ifndef MODELFLEX_NATIVE_BUDGET_H
#define MODELFLEX_NATIVE_BUDGET_H

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <numeric>
#include <vector>

#include "native_plan.h"

// Of one stream. Bad arguments throw std::invalid_argument.
class Budget {
  public:
    explicit Budget(Plan &plan);

    // Names of the weights by the numbers of their refinements, and the type of answers, tuples of
    // (y, terms, operations, error, late).
    void describe(const nanobind::tuple &names, nanobind::object answer);
    // Tuples (terms of every refinement, error) of rising operations.
    void set_ladder(const nanobind::list &rungs);
    // A callable that gives a number of ticks of 1e-9 s, or None: the monotonic clock.
    void set_clock(nanobind::object clock) {
        clock_ = std::move(clock);
        pace_ = 0;
    }
    nanobind::object clock() const { return clock_; }
    bool has_own_clock() const { return !clock_.is_none(); }

    void allow_terms(nanobind::handle given);
    void allow_operations(nanobind::handle given);
    void allow_until(nanobind::handle deadline_s, uint64_t now);
    uint64_t now();
    bool has_deadline() const { return budget_.clock; }
    uint64_t macs() const; // of the step; with a deadline those of all terms
    const mf_budget *budget() const { return &budget_; }

    // `step` runs one step: what it takes from every refinement to its end is measured.
    template <typename Step>
    void measure_reserves(Step step);
    bool needs_reserves() const { return has_deadline() && !has_own_clock() && plan_.reserves.empty(); }

    // After a step; raises what the clock raised meanwhile.
    void finish();
    nanobind::object answer(const nanobind::object &y) const;

  private:
    struct Rung {
        std::vector<uint32_t> terms;
        double operations, error;
        double time(const std::vector<double> &term_ticks) const {
            return std::inner_product(terms.begin(), terms.end(), term_ticks.begin(), 0.0);
        }
    };
    // A clock that keeps the times of its readings, and stands before any deadline from one reading to another.
    struct Record {
        size_t from, to;
        std::vector<uint64_t> stamps;
        static uint64_t read(void *self);
    };

    void check_clock();
    static uint64_t ask_python(void *self);
    static uint64_t monotonic(void *);
    void begin();
    size_t size() const { return plan_.refinements.size(); }
    const mf_refinement &refinement(size_t k) const { return plan_.refinements[k]->refinement; }
    double operations(size_t k) const; // of a term
    double operations(const std::vector<uint32_t> &terms) const;
    uint32_t limit_of(nanobind::handle given, size_t k) const;
    void spread(double operations);
    void share_time(uint64_t now);
    bool know_ticks();

    Plan &plan_;
    std::vector<nanobind::object> names_;
    nanobind::object answer_, clock_ = nanobind::none();
    std::vector<Rung> ladder_;
    std::vector<uint32_t> limits_, used_, shares_;
    std::vector<double> ticks_; // of a term of every refinement
    mf_budget budget_ = {};
    std::exception_ptr raised_;
    bool late_ = false;
    uint64_t begun_ = 0; // when the deadline began to count
    double pace_ = 0;    // ticks of the own clock for an operation, in the last step that had any; 0: not known
};

// Of each refinement in turn all terms but one are computed, of the others none: so the caches hold what they hold
// when a deadline ends it.
template <typename Step>
void Budget::measure_reserves(Step step) {
    constexpr size_t kTimes = 9;
    constexpr uint64_t kLongest = 20'000'000; // ns
    const mf_budget asked = budget_;
    std::vector<uint64_t> reserves(size());
    std::vector<double> term_ns(size());
    size_t first = 0; // reading
    for (const uint32_t k : plan_.order) {
        const size_t shared = refinement(k).share < MF_WHOLE; // a reading ahead of the terms
        Record record = {first, first + shared + refinement(k).count - 1, {}};
        std::vector<uint64_t> rests;
        uint64_t least = UINT64_MAX; // ns of the terms
        const uint64_t begun = monotonic(nullptr);
        while (rests.empty() || (rests.size() < kTimes && monotonic(nullptr) - begun < kLongest)) {
            record.stamps.clear();
            budget_ = {nullptr, used_.data(), nullptr, &Record::read, &record, 1, nullptr};
            step();
            rests.push_back(monotonic(nullptr) - record.stamps[record.to]);
            least = std::min(least, record.stamps[record.to] - record.stamps[first + shared]);
        }
        const uint32_t terms = refinement(k).count - 1;
        term_ns[k] = terms ? static_cast<double>(least) / terms : 0;
        std::sort(rests.begin(), rests.end());
        reserves[k] = rests[rests.size() / 2];
        first += shared + 1;
    }
    if (plan_.reserves.empty()) { // another stream may have been here meanwhile, and steps read it
        plan_.reserves = std::move(reserves);
        plan_.term_ns = std::move(term_ns);
    }
    budget_ = asked;
    budget_.reserves = plan_.reserves.data();
}

#endif
