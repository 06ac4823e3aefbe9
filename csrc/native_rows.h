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

// x, float32 or (wide) float64, finite.
inline void enter(const Plan &plan, uint8_t *to, const void *x, size_t n, bool wide) {
    const auto *narrow_x = static_cast<const float *>(x);
    const auto *wide_x = static_cast<const double *>(x);
    if (plan.integer) {
        auto *fx = reinterpret_cast<int32_t *>(to);
        const auto fast = plan.weights->kernels->enter_f32;
        wide ? mf_enter_fx_f64(wide_x, n, fx) : (fast ? fast : mf_enter_fx_f32)(narrow_x, n, fx);
    } else if (wide) {
        mf_enter_f32_f64(wide_x, n, reinterpret_cast<float *>(to));
    } else {
        std::memcpy(to, x, n * sizeof(float));
    }
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

inline uint8_t *row_of(const mf_place &place, uint8_t *memory, size_t row) {
    return memory + place.offset + row * place.stride;
}

#endif
