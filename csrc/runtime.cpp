// Streams: plans that are stepped, or run on a whole sequence.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "native_budget.h"
#include "native_busy.h"
#include "native_plan.h"
#include "native_reals.h"
#include "native_rows.h"
#include "native_step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Work of which the interpreter's lock is released; below it the release costs more than it gives.
constexpr uint64_t kLongMacs = 1 << 16;

// --- a stream --------------------------------------------------------------------------------------
class Stream {
  public:
    Stream(std::shared_ptr<Plan> step, std::shared_ptr<Plan> chunk)
        : step_(finished(std::move(step))), chunk_(finished(std::move(chunk))), budget_(*step_) {
        require(step_->rows == 1 && step_->state_bytes == chunk_->state_bytes &&
                    step_->weights == chunk_->weights && step_->integer == chunk_->integer &&
                    step_->x.size == chunk_->x.size && step_->y.size == chunk_->y.size,
                "both plans must be of one program");
        require(step_->proof.limits == chunk_->proof.limits, "both plans must keep to one state");
        memory_ = Memory(step_->memory_bytes);
        scratch_ = Memory(step_->weights->scratch_bytes());
        before_ = Memory(step_->state_bytes);
        reset();
    }

    // `allowed` is NULL where all terms are computed; else the result is an answer.
    nb::object step(nb::handle given, nb::handle given_out, const Allowed *allowed) {
        const Plan &plan = *step_;
        const Busy busy(busy_);
        if (allowed) {
            allow(*allowed);
        }
        const Reals x(given.ptr(), "x", false);
        if (x.ndim() != 1 || x.shape(0) != plan.x.size) {
            wrong_shape("x", x, "[" + std::to_string(plan.x.size) + "]");
        }
        check_floats(plan, x, plan.x.size);
        nb::object result = given_out.is_none() ? new_array(0, plan.y.size, false, x.wide())
                                                : nb::borrow(given_out);
        const Reals out(result.ptr(), "out", true);
        if (out.ndim() != 1 || out.shape(0) != plan.y.size || out.wide() != x.wide()) {
            wrong_shape("out", out, "[" + std::to_string(plan.y.size) + "] of the type of x");
        }
        if (may_fail()) {
            keep_state();
        }
        const bool timed = allowed && budget_.has_deadline();
        const uint64_t macs = timed ? 0 : allowed ? budget_.macs() : plan.macs;
        if (!advance(x, out, macs, allowed ? budget_.budget() : nullptr)) {
            refuse();
        }
        check_results(out, 1);
        if (!allowed) {
            return result;
        }
        try {
            budget_.finish();
        } catch (...) {
            put_back();
            throw;
        }
        return budget_.answer(result);
    }

    nb::object run(nb::handle given, nb::handle given_out) {
        const Plan &plan = *chunk_;
        const Reals x(given.ptr(), "x", false);
        if (x.ndim() != 2 || x.shape(1) != plan.x.size || !x.shape(0)) {
            wrong_shape("x", x, "[T, " + std::to_string(plan.x.size) + "], T of at least 1");
        }
        const size_t steps = x.shape(0);
        check_floats(plan, x, steps * plan.x.size);
        nb::object result = given_out.is_none()
                                ? new_array(steps, plan.y.size, plan.per_step, x.wide())
                                : nb::borrow(given_out);
        const Reals out(result.ptr(), "out", true);
        const int axes = plan.per_step ? 2 : 1;
        if (out.ndim() != axes || out.shape(axes - 1) != plan.y.size || out.wide() != x.wide() ||
            (plan.per_step && out.shape(0) != steps)) {
            wrong_shape("out", out,
                        std::string(plan.per_step ? "[T, " : "[") + std::to_string(plan.y.size) +
                            "] of the type of x");
        }
        check_apart(x, steps * plan.x.size, out,
                    plan.per_step ? steps * plan.y.size : plan.y.size);
        const Busy busy(busy_);
        widen();
        keep_state();
        bool finite;
        {
            nb::gil_scoped_release unlocked;
            finite = run_chunks(x, out, steps);
        }
        if (!finite) {
            put_back();
            refuse();
        }
        check_results(out, plan.per_step ? steps : 1);
        return result;
    }

    void reset() {
        const Busy busy(busy_);
        for (const mf_stage &stage : step_->stages) {
            mf_reset_stage(&stage, memory_.data(), 0, 1);
        }
    }

    nb::bytes state() {
        const Busy busy(busy_);
        return nb::bytes(memory_.data(), step_->state_bytes);
    }

    void set_state(const nb::bytes &given) {
        require(given.size() == step_->state_bytes, "the state has another size");
        require(step_->allows_state(static_cast<const uint8_t *>(given.data()), 1),
                "the state holds numbers that no step leaves");
        const Busy busy(busy_);
        std::memcpy(memory_.data(), given.data(), given.size());
    }

