// Loading of progressive products: their terms, checked once.
#include "native_refine.h"

#include <algorithm>

#include "fixed_point.h"
#include "matrix_tiles.h"
#include "native_plan.h"

namespace nb = nanobind;

namespace {

int64_t number(const nb::dict &attrs, const char *name, int64_t low, int64_t high) {
    int64_t found = 0;
    require(attrs.contains(name) && nb::try_cast(attrs[name], found, false) && found >= low && found <= high,
            "a number of a refinement is missing or out of range");
    return found;
}

// Sums of V become codes for U.
void read_scales(Refinement &made, const nb::dict &attrs, const Weights::Product &outer) {
    mf_stored_terms &t = made.refinement.stored;
    Array<const int32_t> mu;
    require(attrs.size() == 8 && attrs.contains("mu") && nb::try_cast(attrs["mu"], mu, false) && mu.size() &&
                t.v->rows % mu.size() == 0,
            "a refinement's factors must be int32, for equal groups of terms");
    made.mu.assign(mu.data(), mu.data() + mu.size());
    require(std::all_of(made.mu.begin(), made.mu.end(), [](int32_t m) { return m >= 0 && m <= 32767; }),
            "a factor of a refinement is out of range");
    t.mu = made.mu.data();
    t.mu_count = static_cast<uint32_t>(made.mu.size());
    t.shift = static_cast<int32_t>(number(attrs, "shift", -MF_MAX_SHIFT, MF_MAX_SHIFT));
    t.code_mu = static_cast<int32_t>(number(attrs, "code_mu", 0, 32767));
    t.code_shift = static_cast<int32_t>(number(attrs, "code_shift", -16, MF_MAX_SHIFT));
    t.code_bits = static_cast<int32_t>(number(attrs, "code_bits", 2, outer.x_bits));
}

}  // namespace

// Codes at ... at + n - 1, with their multipliers.
void Unpacked::read(const mf_matrix &m, uint32_t at, uint32_t n, std::vector<int16_t> &to) {
    int16_t levels[MF_TILE];
    for (uint32_t i = 0, some; i < n; i += some) {
        some = std::min<uint32_t>(MF_TILE, n - i);
        mf_unpack_levels(&m, at + i, some, levels);
        for (uint32_t k = 0; k < some; k++) {
            int32_t code = levels[k];
            if (m.multipliers) {
                const uint32_t place = at + i + k, width = m.row_codes / m.groups;
                const uint32_t row = m.by_columns ? place % m.out : place / m.row_codes;
                const uint32_t column = m.by_columns ? place / m.out : place % m.row_codes;
                code *= mf_multiplier(&m, row * m.groups + column / width);
            }
            fits = fits && code >= INT16_MIN && code <= INT16_MAX;
            to.push_back(static_cast<int16_t>(code));
        }
    }
}

Unpacked::Unpacked(const mf_matrix &inner, const mf_matrix &outer) {
    const bool sparse = inner.layout != MF_LAYOUT_DENSE;
    terms.width = sparse && inner.layout == MF_LAYOUT_BLOCKS && inner.block == 8 ? 8 : 1;
    terms.kept = inner.row_codes / terms.width;
    for (uint32_t row = 0; row < inner.rows; row++) {
        read(inner, row * inner.row_codes, inner.row_codes, v);
        mf_places places = {};
        if (sparse) {
            places = mf_places_of(&inner, row);
        }
        for (uint32_t i = 0; sparse && i < inner.row_codes; i++) {
            const uint32_t column = mf_next_place(&inner, &places);
            if (i % terms.width == 0) {
                index.push_back(column / terms.width);
            }
        }
    }
    read(outer, 0, outer.out * outer.inputs, u);
    terms.v = v.data();
    terms.u = u.data();
    terms.index = sparse ? index.data() : nullptr;
}

