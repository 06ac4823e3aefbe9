#include "native_budget.h"

#include <nanobind/stl/vector.h>

#include <chrono>
#include <cmath>
#include <cstdio>

namespace nb = nanobind;

namespace {

constexpr double kTicks = 1e9; // of a second
constexpr const char *kTermsExpected = "a whole number of terms, or a mapping from weights to such numbers";

// What Python made.
nb::object owned(PyObject *made) {
    if (!made) {
        nb::raise_python_error(); // of memory, for example
    }
    return nb::steal(made);
}

[[noreturn]] void refuse(const char *name, nb::handle given, const char *expected) {
    const nb::object shown = owned(PyObject_ASCII(given.ptr()));
    std::string text = std::string(nb::borrow<nb::str>(shown).c_str()).substr(0, 60);
    std::replace(text.begin(), text.end(), '\n', ' ');
    throw std::invalid_argument(std::string(name) + " is " + text + "; expected " + expected);
}

// A real number; NaN for what is none.
double real_of(nb::handle given) {
    if (PyBool_Check(given.ptr())) {
        return NAN;
    }
    const double found = PyFloat_AsDouble(given.ptr());
    if (found == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return NAN;
    }
    return found;
}

}  // namespace

Budget::Budget(Plan &plan)
    : plan_(plan), limits_(plan.refinements.size()), used_(plan.refinements.size()),
      shares_(plan.refinements.size()), ticks_(plan.refinements.size()) {}

void Budget::describe(const nb::tuple &names, nb::object answer) {
    require(names.size() == size(), "a name for each refinement");
    require(PyType_Check(answer.ptr()) &&
                PyType_IsSubtype(reinterpret_cast<PyTypeObject *>(answer.ptr()), &PyTuple_Type),
            "answers are tuples");
    names_.clear();
    for (const nb::handle name : names) {
        names_.push_back(nb::borrow(name));
    }
    answer_ = std::move(answer);
}

void Budget::set_ladder(const nb::list &rungs) {
    std::vector<Rung> made;
    for (const nb::handle given : rungs) {
        const auto rung = nb::cast<nb::tuple>(given);
        require(rung.size() == 2, "a rung is (terms of every refinement, error)");
        Rung next = {nb::cast<std::vector<uint32_t>>(rung[0]), 0, nb::cast<double>(rung[1])};
        require(next.terms.size() == size(), "a rung has terms of every refinement");
        for (size_t k = 0; k < size(); k++) {
            next.terms[k] = std::min(next.terms[k], refinement(k).count);
        }
        next.operations = operations(next.terms);
        require(made.empty() || made.back().operations <= next.operations, "rungs must be of rising operations");
        made.push_back(std::move(next));
    }
    ladder_ = std::move(made);
}

double Budget::operations(size_t k) const {
    return static_cast<double>(plan_.refinements[k]->operations);
}

double Budget::operations(const std::vector<uint32_t> &terms) const {
    double total = 0;
    for (size_t k = 0; k < size(); k++) {
        total += operations(k) * terms[k];
    }
    return total;
}

uint64_t Budget::macs() const {
    uint64_t total = plan_.macs;
    for (size_t k = 0; !has_deadline() && k < size(); k++) {
        const uint64_t left_out = refinement(k).count - limits_[k];
        total -= plan_.refinements[k]->macs / refinement(k).count * left_out;
    }
    return total;
}

void Budget::begin() {
    require(names_.size() == size(), "the stream's refinements have no names");
    raised_ = nullptr;
    budget_ = {limits_.data(), used_.data(), nullptr, nullptr, nullptr, 0, nullptr};
    for (size_t k = 0; k < size(); k++) {
        limits_[k] = refinement(k).count;
    }
}

uint32_t Budget::limit_of(nb::handle given, size_t k) const {
    if (PyLong_CheckExact(given.ptr())) { // nearly always
        int beyond = 0;
        const long long found = PyLong_AsLongLongAndOverflow(given.ptr(), &beyond);
        if (beyond < 0 || (!beyond && found < 0)) {
            refuse("terms", given, "0 or more");
        }
        const uint32_t count = refinement(k).count;
        return beyond || found > count ? count : static_cast<uint32_t>(found);
    }
    if (PyBool_Check(given.ptr())) {
        refuse("terms", given, kTermsExpected);
    }
    const nb::object whole = nb::steal(PyNumber_Index(given.ptr()));
    if (!whole) {
        PyErr_Clear();
        refuse("terms", given, kTermsExpected);
    }
    const Py_ssize_t found = PyNumber_AsSsize_t(whole.ptr(), nullptr); // what is beyond is limited
    if (found < 0) {
        refuse("terms", given, "0 or more");
    }
    return static_cast<uint32_t>(std::min<uint64_t>(static_cast<uint64_t>(found), refinement(k).count));
}