    void describe(const nb::tuple &names, nb::object answer) { budget_.describe(names, std::move(answer)); }
    void set_ladder(const nb::list &rungs) {
        const Busy busy(busy_);
        budget_.set_ladder(rungs);
    }
    nb::object clock() const { return budget_.clock(); }
    void set_clock(nb::object clock) {
        const Busy busy(busy_);
        budget_.set_clock(std::move(clock));
    }

    void forget_clock() { budget_.set_clock(nb::none()); }

  private:
    static std::shared_ptr<Plan> finished(std::shared_ptr<Plan> plan) {
        require(plan && plan->finished, "plans must be finished");
        return plan;
    }

    [[noreturn]] static void wrong_shape(const char *name, const Reals &found,
                                         const std::string &expected) {
        throw std::invalid_argument(std::string(name) + " is " + found.shape_text() + " of " +
                                    (found.wide() ? "float64" : "float32") + "; expected " +
                                    expected);
    }

    [[noreturn]] static void refuse() {
        throw std::invalid_argument("x holds NaN or infinity; expected finite numbers");
    }

    // What plans of floats make float32; all else is checked as it comes in.
    static void check_floats(const Plan &plan, const Reals &x, size_t n) {
        if (plan.integer || !x.wide()) {
            return;
        }
        if (!x.is_finite(n)) {
            refuse();
        }
        if (!is_within_float(static_cast<const double *>(x.data()), n)) {
            throw std::invalid_argument(
                "x holds numbers beyond float32; expected what float32 can hold");
        }
    }

    // Results are written before all inputs are read.
    static void check_apart(const Reals &x, size_t inputs, const Reals &out, size_t outputs) {
        const size_t item = x.wide() ? sizeof(double) : sizeof(float);
        const auto from = reinterpret_cast<uintptr_t>(x.data());
        const auto to = reinterpret_cast<uintptr_t>(out.data());
        if (from < to + outputs * item && to < from + inputs * item) {
            throw std::invalid_argument("out shares memory with x; expected an array of its own");
        }
    }

    // Memory for whole chunks: streams that are only stepped do without.
    void widen() {
        if (!wide_) {
            Memory larger(std::max(step_->memory_bytes, chunk_->memory_bytes));
            std::memcpy(larger.data(), memory_.data(), step_->state_bytes);
            memory_ = std::move(larger);
            wide_ = true;
        }
    }

    void allow(const Allowed &allowed) {
        require(!step_->refinements.empty(), "this model has no terms: it takes neither terms, budget nor deadline_s");
        if (allowed.kind == Allowed::kTerms) {
            budget_.allow_terms(allowed.value);
        } else if (allowed.kind == Allowed::kOperations) {
            budget_.allow_operations(allowed.value);
        } else {
            budget_.allow_until(allowed.value, budget_.now());
            if (budget_.needs_reserves()) {
                measure_reserves(); // once for all streams; the deadline counts from then
                budget_.allow_until(allowed.value, budget_.now());
            }
        }
    }

    // On an input of zeros, from the present state, which stays.
    void measure_reserves() {
        const Plan &plan = *step_;
        const std::vector<float> x(plan.x.size);
        const nb::object y = new_array(0, plan.y.size, false, true);
        const Reals out(y.ptr(), "out", true);
        std::memcpy(before_.data(), memory_.data(), plan.state_bytes);
        budget_.measure_reserves([&] {
            enter(plan, memory_.data(), 0, x.data(), false);
            run_step(budget_.budget(), nullptr);
            leave(plan, row_of(plan.y.place, memory_.data(), 0), out.data(), plan.y.size, out.wide());
            (void)budget_.answer(y);
            put_back();
        });
    }

    // Inputs may turn out not to be finite; floats may overflow, clocks may fail, integers saturate.
    bool may_fail() const { return !step_->integer || !step_->refinements.empty(); }
    void keep_state() { std::memcpy(before_.data(), memory_.data(), step_->state_bytes); }
    void put_back() { std::memcpy(memory_.data(), before_.data(), step_->state_bytes); }

    void check_results(const Reals &out, size_t rows) {
        const size_t size = step_->y.size;
        if (step_->integer || out.is_finite(rows * size)) {
            return;
        }
        put_back();
        size_t row = 0;
        while (out.is_finite((row + 1) * size)) {
            row++;
        }
        throw std::invalid_argument(
            "the network's results are not finite" +
            (chunk_->per_step && rows > 1 ? " at step " + std::to_string(row) : std::string()) +
            "; expected finite numbers: repair the trained weights or standardise the data");
    }

