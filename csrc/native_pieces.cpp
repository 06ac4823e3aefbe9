#include "native_pieces.h"

#include <algorithm>
#include <cstdint>

bool is_same(const Piece &a, const Piece &b) {
    return a.place.offset == b.place.offset && a.place.stride == b.place.stride && a.bytes == b.bytes;
}

bool is_within(const Piece &inner, const Piece &outer) {
    const size_t at = inner.place.offset, from = outer.place.offset;
    return inner.place.stride == outer.place.stride && from <= at &&
           at + inner.bytes <= from + outer.bytes;
}

bool is_apart(const Piece &a, const Piece &b, size_t rows) {
    const auto stride = static_cast<int64_t>(a.place.stride);
    if (a.place.stride == b.place.stride && a.bytes <= a.place.stride && b.bytes <= b.place.stride) {
        const int64_t ahead = static_cast<int64_t>(b.place.offset - a.place.offset);
        const int64_t nearest = -ahead / stride, last = static_cast<int64_t>(rows) - 1;
        for (int64_t k = std::max(nearest - 1, -last); k <= std::min(nearest + 1, last); k++) {
            const int64_t from = ahead + k * stride; // of row i of a to row i + k of b
            if (from < static_cast<int64_t>(a.bytes) && -from < static_cast<int64_t>(b.bytes)) {
                return false;
            }
        }
        return true;
    }
    const auto end = [rows](const Piece &p) {
        return p.place.offset + (rows - 1) * p.place.stride + p.bytes;
    };
    return end(a) <= b.place.offset || end(b) <= a.place.offset;
}
