// What a plan's calls become once all are known: steps in one call, inputs that are quantised as they come in.
#include <algorithm>
#include <numeric>

#include "native_plan.h"

// Steps of LSTM and GRU in one call each.
void Plan::join_calls() {
    PlanEnd end = {rows, state_bytes, memory_bytes, {}, {y.place, y.size * sizeof(int32_t)}};
    const auto bound_of = [this](const LoadedCall &made) { return bound(made); };
    for (auto stage = made_.rbegin(); stage != made_.rend(); ++stage) {
        std::vector<LoadedCall> calls = stage->ahead;
        calls.insert(calls.end(), stage->step.begin(), stage->step.end());
        while (std::unique_ptr<Gates> gates = join_gates(calls, end, bound_of)) {
            gates_.push_back(std::move(gates));
        }
        const auto step = std::find_if(calls.begin(), calls.end(),
                                       [](const LoadedCall &made) { return !made.ahead; });
        stage->ahead.assign(calls.begin(), step);
        stage->step.assign(step, calls.end());
        end.later.insert(end.later.begin(), calls.begin(), calls.end());
    }
}

// What quantises x out of the first stage.
void Plan::take_entering() {
    PlanEnd end = {rows, state_bytes, memory_bytes, {}, {y.place, y.size * sizeof(int32_t)}};
    const auto add = [](std::vector<LoadedCall> &to, const Stage &stage) {
        to.insert(to.end(), stage.ahead.begin(), stage.ahead.end());
        to.insert(to.end(), stage.step.begin(), stage.step.end());
    };
    std::vector<LoadedCall> calls;
    add(calls, made_.front());
    for (size_t i = 1; i < made_.size(); i++) {
        add(end.later, made_[i]);
    }
    const size_t count = count_entering(calls, end, {x.place, x.size * sizeof(int32_t)});
    Stage &first = made_.front();
    for (size_t k = 0; k < count; k++) {
        entering.push_back(calls[k].call);
        auto &from = calls[k].ahead ? first.ahead : first.step;
        from.erase(from.begin());
    }
}

// Which refinements of a step read x where the caller has it, and how many of its elements.
void Plan::take_in_place() {
    if (integer || rows > 1 || !weights->kernels->refine_halves_f32) {
        return;
    }
    const PlanEnd end = {rows, state_bytes, memory_bytes, {}, {y.place, y.size * sizeof(float)}};
    std::vector<LoadedCall *> calls;
    size_t width = 8; // of packed.h
    for (Stage &stage : made_) {
        for (auto *some : {&stage.ahead, &stage.step}) {
            for (LoadedCall &made : *some) {
                calls.push_back(&made);
                if (made.call.kernel == MF_REFINE_F32) {
                    const Weights::Product &v = weights->at(made.call.refinement->inner_site);
                    width = std::lcm(width, size_t{v.width});
                    if (!v.ascending || width > x.size) { // nor does it grow further, beyond what size_t holds
                        return;
                    }
                }
            }
        }
    }
    const size_t split = x.size / width * width;
    const auto readers = readers_in_place(calls, end, {x.place, split * sizeof(float)});
    for (LoadedCall *reader : readers) {
        reader->call.in_place = static_cast<uint32_t>(split);
    }
    in_place = readers.empty() ? 0 : split;
}
