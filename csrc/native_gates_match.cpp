// Which calls of a plan are the elementwise part of an LSTM or GRU step, by what they read of each other.
#include <algorithm>
#include <array>

#include "fixed_point.h"
#include "native_gates.h"

namespace {

using Calls = std::vector<LoadedCall>;
using Two = std::array<Made, 2>;
constexpr size_t kItem = sizeof(int32_t);

// One attempt, which takes a call as the last of a step.
class Matcher {
  public:
    Matcher(const Calls &calls, size_t rows, size_t last)
        : calls_(calls), rows_(rows), units_(calls[last].call.size) {
        found_.last = found_.cell = last;
        use({last, 0});
    }

    std::optional<Match> lstm() {
        found_.kernel = MF_LSTM;
        const auto ends = operands({found_.last, 0}, MF_MUL, MF_SIGMOID, MF_TANH);
        const auto c = ends ? source((*ends)[1], 0, MF_ADD) : std::nullopt;
        if (!c || c->start || calls_[c->call].call.size != units_) {
            return std::nullopt;
        }
        found_.cell = c->call;
        const auto sum = operands(*c, MF_ADD, MF_MUL, MF_MUL);
        for (size_t k = 0; sum && k < 2; k++) {
            const Made kept = (*sum)[k], made = (*sum)[1 - k];
            const auto in = operands(made, MF_MUL, MF_SIGMOID, MF_TANH);
            const auto forget = in ? gate_and_old(kept) : std::nullopt;
            if (in && forget && gate(0, (*in)[0]) && gate(1, *forget) && gate(2, (*in)[1]) &&
                gate(3, (*ends)[0])) {
                use({c->call, 0});
                return complete();
            }
        }
        return std::nullopt;
    }

    std::optional<Match> gru() {
        found_.kernel = MF_GRU;
        const auto ends = operands({found_.last, 0}, MF_ADD, MF_TANH, MF_MUL);
        const auto change = ends ? operands((*ends)[1], MF_MUL, MF_SIGMOID, MF_SUB) : std::nullopt;
        const auto again = change ? source((*change)[1], 1, MF_TANH) : std::nullopt;
        const auto sum = again ? source((*ends)[0], 0, MF_ADD) : std::nullopt;
        const auto parts = sum ? operands(*sum, MF_ADD, MF_RESCALE_I32, MF_MUL) : std::nullopt;
        const auto reset =
            parts ? operands((*parts)[1], MF_MUL, MF_SIGMOID, MF_RESCALE_I32) : std::nullopt;
        if (!reset || again->call != (*ends)[0].call || again->start != (*ends)[0].start) {
            return std::nullopt;
        }
        found_.old = input((*change)[1], 0);
        found_.old_reader = (*change)[1].call;
        found_.x = (*parts)[0];
        found_.h = (*reset)[1];
        gates_ = 1;
        found_.x_at[2] = found_.x.start;
        found_.h_at[2] = found_.h.start;
        for (const Made &made : {*sum, (*ends)[0], found_.x, found_.h}) {
            use(made);
        }
        if (is_function((*ends)[0]) && gate(0, (*reset)[0]) && gate(1, (*change)[0])) {
            return complete();
        }
        return std::nullopt;
    }

  private:
    void use(const Made &made) { found_.used.insert(made.call); }

    // What a call reads as operand `which` for some of the units.
    Piece input(const Made &made, size_t which) const {
        Piece piece = calls_[made.call].reads[which];
        piece.place.offset += made.start * kItem;
        return {piece.place, units_ * kItem};
    }

    // The call of `kernel` that made operand `which`.
    std::optional<Made> source(const Made &made, size_t which, mf_kernel kernel) const {
        const Piece wanted = input(made, which);
        for (size_t k = made.call; k-- > 0;) {
            for (const Piece &written : calls_[k].writes) {
                if (is_apart(written, wanted, rows_)) {
                    continue;
                }
                if (!is_within(wanted, written) || calls_[k].call.kernel != kernel) {
                    return std::nullopt;
                }
                return Made{k, (wanted.place.offset - written.place.offset) / kItem};
            }
        }
        return std::nullopt;
    }

    // Both operands of a call of `kernel`, made by calls of those kernels in either order. They are used, as it is.
    std::optional<Two> operands(const Made &made, mf_kernel kernel, mf_kernel first,
                                mf_kernel second) {
        if (calls_[made.call].call.kernel != kernel) {
            return std::nullopt;
        }
        for (size_t k = 0; k < 2; k++) {
            const auto a = source(made, k, first), b = source(made, 1 - k, second);
            if (a && b) {
                for (const Made &each : {made, *a, *b}) {
                    use(each);
                }
                return Two{*a, *b};
            }
        }
        return std::nullopt;
    }

    // sigmoid(f) and the old state.
    std::optional<Made> gate_and_old(const Made &product) {
        for (size_t k = 0; k < 2; k++) {
            if (const auto forget = source(product, k, MF_SIGMOID)) {
                use(*forget);
                found_.old = input(product, 1 - k);
                found_.old_reader = product.call;
                return forget;
            }
        }
        return std::nullopt;
    }

    // Whether a call of sigmoid or tanh has the table that all have.
    bool is_function(const Made &made) {
        const int32_t *table = calls_[made.call].call.constants;
        table_ = table_ ? table_ : table;
        return std::equal(table, table + MF_TANH_ENTRIES, table_);
    }

    // Gate k: a function of the sum of two rescaled products.
    bool gate(size_t k, const Made &function) {
        const auto sum = is_function(function) ? source(function, 0, MF_ADD) : std::nullopt;
        const auto both = sum ? operands(*sum, MF_ADD, MF_RESCALE_I32, MF_RESCALE_I32) : std::nullopt;
        if (!both) {
            return false;
        }
        const bool turned = gates_ && (*both)[0].call != found_.x.call;
        const Made x = (*both)[turned], h = (*both)[!turned];
        if (!gates_) {
            found_.x = x;
            found_.h = h;
        }
        gates_++;
        found_.x_at[k] = x.start;
        found_.h_at[k] = h.start;
        return x.call == found_.x.call && h.call == found_.h.call && x.call != h.call;
    }

    std::optional<Match> complete() const { return found_; }

    const Calls &calls_;
    size_t rows_, units_;
    Match found_ = {};
    size_t gates_ = 0; // that were seen
    const int32_t *table_ = nullptr;
};

}  // namespace

std::optional<Match> match_gates(const Calls &calls, size_t rows, size_t last) {
    switch (calls[last].call.kernel) {
    case MF_MUL: return Matcher(calls, rows, last).lstm();
    case MF_ADD: return Matcher(calls, rows, last).gru();
    default: return std::nullopt;
    }
}
