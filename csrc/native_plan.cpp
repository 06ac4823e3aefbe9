// Loading of plans: every operand is checked against the block of memory and every size against the
// kernel's other operands, so that running a plan needs no checks.
#include "native_plan.h"

#include <nanobind/stl/shared_ptr.h>

#include <algorithm>
#include <cstring>

#include "fixed_point.h"
#include "packed.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Bytes of an element of each operand; 0: there is none. In the order of mf_kernel.
struct Signature {
    uint8_t in[3], out[3];
};
constexpr Signature kSignatures[MF_KERNELS] = {
    /* quantize */ {{4}, {2}},
    /* linear */ {{2}, {4}},
    {{2}, {8}},
    {{4}, {4}},
    /* delta_encode */ {{2, 2}, {4, 1, 2}},
    /* accumulate */ {{4, 1, 4}, {4}},
    {{4, 1, 8}, {8}},
    /* rescale */ {{4}, {4}},
    {{8}, {4}},
    /* add, sub, mul */ {{4, 4}, {4}},
    {{4, 4}, {4}},
    {{4, 4}, {4}},
    /* sigmoid, tanh, piecewise, relu, one_hot */ {{4}, {4}},
    {{4}, {4}},
    {{4}, {4}},
    {{4}, {4}},
    {{4}, {4}},
    /* floats */ {{4, 4}, {4}},
    {{4, 4}, {4}},
    {{4, 4}, {4}},
    {{4}, {4}},
    {{4}, {4}},
    {{4}, {4}},
    {{4}, {4}},
    /* copy: as `item_bytes` says */ {{1}, {1}},
    /* refine */ {{2}, {4}},
    {{2}, {8}},
    {{4}, {4}},
};

bool is_linear(int kernel) { return kernel >= MF_LINEAR_I32 && kernel <= MF_LINEAR_F32; }
bool is_accumulate(int kernel) {
    return kernel == MF_ACCUMULATE_I32 || kernel == MF_ACCUMULATE_I64;
}

int accumulator_bits(int kernel) {
    switch (kernel) {
    case MF_LINEAR_I32:
    case MF_ACCUMULATE_I32: return 32;
    case MF_LINEAR_I64:
    case MF_ACCUMULATE_I64: return 64;
    default: return 0;
    }
}

size_t blocks(size_t size, size_t block) { return size / block + (size % block != 0); }

template <typename T>
T integer_of(nb::handle given) {
    T value;
    require(nb::try_cast(given, value, false), "a number of a call is out of range");
    return value;
}

// Attributes of a call: what is not taken is unknown to the kernel.
class Attrs {
  public:
    explicit Attrs(const nb::dict &all) : all_(all) {}
    bool has(const char *name) const { return all_.contains(name); }
    nb::object take(const char *name) {
        require(has(name), "a call lacks an attribute");
        taken_++;
        return all_[name];
    }
    bool are_taken() const { return taken_ == all_.size(); }

  private:
    const nb::dict &all_;
    size_t taken_ = 0;
};

int32_t number(Attrs &attrs, const char *name, int64_t low, int64_t high) {
    const auto found = integer_of<int64_t>(attrs.take(name));
    require(found >= low && found <= high, "a number of a call is out of range");
    return static_cast<int32_t>(found);
}

// Whether the segments ascend from 0 and every height between them is one of fx numbers near 0 ... 1, so that
// no sum in piecewise.c overflows.
bool is_sound(const mf_piecewise &t) {
    bool sound = t.breaks[0] == 0 && t.slopes[t.segments - 1] == 0;
    for (size_t i = 1; i < t.segments; i++) {
        const int64_t run = static_cast<int64_t>(t.breaks[i]) - t.breaks[i - 1];
        sound = sound && run > 0 && t.slopes[i - 1] * run >> 33 == 0;
    }
    return sound;
}

}  // namespace