    // Whether x is finite; else nothing is done. The interpreter's lock is released for long work.
    bool advance(const Reals &x, const Reals &out, uint64_t macs, const mf_budget *budget) {
        if (macs >= kLongMacs) {
            nb::gil_scoped_release unlocked;
            return advance(x, out, 0, budget);
        }
        const Plan &plan = *step_;
        const auto *in_place = plan.in_place && !x.wide() ? static_cast<const float *>(x.data()) : nullptr;
        if (in_place ? !enter_rest(plan, memory_.data(), in_place)
                     : !enter(plan, memory_.data(), 0, x.data(), x.wide())) {
            return false;
        }
        run_step(budget, in_place);
        leave(plan, row_of(plan.y.place, memory_.data(), 0), out.data(), plan.y.size, out.wide());
        return true;
    }

    void run_step(const mf_budget *budget, const float *in_place) {
        const mf_run run = {memory_.data(), scratch_.data(), nullptr, nullptr, budget, in_place};
        for (const mf_stage &stage : step_->stages) {
            mf_run_stage(&stage, &run, 0, 1);
        }
    }

    // Whether x is finite; else the state is lost.
    bool run_chunks(const Reals &x, const Reals &out, size_t steps) {
        const Plan &plan = *chunk_;
        const mf_run run = {memory_.data(), scratch_.data(), nullptr, nullptr, nullptr};
        const size_t item = x.wide() ? sizeof(double) : sizeof(float);
        const auto *from = static_cast<const uint8_t *>(x.data());
        auto *to = static_cast<uint8_t *>(out.data());
        for (size_t t = 0; t < steps; t += plan.rows) {
            const size_t rows = std::min<size_t>(plan.rows, steps - t);
            for (size_t i = 0; i < rows; i++, from += plan.x.size * item) {
                if (!enter(plan, run.memory, i, from, x.wide())) {
                    return false;
                }
            }
            for (const mf_stage &stage : plan.stages) {
                if (!stage.once) {
                    mf_run_stage(&stage, &run, 0, rows);
                } else if (t + rows == steps) {
                    mf_run_stage(&stage, &run, rows - 1, 1);
                }
            }
            for (size_t i = plan.per_step ? 0 : rows - 1; i < rows; i++) {
                if (plan.per_step || t + rows == steps) {
                    leave(plan, row_of(plan.y.place, run.memory, i), to, plan.y.size, x.wide());
                    to += plan.y.size * item;
                }
            }
        }
        return true;
    }

    std::shared_ptr<Plan> step_, chunk_;
    Budget budget_;
    Memory memory_, scratch_, before_; // before_: the state before a call
    bool wide_ = false; // memory_ has room for chunks
    Busy::State busy_;
};

// --- steps without nanobind's call -----------------------------------------------------------------
// The call of a bound method with default arguments takes longer than a small network's step.
PyObject *call_step(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    StepArguments given;
    if (!read_step_arguments(args, count, names, given)) {
        return nullptr;
    }
    try {
        return nb::inst_ptr<Stream>(self)->step(given.x, given.out, given.limited ? &given.allowed : nullptr).release().ptr();
    } catch (nb::python_error &error) {
        error.restore();
    } catch (const std::invalid_argument &error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::bad_alloc &) {
        PyErr_NoMemory();
    } catch (const std::exception &error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

PyMethodDef step_method = {
    "step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(call_step)),
    METH_FASTCALL | METH_KEYWORDS,
    "step(x, out=None, *, terms=None, budget=None, deadline_s=None): the next result, or an answer within limits"};

nb::object stepper(nb::handle stream) {
    (void)nb::cast<Stream &>(stream); // refuses others, and those without plans
    return nb::steal(PyCFunction_New(&step_method, stream.ptr()));
}

// A clock may hold the stream that it is the clock of.
int traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    if (nb::inst_ready(self)) {
        Py_VISIT(nb::inst_ptr<Stream>(self)->clock().ptr());
    }
    return 0;
}

int forget(PyObject *self) {
    nb::inst_ptr<Stream>(self)->forget_clock();
    return 0;
}

PyType_Slot slots[] = {{Py_tp_traverse, reinterpret_cast<void *>(&traverse)},
                       {Py_tp_clear, reinterpret_cast<void *>(&forget)},
                       {0, nullptr}};

}  // namespace

void bind_runtime(nb::module_ &m) {
    load_numpy();
    nb::class_<Stream>(m, "Stream", nb::type_slots(slots))
        .def(nb::init<std::shared_ptr<Plan>, std::shared_ptr<Plan>>(), "step"_a, "chunk"_a)
        .def_prop_ro("step", &stepper)
        .def("describe", &Stream::describe, "names"_a, "answer"_a)
        .def("set_ladder", &Stream::set_ladder, "rungs"_a)
        .def_prop_rw("clock", &Stream::clock, &Stream::set_clock, nb::arg().none())
        .def("run", &Stream::run, "x"_a.none(), "out"_a = nb::none())
        .def("reset", &Stream::reset)
        .def("get_state", &Stream::state)
        .def("set_state", &Stream::set_state, "state"_a);
}