std::unique_ptr<Refinement> make_refinement(const mf_call &call, const nb::dict &attrs,
                                            const Weights &weights) {
    auto made = std::make_unique<Refinement>();
    mf_refinement &r = made->refinement;
    r.inner_site = static_cast<uint32_t>(number(attrs, "inner", 0, INT32_MAX));
    r.number = static_cast<uint32_t>(number(attrs, "number", 0, UINT16_MAX));
    r.share = MF_WHOLE;
    const auto groups = static_cast<uint32_t>(number(attrs, "groups", 1, INT32_MAX));
    const Weights::Product &inner = weights.at(r.inner_site), &outer = weights.at(call.site);
    const mf_product &v = inner.product, &u = outer.product;
    r.count = u.inputs;
    require(v.out == static_cast<uint64_t>(r.count) * groups && u.out % groups == 0 && !v.taps && !u.taps,
            "both products of a refinement contradict each other");
    uint64_t kept = 0;
    if (call.kernel == MF_REFINE_F32) {
        require(attrs.size() == 3 && inner.form == Weights::Form::kTermInputs &&
                    outer.form == Weights::Form::kTermOutputs,
                "a refinement of floats needs their terms");
        kept = static_cast<uint64_t>(inner.kept) * inner.width;
        r.terms = {u.out,       v.inputs,
                   r.count,     groups,
                   inner.kept,  inner.width,
                   reinterpret_cast<const float *>(outer.codes.data()),
                   reinterpret_cast<const float *>(inner.codes.data()),
                   reinterpret_cast<const uint32_t *>(inner.index.data()),
                   static_cast<const float *>(v.bias)};
    } else {
        const mf_matrix &m = v.matrix;
        require(inner.bits && outer.bits == (call.kernel == MF_REFINE_I32 ? 32 : 64),
                "a refinement of integers needs stored products");
        require(m.layout != MF_LAYOUT_CIRCULANT && !m.by_columns && inner.codes.data() &&
                    u.matrix.layout == MF_LAYOUT_DENSE && u.matrix.by_columns && outer.codes.data(),
                "a refinement reads the first product by rows, the second by columns");
        kept = m.row_codes;
        r.stored.v = &m;
        r.stored.u = &u.matrix;
        r.stored.c_i32 = inner.bits == 32 ? static_cast<const int32_t *>(v.bias) : nullptr;
        r.stored.c_i64 = inner.bits == 64 ? static_cast<const int64_t *>(v.bias) : nullptr;
        r.stored.groups = groups;
        read_scales(*made, attrs, outer);
        if (inner.bits == 32 && weights.kernels->unpacks_terms) {
            const Unpacked &unpacked = weights.unpacked(r.inner_site, call.site);
            r.stored.fast = unpacked.fits ? &unpacked.terms : nullptr;
        }
    }
    made->macs = (groups * kept + u.out) * r.count;
    made->operations = groups * (2 * kept + 1) + 2 * static_cast<uint64_t>(u.out);
    return made;
}

const Unpacked &Weights::unpacked(uint32_t inner, uint32_t outer) const {
    std::unique_ptr<Unpacked> &made = unpacked_[{inner, outer}];
    if (!made) {
        made = std::make_unique<Unpacked>(at(inner).product.matrix, at(outer).product.matrix);
    }
    return *made;
}

// What is left of a step's time goes to its refinements in proportion of their work; they are numbered.
void Plan::share_time() {
    uint64_t later = 0;
    const auto number = [](const auto &r) { return r->refinement.number; };
    for (auto stage = made_.rbegin(); stage != made_.rend(); ++stage) {
        for (auto *calls : {&stage->step, &stage->ahead}) {
            for (auto made = calls->rbegin(); made != calls->rend(); ++made) {
                const auto own = std::find_if(refinements.begin(), refinements.end(), [&](const auto &r) {
                    return &r->refinement == made->call.refinement;
                });
                if (own != refinements.end()) {
                    later += (*own)->macs;
                    order.insert(order.begin(), (*own)->refinement.number);
                    const double part = static_cast<double>((*own)->macs) / static_cast<double>(later);
                    (*own)->refinement.share = std::max<uint32_t>(1, static_cast<uint32_t>(part * MF_WHOLE));
                }
            }
        }
    }
    std::sort(refinements.begin(), refinements.end(),
              [&](const auto &a, const auto &b) { return number(a) < number(b); });
    for (size_t i = 0; i < refinements.size(); i++) {
        require(number(refinements[i]) == i, "refinements must be numbered from 0 on");
    }
}

bool Plan::is_refined(size_t site) const {
    const auto has = [site](const Stage &stage) {
        return std::any_of(stage.calls.begin(), stage.calls.end(), [site](const mf_call &c) {
            return c.refinement && (c.site == site || c.refinement->inner_site == site);
        });
    };
    return std::any_of(made_.begin(), made_.end(), has);
}