Plan::Plan(std::shared_ptr<Weights> shared, bool is_integer, uint32_t row_count, size_t state,
           size_t scratch)
    : weights(std::move(shared)), integer(is_integer), rows(row_count), state_bytes(state),
      memory_bytes(state + scratch) {
    require(weights && rows >= 1 && rows >> 20 == 0, "a plan needs weights and less than 2^20 rows");
    require(state >> 40 == 0 && scratch >> 40 == 0, "a plan needs less than 2^40 bytes");
}

Operand Plan::operand(nb::handle given, size_t item_bytes) const {
    nb::tuple t;
    require(nb::try_cast(given, t, false) && t.size() == 3, "an operand is (offset, stride, size)");
    const auto offset = integer_of<size_t>(t[0]), stride = integer_of<size_t>(t[1]),
               size = integer_of<size_t>(t[2]);
    require(size >= 1 && size < uint64_t{1} << 31 && stride >> 40 == 0 && offset >> 40 == 0,
            "an operand's numbers are out of range");
    require(offset % item_bytes == 0 && stride % item_bytes == 0, "an operand is not aligned");
    require(offset + (rows - 1) * stride + size * item_bytes <= memory_bytes,
            "an operand lies beyond the memory");
    return {{offset, stride}, size};
}

const int32_t *Plan::keep(nb::handle given, size_t *count, int32_t low, int32_t high) {
    Array<const int32_t> array;
    require(nb::try_cast(given, array, false) && array.size() && array.size() >> 31 == 0,
            "constants must be int32");
    for (size_t i = 0; i < array.size(); i++) {
        require(array.data()[i] >= low && array.data()[i] <= high,
                "a constant of a call is out of range");
    }
    constants_.emplace_back(array.data(), array.data() + array.size());
    *count = array.size();
    return constants_.back().data();
}

void Plan::begin_stage(bool once) {
    require(!finished, "the plan is finished");
    require(once || per_step, "a stage that runs once is followed by such stages only");
    per_step = per_step && !once;
    made_.emplace_back();
    made_.back().once = once;
}

void Plan::read_attrs(mf_call &call, const nb::dict &given) {
    Attrs attrs(given);
    size_t count = 0;
    call.block = 1;
    switch (call.kernel) {
    case MF_QUANTIZE:
        call.mu = number(attrs, "mu", 0, 32767);
        call.bits = number(attrs, "bits", 2, 16);
        call.shift = number(attrs, "shift", -16, MF_MAX_SHIFT);
        break;
    case MF_RESCALE_I32:
    case MF_RESCALE_I64:
        call.shift = number(attrs, "shift", -MF_MAX_SHIFT, MF_MAX_SHIFT);
        call.constants = keep(attrs.take("mu"), &count, 0, 32767);
        break;
    case MF_DELTA_ENCODE:
        call.block = number(attrs, "block", 1, INT32_MAX);
        call.overshoot = number(attrs, "overshoot", 0, 255);
        call.bits = number(attrs, "bits", 2, 16);
        call.constants = keep(attrs.take("thresholds"), &count, 0, INT32_MAX);
        break;
    case MF_ACCUMULATE_I32:
    case MF_ACCUMULATE_I64: call.block = number(attrs, "mask_block", 1, INT32_MAX); break;
    case MF_SIGMOID:
    case MF_TANH:
        call.constants = keep(attrs.take("table"), &count, 0, 1 << 15);
        require(count == MF_TANH_ENTRIES, "the table of tanh must have 257 entries");
        break;
    case MF_PIECEWISE: {
        size_t values = 0, slopes = 0;
        call.table.breaks = keep(attrs.take("breaks"), &count, 0, INT32_MAX);
        call.table.values = keep(attrs.take("values"), &values, 0, 1 << 16);
        call.table.slopes = keep(attrs.take("slopes"), &slopes, 0, 1 << 16);
        call.table.segments = count;
        call.table.centre = number(attrs, "centre", 0, 1 << 16);
        require(values == count && slopes == count && is_sound(call.table),
                "a piecewise table's columns contradict each other");
        break;
    }
    case MF_COPY:
        call.item_bytes = static_cast<uint32_t>(number(attrs, "item_bytes", 1, 8));
        break;
    case MF_LINEAR_I32:
    case MF_LINEAR_I64:
    case MF_LINEAR_F32:
        call.skip_zeros = attrs.has("skip_zeros") && attrs.take("skip_zeros").is(nb::bool_(true));
        break;
    default: break;
    }
    require(attrs.are_taken(), "a call has an attribute that its kernel does not know");
    call.constant_count = static_cast<uint32_t>(count);
}

