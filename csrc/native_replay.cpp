// Encoders run over a trace: checks types, layouts and sizes, releases the interpreter's lock.
#include <vector>

#include "elementwise.h"
#include "native_arrays.h"
#include "native_fitting.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

void replay_delta(const Array<const int16_t> &codes, const Array<const int64_t> &lengths, size_t block,
                  const Array<const int32_t> &theta, int overshoot, int bits,
                  const Array<int16_t> &held, const Array<uint8_t> &mask) {
    require(codes.ndim() == 2, "codes must be [steps, inputs]");
    const size_t steps = codes.shape(0), inputs = codes.shape(1);
    require(held.ndim() == 2 && held.shape(0) == steps && held.shape(1) == inputs,
            "held must have the shape of codes");
    require(block >= 1 && inputs % block == 0, "block must divide the inputs");
    require(overshoot >= 0 && overshoot < 256, "overshoot must be from 0 to 255");
    require(bits >= 2 && bits <= 16, "bits must be from 2 to 16");
    const size_t blocks = inputs / block;
    require(theta.size() == blocks, "theta must have an entry a block");
    require(mask.ndim() == 2 && mask.shape(0) == steps && mask.shape(1) == blocks,
            "mask must be [steps, blocks]");
    size_t total = 0;
    for (size_t i = 0; i < lengths.size(); i++) {
        const int64_t length = lengths.data()[i];
        require(length >= 0 && static_cast<size_t>(length) <= steps - total,
                "lengths must add up to the steps");
        total += static_cast<size_t>(length);
    }
    require(total == steps, "lengths must add up to the steps");
    nb::gil_scoped_release unlocked;
    const std::vector<int16_t> zeros(inputs, 0);
    std::vector<int32_t> delta(inputs);
    size_t row = 0;
    for (size_t i = 0; i < lengths.size(); i++) {
        const int16_t *sent = zeros.data();
        for (const size_t end = row + static_cast<size_t>(lengths.data()[i]); row < end; row++) {
            int16_t *now = held.data() + row * inputs;
            mf_delta_encode(codes.data() + row * inputs, sent, 1, inputs, block, theta.data(), overshoot,
                            bits, delta.data(), mask.data() + row * blocks, now);
            sent = now;
        }
    }
}

}  // namespace

void bind_replay(nb::module_ &m) {
    m.def("replay_delta", &replay_delta, "codes"_a.noconvert(), "lengths"_a.noconvert(), "block"_a,
          "theta"_a.noconvert(), "overshoot"_a, "bits"_a, "held"_a.noconvert(),
          "mask"_a.noconvert());
}
