#include "native_limits.h"

#include <algorithm>
#include <cstring>

#include "native_plan.h"

namespace {

bool is_linear(int kernel) { return kernel == MF_LINEAR_I32 || kernel == MF_LINEAR_I64; }
bool is_accumulate(int kernel) { return kernel == MF_ACCUMULATE_I32 || kernel == MF_ACCUMULATE_I64; }

template <typename T>
bool all_within(const uint8_t *at, const Limit &limit) {
    for (size_t i = 0; i < limit.piece.bytes; i += sizeof(T)) {
        T value;
        std::memcpy(&value, at + i, sizeof value);
        if (value < limit.low || value > limit.high) {
            return false;
        }
    }
    return true;
}

// What memory holds after a call: codes, and what the calls of delta_encode made.
class Known {
  public:
    explicit Known(size_t rows) : rows_(rows) {}

    void add(const Piece &piece, int bits, const LoadedCall *encoder, int which) {
        facts_.push_back({piece, bits, encoder, which});
    }
    // Of codes, the bits of the widest; 0: not known.
    int bits(const Piece &piece) const {
        int widest = 0;
        const size_t end = piece.place.offset + piece.bytes;
        for (size_t at = piece.place.offset; at < end;) {
            const auto found = std::find_if(facts_.begin(), facts_.end(), [&](const Fact &f) {
                return f.bits && f.piece.place.stride == piece.place.stride &&
                       f.piece.place.offset <= at && at < f.piece.place.offset + f.piece.bytes;
            });
            if (found == facts_.end()) {
                return 0;
            }
            widest = std::max(widest, found->bits);
            at = found->piece.place.offset + found->piece.bytes;
        }
        return widest;
    }
    // The call of delta_encode whose output `which` lies there.
    const LoadedCall *encoder(const Piece &piece, int which) const {
        const auto found = std::find_if(facts_.begin(), facts_.end(), [&](const Fact &f) {
            return f.encoder && f.which == which && is_same(f.piece, piece);
        });
        return found == facts_.end() ? nullptr : found->encoder;
    }
    void forget(const Piece &written) {
        const auto over = [&](const Fact &f) { return !is_apart(f.piece, written, rows_); };
        facts_.erase(std::remove_if(facts_.begin(), facts_.end(), over), facts_.end());
    }
    bool operator==(const Known &other) const {
        return std::equal(facts_.begin(), facts_.end(), other.facts_.begin(), other.facts_.end(),
                          [](const Fact &a, const Fact &b) {
                              return is_same(a.piece, b.piece) && a.bits == b.bits &&
                                     a.encoder == b.encoder && a.which == b.which;
                          });
    }

  private:
    struct Fact {
        Piece piece;
        int bits; // of codes; else 0
        const LoadedCall *encoder;
        int which;
    };
    std::vector<Fact> facts_;
    size_t rows_;
};

class Prover {
  public:
    Prover(const std::vector<StageCalls> &stages, const Weights &weights, size_t rows, size_t state_bytes)
        : stages_(stages), weights_(weights), rows_(rows), state_bytes_(state_bytes), known_(rows) {}

    Proof prove() {
        assume_sent();
        for (const StageCalls &stage : stages_) {
            encoders_.clear();
            pass(*stage.ahead);
            Known before(rows_);
            size_t passes = 0;
            do { // row after row, until one leaves what the one before left
                require(passes++ < 8, "what the rows of a plan leave in memory hangs on their number");
                before = known_;
                pass(*stage.step);
            } while (rows_ > 1 && !(before == known_));
            for (const Limit &limit : made_.limits) {
                const int bits = known_.bits(limit.piece);
                require(bits && (int64_t{1} << (bits - 1)) - 1 <= limit.high,
                        "the codes that a stream carries may become too wide");
            }
            add_sums();
        }
        made_.limits.insert(made_.limits.end(), sums_.begin(), sums_.end());
        return std::move(made_);
    }

  private:
    bool is_state(const Piece &p) const {
        return p.place.offset + (rows_ - 1) * p.place.stride + p.bytes <= state_bytes_;
    }

    template <typename F>
    void each_call(F f) const {
        for (const StageCalls &stage : stages_) {
            std::for_each(stage.ahead->begin(), stage.ahead->end(), f);
            std::for_each(stage.step->begin(), stage.step->end(), f);
        }
    }

    // Codes sent are carried: that those of the first step are codes is seen when the state is set.
    void assume_sent() {
        each_call([this](const LoadedCall &made) {
            if (made.call.kernel == MF_DELTA_ENCODE && is_state(made.reads[1])) {
                const int64_t high = (int64_t{1} << (made.call.bits - 1)) - 1;
                made_.limits.push_back({made.reads[1], 2, -high - 1, high});
                known_.add(made.reads[1], made.call.bits, nullptr, 0);
            }
        });
    }

    void pass(const std::vector<LoadedCall> &calls) {
        for (const LoadedCall &made : calls) {
            call(made);
        }
    }

    void codes(const Piece &piece, int most) const {
        const int bits = known_.bits(piece);
        require(bits, "a call reads codes that no encoder made");
        require(bits <= most, "a call reads codes of more bits than it takes");
    }

