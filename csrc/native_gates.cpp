// Whether one call may take the place of those that make up a step of LSTM or GRU.
#include "native_gates.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace {

using Calls = std::vector<LoadedCall>;

// Bytes of memory that would hold something else if calls did not write.
class Missing {
  public:
    Missing(size_t bytes, size_t rows) : missing_(bytes), rows_(rows) {}
    bool all(const Piece &piece) {
        bool found = true;
        each_row(piece, [&](uint8_t *at) {
            found = found && std::memchr(at, 0, piece.bytes) == nullptr;
        });
        return found;
    }
    // A call that made a piece makes it no more.
    void lose(const Piece &piece) {
        const auto over = [&](const Piece &w) { return !is_apart(piece, w, rows_); };
        rows_written_.erase(std::remove_if(rows_written_.begin(), rows_written_.end(), over),
                            rows_written_.end());
        set(piece, true);
    }
    bool any(const Piece &piece) {
        bool found = false;
        each_row(piece, [&](uint8_t *at) {
            found = found || std::memchr(at, 1, piece.bytes) != nullptr;
        });
        return found;
    }

    // Whether a call that stays reads nothing that is missing; what it writes is not missing any more. Calls that are
    // made row after row write one row, which those after them read; the other rows are written when all are done.
    bool pass(const LoadedCall &call, bool reads_others = false) {
        if (call.ahead) {
            finish_rows();
        }
        for (const Piece &piece : call.reads) {
            const bool in_row = std::any_of(rows_written_.begin(), rows_written_.end(),
                                            [&](const Piece &w) { return is_within(piece, w); });
            if (!reads_others && !in_row && any(piece)) {
                return false;
            }
        }
        for (const Piece &piece : call.writes) {
            if (call.ahead || !piece.place.stride) {
                set(piece, false);
            } else {
                rows_written_.push_back(piece);
            }
        }
        return true;
    }
    void finish_rows() {
        for (const Piece &piece : rows_written_) {
            set(piece, false);
        }
        rows_written_.clear();
    }

    void begin_row() { rows_written_.clear(); }

  private:
    void set(const Piece &piece, bool missing) {
        each_row(piece, [&](uint8_t *at) { std::memset(at, missing, piece.bytes); });
    }
    template <typename F>
    void each_row(const Piece &piece, F f) {
        for (size_t i = 0; i < (piece.place.stride ? rows_ : 1); i++) {
            f(missing_.data() + piece.place.offset + i * piece.place.stride);
        }
    }
    std::vector<uint8_t> missing_;
    std::vector<Piece> rows_written_;
    size_t rows_;
};

class Judge {
  public:
    Judge(const Calls &calls, const PlanEnd &plan, const Match &match)
        : calls_(calls), plan_(plan), m_(match), x_(calls[match.x.call].reads[0]),
          h_(calls[match.h.call].reads[0]), next_(calls[match.cell].writes[0]),
          out_(calls[match.last].writes[0]) {}

    bool allows() const { return is_in_step() && keeps_rows() && keeps_order() && is_unread(); }

  private:
    bool apart(const Piece &a, const Piece &b) const { return is_apart(a, b, plan_.rows); }

    bool writes(size_t call, const Piece &piece) const {
        const auto &w = calls_[call].writes;
        return !std::all_of(w.begin(), w.end(), [&](const Piece &p) { return apart(p, piece); });
    }

    bool reads(size_t call, const Piece &piece) const {
        const auto &r = calls_[call].reads;
        return !std::all_of(r.begin(), r.end(), [&](const Piece &p) { return apart(p, piece); });
    }

    // Only rescaling may be done ahead of the rest.
    bool is_in_step() const {
        return std::all_of(m_.used.begin(), m_.used.end(), [this](size_t k) {
            return calls_[k].ahead == calls_[m_.last].ahead || k == m_.x.call || k == m_.h.call;
        });
    }

    // Rows are made one after another now: none may read what one before it, made call by call, would have written.
    bool keeps_rows() const {
        if (plan_.rows == 1) {
            return true;
        }
        if (calls_[m_.last].ahead) { // each row has places of its own
            const Piece all[] = {x_, h_, m_.old, next_, out_};
            return std::all_of(std::begin(all), std::end(all), [](const Piece &p) { return p.place.stride; });
        }
        return keeps_rows_of(x_, m_.x.call) && keeps_rows_of(h_, m_.h.call) && keeps_rows_of(m_.old, m_.old_reader);
    }