void Budget::allow_terms(nb::handle given) {
    begin();
    if (PyLong_CheckExact(given.ptr()) || !nb::hasattr(given, "keys")) {
        for (size_t k = 0; k < size(); k++) {
            limits_[k] = limit_of(given, k);
        }
        return;
    }
    size_t found = 0;
    for (size_t k = 0; k < size(); k++) {
        if (PyMapping_HasKey(given.ptr(), names_[k].ptr())) {
            limits_[k] = limit_of(nb::object(given[names_[k]]), k);
            found++;
        }
    }
    const Py_ssize_t count = PyObject_Length(given.ptr());
    if (count < 0) {
        PyErr_Clear();
        refuse("terms", given, kTermsExpected);
    }
    if (found != static_cast<size_t>(count)) {
        refuse("terms", given, "weights that have terms");
    }
}

// The same share of all refinements, then a term more of those that have the least share, as long as one fits.
void Budget::spread(double left) {
    const double all = operations(limits_), share = std::min(1.0, left / all);
    for (uint32_t &limit : limits_) {
        limit = static_cast<uint32_t>(limit * share);
    }
    left -= operations(limits_);
    for (;;) {
        size_t best = size();
        double least = 1.0;
        for (size_t k = 0; k < size(); k++) {
            const double part = static_cast<double>(limits_[k]) / refinement(k).count;
            if (part < least && operations(k) <= left) {
                best = k;
                least = part;
            }
        }
        if (best == size()) {
            return;
        }
        limits_[best]++;
        left -= operations(best);
    }
}

void Budget::allow_operations(nb::handle given) {
    const double found = real_of(given);
    if (!(found >= 0)) {
        refuse("budget", given, "a number of operations, 0 or more");
    }
    begin();
    if (found >= operations(limits_)) {
        return;
    }
    if (ladder_.empty()) {
        spread(found);
        return;
    }
    std::fill(limits_.begin(), limits_.end(), 0);
    for (const Rung &rung : ladder_) {
        if (rung.operations <= found) {
            limits_ = rung.terms;
        }
    }
}

void Budget::allow_until(nb::handle deadline_s, uint64_t now) {
    const double seconds = real_of(deadline_s);
    if (std::isnan(seconds)) {
        refuse("deadline_s", deadline_s, "a number of seconds");
    }
    begin();
    const double end = std::max(0.0, static_cast<double>(now) + seconds * kTicks);
    if (end < 9e18) { // later ones are none
        const double ticks = seconds * kTicks;
        budget_.deadline = ticks >= 0 ? now + static_cast<uint64_t>(ticks)
                                      : now - std::min(now, static_cast<uint64_t>(std::min(-ticks, 9e18)));
    } else {
        budget_.deadline = UINT64_MAX;
    }
    budget_.clock = has_own_clock() ? &ask_python : &monotonic;
    budget_.context = this;
    budget_.reserves = plan_.reserves.empty() || has_own_clock() ? nullptr : plan_.reserves.data();
    begun_ = now;
    share_time(now);
}

// What a term of every refinement takes. A weight of one term takes for its operations what all others take.
bool Budget::know_ticks() {
    double pace = pace_;
    if (!has_own_clock() && !plan_.term_ns.empty()) {
        double time = 0, spent = 0;
        for (size_t k = 0; k < size(); k++) {
            time += plan_.term_ns[k];
            spent += plan_.term_ns[k] > 0 ? operations(k) : 0;
        }
        pace = spent > 0 ? time / spent : 0;
    }
    for (size_t k = 0; k < size() && pace > 0; k++) {
        const double measured = has_own_clock() ? 0 : plan_.term_ns[k];
        ticks_[k] = measured > 0 ? measured : pace * operations(k);
    }
    return pace > 0;
}