    void call(const LoadedCall &made) {
        const mf_call &c = made.call;
        int bits = c.kernel == MF_QUANTIZE ? c.bits : 0;
        if (is_linear(c.kernel)) {
            codes(made.reads[0], weights_.at(c.site).x_bits);
        } else if (c.kernel == MF_REFINE_I32 || c.kernel == MF_REFINE_I64) {
            codes(made.reads[0], weights_.at(c.refinement->inner_site).x_bits);
        } else if (c.kernel == MF_DELTA_ENCODE) {
            require(c.bits <= weights_.at(c.site).x_bits, "a call makes wider codes than its product takes");
            codes(made.reads[0], c.bits);
            codes(made.reads[1], c.bits);
        } else if (is_accumulate(c.kernel)) {
            const LoadedCall *encoder = known_.encoder(made.reads[0], 0);
            require(encoder && known_.encoder(made.reads[1], 1) == encoder &&
                        encoder->call.block == c.block && encoder->call.bits <= weights_.at(c.site).x_bits,
                    "a call adds differences that its encoder did not make");
            encoders_.push_back({&made, encoder});
        } else if (c.kernel == MF_COPY && c.item_bytes == sizeof(int16_t)) {
            bits = known_.bits(made.reads[0]);
        }
        for (const Piece &piece : made.writes) {
            known_.forget(piece);
        }
        if (bits) {
            known_.add(made.writes[0], bits, nullptr, 0);
        } else if (c.kernel == MF_DELTA_ENCODE) {
            known_.add(made.writes[0], 0, &made, 0);
            known_.add(made.writes[1], 0, &made, 1);
            known_.add(made.writes[2], c.bits, nullptr, 0);
        }
    }

    bool writes_alone(const LoadedCall &made, const Piece &piece) const {
        bool alone = true;
        each_call([&](const LoadedCall &other) {
            for (const Piece &written : other.writes) {
                alone = alone && (&other == &made || is_apart(written, piece, rows_));
            }
        });
        return alone;
    }

    bool is_in_stage(const LoadedCall *made, const StageCalls &stage) const {
        const auto in = [made](const std::vector<LoadedCall> &calls) {
            return std::any_of(calls.begin(), calls.end(), [made](const LoadedCall &c) { return &c == made; });
        };
        return in(*stage.ahead) || in(*stage.step);
    }

    // Sums that follow the codes sent: both are carried in place, and whatever changes the ones changes the others.
    void add_sums() {
        for (const auto &[adder, encoder] : encoders_) {
            const Piece &sums = adder->writes[0], &sent = encoder->writes[2], &change = adder->reads[0];
            const bool fresh = rows_ == 1 || !encoder->ahead || change.place.stride >= change.bytes;
            const bool known = std::any_of(made_.sums.begin(), made_.sums.end(),
                                           [&](const Piece &p) { return is_same(p, sums); });
            const bool same_stage = std::any_of(stages_.begin(), stages_.end(), [&](const StageCalls &s) {
                return is_in_stage(adder, s) && is_in_stage(encoder, s);
            });
            const uint64_t bound = weights_.at(adder->call.site).bound;
            if (adder->call.kernel == MF_ACCUMULATE_I32 && !known && fresh && same_stage && bound < INT32_MAX &&
                is_state(sums) && is_state(sent) && is_same(encoder->reads[1], sent) &&
                adder->call.site == encoder->call.site && writes_alone(*adder, sums) &&
                writes_alone(*encoder, sent)) {
                made_.sums.push_back(sums);
                const auto most = static_cast<int64_t>(bound);
                sums_.push_back({sums, sizeof(int32_t), -most, most});
            }
        }
    }

    const std::vector<StageCalls> &stages_;
    const Weights &weights_;
    size_t rows_, state_bytes_;
    Known known_;
    std::vector<std::pair<const LoadedCall *, const LoadedCall *>> encoders_; // of calls that add differences
    std::vector<Limit> sums_;
    Proof made_;
};

}  // namespace

bool Limit::holds(const uint8_t *state, size_t rows) const {
    for (size_t i = 0; i < rows; i++) {
        const uint8_t *at = state + piece.place.offset + i * piece.place.stride;
        if (!(item_bytes == sizeof(int16_t) ? all_within<int16_t>(at, *this) : all_within<int32_t>(at, *this))) {
            return false;
        }
    }
    return true;
}

bool operator==(const Limit &a, const Limit &b) {
    return is_same(a.piece, b.piece) && a.item_bytes == b.item_bytes && a.low == b.low && a.high == b.high;
}

Proof prove_codes(const std::vector<StageCalls> &stages, const Weights &weights, size_t rows, size_t state_bytes) {
    return Prover(stages, weights, rows, state_bytes).prove();
}

// What the state must keep to, and that it does at reset.
void Plan::prove() {
    std::vector<StageCalls> calls;
    for (const Stage &stage : made_) {
        calls.push_back({&stage.ahead, &stage.step});
    }
    proof = prove_codes(calls, *weights, rows, state_bytes);
    if (proof.limits.empty()) {
        return;
    }
    const Memory start(state_bytes);
    for (const Stage &made : made_) {
        mf_stage stage = {};
        stage.slots = made.slots.data();
        stage.slot_count = made.slots.size();
        mf_reset_stage(&stage, start.data(), 0, rows);
    }
    require(allows_state(start.data(), rows), "the first values of slots are none that steps may leave");
}

bool Plan::allows_state(const uint8_t *state, size_t row_count) const {
    return std::all_of(proof.limits.begin(), proof.limits.end(),
                       [&](const Limit &limit) { return limit.holds(state, row_count); });
}

uint64_t Plan::bound(const LoadedCall &made) const {
    const uint64_t most = weights->at(made.call.site).bound;
    if (!is_accumulate(made.call.kernel)) {
        return most;
    }
    const bool proven = std::any_of(proof.sums.begin(), proof.sums.end(),
                                    [&](const Piece &sums) { return is_same(sums, made.writes[0]); });
    return proven ? 3 * most : UINT64_MAX; // below 2^31 where it is proven
}