    bool keeps_rows_of(const Piece &input, size_t reader) const {
        for (size_t k = 0; k < reader; k++) {
            const auto &w = calls_[k].writes;
            const bool anew = std::any_of(w.begin(), w.end(), [&](const Piece &p) { return is_within(input, p); });
            if (anew && !calls_[k].ahead && !m_.used.count(k)) {
                return true;
            }
        }
        return std::all_of(m_.used.begin(), m_.used.end(), [&](size_t k) {
            const Piece &made = calls_[k].writes[0];
            return k == m_.last || k == m_.cell || apart(made, input) ||
                   (input.place.stride && is_within(made, input));
        });
    }

    // Inputs hold until the last call what they held when they were read, and outputs may be written then.
    bool keeps_order() const {
        for (size_t k = 0; k < calls_.size(); k++) {
            const bool before = k < m_.last;
            // What is read ahead must also hold while the rows before are stepped.
            const auto lies_between = [&](size_t reader) {
                return (before && k > reader) || (!calls_[k].ahead && calls_[reader].ahead);
            };
            if (m_.used.count(k)) {
                continue;
            }
            if ((lies_between(m_.x.call) && writes(k, x_)) ||
                (lies_between(m_.h.call) && writes(k, h_)) ||
                (lies_between(m_.old_reader) && writes(k, m_.old)) ||
                (before && k > m_.cell && (writes(k, next_) || reads(k, next_)))) {
                return false;
            }
        }
        const bool elsewhere = apart(out_, x_) && apart(out_, h_) && apart(next_, x_) &&
                               apart(next_, h_) && (apart(next_, m_.old) || is_same(next_, m_.old));
        return elsewhere && (m_.kernel == MF_GRU || (apart(out_, m_.old) && apart(out_, next_)));
    }

    // Whether no other call reads what would not be written any more.
    bool is_unread() const {
        Missing missing(plan_.memory_bytes, plan_.rows);
        for (size_t k = 0; k < calls_.size(); k++) {
            const bool stored = k == m_.last || k == m_.cell;
            if (m_.used.count(k) && !stored) {
                const Piece &dropped = calls_[k].writes[0];
                if (dropped.place.offset < plan_.state_bytes) {
                    return false;
                }
                missing.lose(dropped);
            } else if (!missing.pass(calls_[k], stored)) {
                return false;
            }
        }
        Missing next_row = missing;
        next_row.begin_row();
        for (size_t k = 0; plan_.rows > 1 && k < calls_.size(); k++) {
            if (!calls_[k].ahead && !m_.used.count(k) && !next_row.pass(calls_[k])) {
                return false;
            }
        }
        for (const LoadedCall &call : plan_.later) {
            if (!missing.pass(call)) {
                return false;
            }
        }
        missing.finish_rows();
        return !missing.any(plan_.y);
    }

    const Calls &calls_;
    const PlanEnd &plan_;
    const Match &m_;
    Piece x_, h_, next_, out_;
};

std::vector<int32_t> each_mu(const mf_call &rescale) {
    std::vector<int32_t> mu(rescale.size);
    const size_t group = rescale.size / rescale.constant_count;
    for (size_t i = 0; i < mu.size(); i++) {
        mu[i] = rescale.constants[i / group];
    }
    return mu;
}

// Whether calls that are made row after row write over what was made ahead.
bool later_rows_lose(const Calls &calls, size_t maker, const Piece &made, size_t rows) {
    for (size_t k = maker + 1; k < calls.size(); k++) {
        for (const Piece &piece : calls[k].writes) {
            if (!calls[k].ahead && !is_apart(piece, made, rows)) {
                return true;
            }
        }
    }
    return false;
}

// The bound of what a call of rescale reads.
uint64_t bound_of(const Calls &calls, size_t rescale, size_t rows,
                  const std::function<uint64_t(const LoadedCall &)> &bound) {
    const Piece &sums = calls[rescale].reads[0];
    for (size_t k = rescale; k-- > 0;) {
        const mf_call &call = calls[k].call;
        if (call.product && is_same(calls[k].writes[0], sums)) {
            return calls[k].ahead && later_rows_lose(calls, k, sums, rows) ? UINT64_MAX : bound(calls[k]);
        }
        for (const Piece &piece : calls[k].writes) {
            if (!is_apart(piece, sums, rows)) {
                return UINT64_MAX;
            }
        }
    }
    return UINT64_MAX;
}