void Plan::check(const mf_call &c, const std::vector<Operand> &in,
                 const std::vector<Operand> &out) const {
    const size_t size = out[0].size;
    bool sound = true;
    if (is_linear(c.kernel) || is_accumulate(c.kernel)) {
        const Weights::Product &made = weights->at(c.site);
        sound = made.form == Weights::Form::kProduct && made.bits == accumulator_bits(c.kernel) && in[0].size == made.entering &&
                size == static_cast<size_t>(c.product->out) * c.product->positions;
    }
    if (is_refine(c.kernel)) {
        sound = in[0].size == weights->at(c.refinement->inner_site).entering && size == c.product->out;
    } else if (is_accumulate(c.kernel)) {
        sound = sound && in[1].size == blocks(in[0].size, c.block) && in[2].size == size &&
                in[2].place.offset == out[0].place.offset &&
                in[2].place.stride == out[0].place.stride;
    } else if (c.kernel == MF_DELTA_ENCODE) {
        const size_t wanted = blocks(size, c.block);
        const Weights::Product &made = weights->at(c.site);
        sound = made.bits && made.entering == size && in[0].size == size && in[1].size == size &&
                out[2].size == size &&
                out[1].size == wanted && c.constant_count == wanted &&
                size == weights->at(c.site).entering;
    } else if (c.kernel == MF_ONE_HOT || c.kernel == MF_ONE_HOT_F32) {
        sound = in[0].size == 1;
    } else if (!is_linear(c.kernel)) {
        for (const Operand &operand : in) {
            sound = sound && operand.size == size;
        }
    }
    if (c.kernel == MF_RESCALE_I32 || c.kernel == MF_RESCALE_I64) {
        sound = sound && size % c.constant_count == 0;
    }
    require(sound, "the sizes of a call's operands contradict each other");
}

void Plan::add_call(int kernel, int site, const nb::list &inputs, const nb::list &outputs,
                    const nb::dict &attrs, bool ahead) {
    require(!finished && !made_.empty(), "calls belong to a stage");
    require(kernel >= 0 && kernel < MF_KERNELS, "there is no such kernel");
    const Signature &signature = kSignatures[kernel];
    mf_call c = {};
    c.kernel = static_cast<mf_kernel>(kernel);
    if (is_linear(kernel) || is_accumulate(kernel) || is_refine(kernel) || kernel == MF_DELTA_ENCODE) {
        require(site >= 0, "a product needs a site");
        c.site = static_cast<uint32_t>(site);
        const Weights::Product &made = weights->at(c.site);
        require(once_.emplace(c.site, made_.back().once).first->second == made_.back().once,
                "a product runs either once or at every step");
        c.product = kernel == MF_DELTA_ENCODE ? nullptr : &made.product;
        if (is_refine(kernel)) {
            refinements.push_back(make_refinement(c, attrs, *weights));
            c.refinement = &refinements.back()->refinement;
            macs += refinements.back()->macs;
        } else if (c.product) {
            macs += static_cast<uint64_t>(made.product.out) * made.product.inputs *
                    made.product.positions;
        }
    }
    if (!is_refine(kernel)) {
        read_attrs(c, attrs);
    }
    bool joined = true;
    std::vector<Piece> pieces; // inputs, then outputs
    const auto read = [&](const nb::list &given, const uint8_t *bytes, mf_place *places) {
        std::vector<Operand> found;
        for (size_t i = 0; i < 3 && bytes[i]; i++) {
            require(i < given.size(), "a call lacks an operand");
            const size_t item = c.kernel == MF_COPY ? c.item_bytes : bytes[i];
            found.push_back(operand(given[i], item));
            places[i] = found[i].place;
            pieces.push_back({found[i].place, found[i].size * item});
            joined = joined && places[i].stride == found[i].size * item;
        }
        require(found.size() == given.size(), "a call has too many operands");
        return found;
    };
    const std::vector<Operand> in = read(inputs, signature.in, c.in);
    const std::vector<Operand> out = read(outputs, signature.out, c.out);
    c.joined = joined;
    c.size = static_cast<uint32_t>(out[0].size);
    c.in_size = static_cast<uint32_t>(in[0].size);
    check(c, in, out);
    for (size_t i = in.size(); i < pieces.size(); i++) {
        for (size_t k = 0; k < i; k++) {
            const bool in_place = k < in.size() && !is_linear(kernel) && !is_refine(kernel) && is_same(pieces[i], pieces[k]);
            require(in_place || is_apart(pieces[i], pieces[k], rows),
                    "an output lies partly where another operand lies");
        }
    }
    const auto middle = pieces.begin() + static_cast<std::ptrdiff_t>(in.size());
    (ahead ? made_.back().ahead : made_.back().step)
        .push_back({c, {pieces.begin(), middle}, {middle, pieces.end()}, ahead});
}

