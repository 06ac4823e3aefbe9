// Rows of real numbers into a plan's input and out of its output.
#ifndef MODELFLEX_NATIVE_ROWS_H
#define MODELFLEX_NATIVE_ROWS_H

#include <cmath>
#include <cstring>
#include <limits>

#include "native_plan.h"

// Finite numbers that are finite as float32, too.
inline bool is_within_float(const double *x, size_t n) {
    bool within = true;
    for (size_t i = 0; i < n; i++) {
        within &= std::fabs(x[i]) <= std::numeric_limits<float>::max();
    }
    return within;
}

inline uint8_t *row_of(const mf_place &place, uint8_t *memory, size_t row) {
    return memory + place.offset + row * place.stride;
}

// Elements first ... first + n - 1 of x as fx. Whether they are finite.
inline bool enter_fx(const Plan &plan, const void *x, size_t first, size_t n, bool wide, int32_t *fx) {
    const auto *narrow_x = static_cast<const float *>(x) + first;
    const auto *wide_x = static_cast<const double *>(x) + first;
    if (wide) {
        mf_enter_fx_f64(wide_x, n, fx);
        return mf_finite_f64(wide_x, n);
    }
    if (const auto fast = plan.weights->kernels->enter_f32) {
        return fast(narrow_x, n, fx);
    }
    mf_enter_fx_f32(narrow_x, n, fx);
    return mf_finite_f32(narrow_x, n);
}

// x, float32 or (wide) float64, into a row of a plan's memory. Whether it is finite; float64 for plans of floats must be.
inline bool enter(const Plan &plan, uint8_t *memory, size_t row, const void *x, bool wide) {
    const size_t size = plan.x.size;
    uint8_t *to = row_of(plan.x.place, memory, row);
    bool finite = true;
    if (!plan.integer && wide) {
        mf_enter_f32_f64(static_cast<const double *>(x), size, reinterpret_cast<float *>(to));
    } else if (!plan.integer) {
        const auto *narrow_x = static_cast<const float *>(x);
        auto *floats = reinterpret_cast<float *>(to);
        if (const auto fast = plan.weights->kernels->copy_f32) {
            return fast(narrow_x, size, floats);
        }
        std::memcpy(floats, narrow_x, size * sizeof(float));
        finite = mf_finite_f32(narrow_x, size);
    } else if (plan.entering.empty()) {
        finite = enter_fx(plan, x, 0, size, wide, reinterpret_cast<int32_t *>(to));
    } else {
        int32_t fx[512]; // a piece, that it stays in the first cache
        constexpr size_t most = sizeof fx / sizeof *fx;
        for (size_t first = 0; first < size; first += most) {
            const size_t n = size - first < most ? size - first : most;
            finite &= enter_fx(plan, x, first, n, wide, fx);
            for (const mf_call &c : plan.entering) {
                auto *codes = reinterpret_cast<int16_t *>(row_of(c.out[0], memory, row));
                plan.weights->kernels->quantize(fx, n, c.mu, c.shift, c.bits, codes + first);
            }
        }
    }
    return finite;
}

// The same of x in float32, of a plan that reads its first elements where they are: the others are stored.
inline bool enter_rest(const Plan &plan, uint8_t *memory, const float *x) {
    const size_t first = plan.in_place;
    auto *to = reinterpret_cast<float *>(row_of(plan.x.place, memory, 0));
    std::memcpy(to + first, x + first, (plan.x.size - first) * sizeof(float));
    const auto fast = plan.weights->kernels->finite_f32;
    return fast ? fast(x, plan.x.size) : mf_finite_f32(x, plan.x.size);
}

inline void leave(const Plan &plan, const uint8_t *from, void *y, size_t n, bool wide) {
    auto *narrow_y = static_cast<float *>(y);
    auto *wide_y = static_cast<double *>(y);
    if (plan.integer) {
        const auto *fx = reinterpret_cast<const int32_t *>(from);
        wide ? mf_leave_fx_f64(fx, n, wide_y) : mf_leave_fx_f32(fx, n, narrow_y);
    } else if (wide) {
        mf_leave_f32_f64(reinterpret_cast<const float *>(from), n, wide_y);
    } else {
        std::memcpy(y, from, n * sizeof(float));
    }
}

#endif