std::unique_ptr<Gates> gates_of(const Calls &calls, const Match &m, const PlanEnd &plan,
                                const std::function<uint64_t(const LoadedCall &)> &bound) {
    const mf_call &x = calls[m.x.call].call, &h = calls[m.h.call].call;
    const bool shifts = std::min(x.shift, h.shift) >= 1 && std::max(x.shift, h.shift) <= 32;
    auto made = std::make_unique<Gates>();
    made->rises.resize(MF_RISES);
    const auto function = std::find_if(m.used.begin(), m.used.end(), [&](size_t k) {
        return calls[k].call.kernel == MF_TANH;
    });
    const int32_t *table = calls[*function].call.constants;
    if (!shifts || !mf_make_rises(table, made->rises.data())) {
        return nullptr;
    }
    made->x_mu = each_mu(x);
    made->h_mu = each_mu(h);
    mf_gates &g = made->gates;
    g = {};
    g.units = calls[m.last].call.size;
    g.table = table;
    g.rises = made->rises.data();
    g.x.mu = made->x_mu.data();
    g.h.mu = made->h_mu.data();
    g.x.shift = x.shift;
    g.h.shift = h.shift;
    std::copy_n(m.x_at, MF_MAX_GATES, g.x.at);
    std::copy_n(m.h_at, MF_MAX_GATES, g.h.at);
    mf_bound_gates(&g, bound_of(calls, m.x.call, plan.rows, bound),
                   bound_of(calls, m.h.call, plan.rows, bound));
    return made;
}

LoadedCall joined(const Calls &calls, const Match &m, const Gates &gates) {
    LoadedCall made = {};
    made.reads = {calls[m.x.call].reads[0], calls[m.h.call].reads[0], m.old};
    made.writes = {calls[m.cell].writes[0]};
    if (m.kernel == MF_LSTM) {
        made.writes.push_back(calls[m.last].writes[0]);
    }
    made.ahead = calls[m.last].ahead;
    made.call.kernel = m.kernel;
    made.call.size = static_cast<uint32_t>(gates.gates.units);
    made.call.gates = &gates.gates;
    for (size_t i = 0; i < made.reads.size(); i++) {
        made.call.in[i] = made.reads[i].place;
    }
    for (size_t i = 0; i < made.writes.size(); i++) {
        made.call.out[i] = made.writes[i].place;
    }
    return made;
}

}  // namespace

size_t count_entering(const Calls &calls, const PlanEnd &plan, const Piece &x) {
    size_t count = 0;
    while (count < calls.size() && calls[count].call.kernel == MF_QUANTIZE &&
           (calls[count].ahead || plan.rows == 1) && is_same(calls[count].reads[0], x)) {
        count++;
    }
    Missing missing(plan.memory_bytes, plan.rows);
    missing.lose(x);
    for (size_t k = 0; k < count; k++) { // what lies over x is written, and x not read behind it
        missing.pass(calls[k], true);
    }
    bool read = false;
    for (size_t k = count; k < calls.size(); k++) {
        read = read || !missing.pass(calls[k]);
    }
    for (const LoadedCall &call : plan.later) {
        read = read || !missing.pass(call);
    }
    missing.finish_rows();
    return read || missing.any(plan.y) ? 0 : count;
}

std::vector<LoadedCall *> readers_in_place(const std::vector<LoadedCall *> &calls, const PlanEnd &plan, const Piece &x) {
    Missing missing(plan.memory_bytes, plan.rows);
    missing.lose(x);
    std::vector<LoadedCall *> found;
    for (LoadedCall *made : calls) {
        const bool reads = made->call.kernel == MF_REFINE_F32 &&
                           made->reads[0].place.offset == x.place.offset && missing.all(x);
        if (reads) {
            found.push_back(made);
        }
        if (!missing.pass(*made, reads)) {
            return {};
        }
    }
    missing.finish_rows();
    return missing.any(plan.y) ? std::vector<LoadedCall *>() : found;
}

std::unique_ptr<Gates> join_gates(std::vector<LoadedCall> &calls, const PlanEnd &plan,
                                  const std::function<uint64_t(const LoadedCall &)> &bound) {
    for (size_t last = 0; last < calls.size(); last++) {
        std::optional<Match> match = match_gates(calls, plan.rows, last);
        if (!match || !Judge(calls, plan, *match).allows()) {
            continue;
        }
        std::unique_ptr<Gates> gates = gates_of(calls, *match, plan, bound);
        if (gates) {
            calls[last] = joined(calls, *match, *gates);
            match->used.erase(last);
            for (auto k = match->used.rbegin(); k != match->used.rend(); ++k) {
                calls.erase(calls.begin() + static_cast<std::ptrdiff_t>(*k));
            }
            return gates;
        }
    }
    return nullptr;
}