// Of the time that is left every refinement gets the share that it has of the rung which that time buys, one between
// two rungs; without a ladder, or with time for all, of all terms.
void Budget::share_time(uint64_t now) {
    const uint64_t reserve = budget_.reserves ? budget_.reserves[plan_.order.front()] : 0;
    if (size() < 2 || budget_.deadline <= now || budget_.deadline - now <= reserve || !know_ticks()) {
        return;
    }
    const auto left = static_cast<double>(budget_.deadline - now - reserve);
    const auto above = std::partition_point(ladder_.begin(), ladder_.end(),
                                            [&](const Rung &rung) { return rung.time(ticks_) <= left; });
    const std::vector<uint32_t> &high = above == ladder_.end() ? limits_ : above->terms;
    double part = 1;
    if (above != ladder_.begin() && above != ladder_.end()) {
        const double from = above[-1].time(ticks_);
        part = (left - from) / (above->time(ticks_) - from);
    }
    double later = 0;
    for (auto k = plan_.order.rbegin(); k != plan_.order.rend(); ++k) {
        const double low = part < 1 ? above[-1].terms[*k] : 0.0;
        const double own = ticks_[*k] * (low + part * (high[*k] - low));
        later += own;
        shares_[*k] = later > 0 ? static_cast<uint32_t>(own / later * MF_WHOLE) : MF_WHOLE;
    }
    budget_.shares = shares_.data();
}

uint64_t Budget::monotonic(void *) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

uint64_t Budget::Record::read(void *self) {
    auto &own = *static_cast<Record *>(self);
    const size_t reading = own.stamps.size();
    own.stamps.push_back(monotonic(nullptr));
    return own.from <= reading && reading < own.to ? 0 : UINT64_MAX;
}

// After an error no term begins any more.
uint64_t Budget::ask_python(void *self) {
    auto &own = *static_cast<Budget *>(self);
    if (own.raised_) {
        return UINT64_MAX;
    }
    try {
        const nb::object found = own.clock_();
        const nb::object whole = nb::steal(PyBool_Check(found.ptr()) ? nullptr : PyNumber_Index(found.ptr()));
        const uint64_t ticks = whole ? PyLong_AsUnsignedLongLong(whole.ptr()) : 0;
        if (!whole || PyErr_Occurred()) {
            PyErr_Clear();
            refuse("the clock's time", found, "a whole number of nanoseconds, 0 or more");
        }
        return ticks;
    } catch (...) {
        own.raised_ = std::current_exception();
        return UINT64_MAX;
    }
}

uint64_t Budget::now() {
    if (!has_own_clock()) {
        return monotonic(nullptr);
    }
    raised_ = nullptr;
    const uint64_t now = ask_python(this);
    check_clock();
    return now;
}

void Budget::check_clock() {
    if (raised_) {
        std::rethrow_exception(std::exchange(raised_, nullptr));
    }
}

void Budget::finish() {
    check_clock();
    late_ = false;
    if (has_deadline()) {
        const uint64_t end = now();
        late_ = end >= budget_.deadline;
        const double spent = operations(used_);
        if (has_own_clock() && end > begun_ && spent > 0) {
            pace_ = static_cast<double>(end - begun_) / spent;
        }
    }
}

// The error is that of the highest rung of which all terms were used.
nb::object Budget::answer(const nb::object &y) const {
    const nb::object terms = owned(PyDict_New());
    for (size_t k = 0; k < size(); k++) {
        const nb::object count = owned(PyLong_FromUnsignedLong(used_[k]));
        if (PyDict_SetItem(terms.ptr(), names_[k].ptr(), count.ptr())) {
            nb::raise_python_error();
        }
    }
    nb::object error = nb::none();
    for (auto rung = ladder_.rbegin(); rung != ladder_.rend(); ++rung) {
        if (std::equal(used_.begin(), used_.end(), rung->terms.begin(), std::greater_equal<uint32_t>())) {
            error = owned(PyFloat_FromDouble(rung->error));
            break;
        }
    }
    const nb::object spent = owned(PyLong_FromDouble(operations(used_)));
    const nb::object fields =
        owned(PyTuple_Pack(5, y.ptr(), terms.ptr(), spent.ptr(), error.ptr(), late_ ? Py_True : Py_False));
    const nb::object given = owned(PyTuple_Pack(1, fields.ptr()));
    // As the type's own constructor does, which is written in Python.
    return owned(PyTuple_Type.tp_new(reinterpret_cast<PyTypeObject *>(answer_.ptr()), given.ptr(), nullptr));
}