void Plan::add_slot(nb::handle place, size_t item_bytes, nb::handle init) {
    require(!finished && !made_.empty() && item_bytes >= 1 && item_bytes <= 8, "a slot of a stage");
    const Operand at = operand(place, item_bytes);
    const size_t bytes = at.size * item_bytes;
    require(at.place.offset + (rows - 1) * at.place.stride + bytes <= state_bytes,
            "a carried value lies beyond the state");
    for (const Slot &other : slots) {
        require(is_apart({at.place, bytes}, {other.place, other.bytes}, rows), "two slots share memory");
    }
    const void *start = nullptr;
    if (!init.is_none()) {
        const nb::bytes given = nb::cast<nb::bytes>(init);
        require(given.size() == bytes, "the first value of a slot has another size");
        const auto *data = static_cast<const uint8_t *>(given.data());
        inits_.emplace_back(data, data + bytes);
        start = inits_.back().data();
    }
    made_.back().slots.push_back({at.place, bytes, start});
    slots.push_back({at.place, bytes});
}

void Plan::finish(nb::handle given_x, nb::handle given_y) {
    require(!finished && !made_.empty(), "a plan has at least one stage");
    x = operand(given_x, 4);
    y = operand(given_y, 4);
    prove();
    join_calls();
    take_entering();
    take_in_place();
    share_time();
    for (Stage &stage : made_) {
        for (const auto *calls : {&stage.ahead, &stage.step}) {
            for (const LoadedCall &made : *calls) {
                stage.calls.push_back(made.call);
            }
        }
        stages.push_back({stage.calls.data(), stage.ahead.size(), stage.step.size(),
                          stage.slots.data(), stage.slots.size(), stage.once,
                          weights->kernels});
    }
    finished = true;
}

size_t Plan::calls() const {
    size_t count = entering.size();
    for (const mf_stage &stage : stages) {
        count += stage.ahead + stage.step;
    }
    return count;
}

// Whether the calls of a site are in a stage that runs once a sequence.
bool Plan::runs_once(size_t site) const {
    const auto found = once_.find(site);
    return found != once_.end() && found->second;
}

void bind_plan(nb::module_ &m) {
    nb::class_<Plan>(m, "Plan")
        .def(nb::init<std::shared_ptr<Weights>, bool, uint32_t, size_t, size_t>(), "weights"_a,
             "integer"_a, "rows"_a, "state_bytes"_a, "scratch_bytes"_a)
        .def("begin_stage", &Plan::begin_stage, "once"_a)
        .def("add_call", &Plan::add_call, "kernel"_a, "site"_a, "inputs"_a, "outputs"_a, "attrs"_a,
             "ahead"_a)
        .def("add_slot", &Plan::add_slot, "place"_a, "item_bytes"_a, "init"_a.none())
        .def("finish", &Plan::finish, "x"_a, "y"_a)
        .def_prop_ro("calls", &Plan::calls)
        .def_ro("in_place", &Plan::in_place);
}
