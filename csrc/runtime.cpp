// Streams: plans that are stepped, or run on a whole sequence.
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "native_plan.h"
#include "native_reals.h"
#include "native_rows.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Work of which the interpreter's lock is released; below it the release costs more than it gives.
constexpr uint64_t kLongMacs = 1 << 16;

// --- a stream --------------------------------------------------------------------------------------
class Stream {
  public:
    Stream(std::shared_ptr<Plan> step, std::shared_ptr<Plan> chunk)
        : step_(std::move(step)), chunk_(std::move(chunk)) {
        require(step_ && chunk_ && step_->finished && chunk_->finished, "plans must be finished");
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

    nb::object step(nb::handle given, nb::handle given_out) {
        const Plan &plan = *step_;
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
        const Busy busy(busy_);
        if (!plan.integer) {
            keep_state();
        }
        bool finite;
        if (plan.macs >= kLongMacs) {
            nb::gil_scoped_release unlocked;
            finite = advance(x, out);
        } else {
            finite = advance(x, out);
        }
        if (!finite) {
            refuse();
        }
        check_results(out, 1);
        return result;
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
            std::memcpy(memory_.data(), before_.data(), step_->state_bytes);
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

  private:
    // One caller at a time: another thread would mix two sequences.
    class Busy {
      public:
        explicit Busy(std::atomic_flag &flag) : flag_(flag) {
            if (flag_.test_and_set(std::memory_order_acquire)) {
                throw std::runtime_error(
                    "this stream is running in another thread; expected one stream for each "
                    "thread: stream() makes another with the same weights");
            }
        }
        ~Busy() { flag_.clear(std::memory_order_release); }

      private:
        std::atomic_flag &flag_;
    };

    [[noreturn]] static void wrong_shape(const char *name, const Reals &found,
                                         const std::string &expected) {
        throw std::invalid_argument(std::string(name) + " is " + found.shape_text() + " of " +
                                    (found.wide() ? "float64" : "float32") + "; expected " +
                                    expected);
    }

    [[noreturn]] static void refuse() {
        throw std::invalid_argument("x holds NaN or infinity; expected finite numbers");
    }

    // Integers are checked as they come in.
    static void check_floats(const Plan &plan, const Reals &x, size_t n) {
        if (!plan.integer && !x.is_finite(n)) {
            refuse();
        }
        if (!plan.integer && x.wide() &&
            !is_within_float(static_cast<const double *>(x.data()), n)) {
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

    // Inputs may turn out not to be finite; floats may overflow, integers saturate.
    void keep_state() { std::memcpy(before_.data(), memory_.data(), step_->state_bytes); }

    void check_results(const Reals &out, size_t rows) {
        const size_t size = step_->y.size;
        if (step_->integer || out.is_finite(rows * size)) {
            return;
        }
        std::memcpy(memory_.data(), before_.data(), step_->state_bytes);
        size_t row = 0;
        while (out.is_finite((row + 1) * size)) {
            row++;
        }
        throw std::invalid_argument(
            "the network's results are not finite" +
            (chunk_->per_step && rows > 1 ? " at step " + std::to_string(row) : std::string()) +
            "; expected finite numbers: repair the trained weights or standardise the data");
    }

    // Whether x is finite; else nothing is done.
    bool advance(const Reals &x, const Reals &out) {
        const Plan &plan = *step_;
        const mf_run run = {memory_.data(), scratch_.data(), nullptr, nullptr};
        if (!enter(plan, run.memory, 0, x.data(), x.wide())) {
            return false;
        }
        for (const mf_stage &stage : plan.stages) {
            mf_run_stage(&stage, &run, 0, 1);
        }
        leave(plan, row_of(plan.y.place, run.memory, 0), out.data(), plan.y.size, out.wide());
        return true;
    }

    // Whether x is finite; else the state is lost.
    bool run_chunks(const Reals &x, const Reals &out, size_t steps) {
        const Plan &plan = *chunk_;
        const mf_run run = {memory_.data(), scratch_.data(), nullptr, nullptr};
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
    Memory memory_, scratch_, before_; // before_: the state before a call
    bool wide_ = false; // memory_ has room for chunks
    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
};

// --- steps without nanobind's call -----------------------------------------------------------------
// The call of a bound method with default arguments takes longer than a small network's step.
PyObject *call_step(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *x = count > 0 ? args[0] : nullptr, *out = count > 1 ? args[1] : Py_None;
    const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    bool known = count <= 2;
    for (Py_ssize_t i = 0; i < named && known; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        const bool is_x = PyUnicode_CompareWithASCIIString(name, "x") == 0;
        known = is_x ? !x : PyUnicode_CompareWithASCIIString(name, "out") == 0 && count < 2;
        (is_x ? x : out) = args[count + i];
    }
    if (!known || !x) {
        PyErr_SetString(PyExc_TypeError, "step takes x and, if wanted, out");
        return nullptr;
    }
    try {
        return nb::inst_ptr<Stream>(self)->step(x, out).release().ptr();
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
    METH_FASTCALL | METH_KEYWORDS, "step(x, out=None): the next result"};

nb::object stepper(nb::handle stream) {
    (void)nb::cast<Stream &>(stream); // refuses others, and those without plans
    return nb::steal(PyCFunction_New(&step_method, stream.ptr()));
}

}  // namespace

void bind_runtime(nb::module_ &m) {
    load_numpy();
    nb::class_<Stream>(m, "Stream")
        .def(nb::init<std::shared_ptr<Plan>, std::shared_ptr<Plan>>(), "step"_a, "chunk"_a)
        .def_prop_ro("step", &stepper)
        .def("run", &Stream::run, "x"_a.none(), "out"_a = nb::none())
        .def("reset", &Stream::reset)
        .def("get_state", &Stream::state)
        .def("set_state", &Stream::set_state, "state"_a);
}
