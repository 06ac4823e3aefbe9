"""C99 kernels of the integer arithmetic (docs/arithmetic.md); absent without a C compiler.

Arrays are C-contiguous and of exactly the type given: anything else raises TypeError, sizes that
do not fit raise ValueError. Nothing is allocated: results go to the arrays `out` (or `delta`,
`mask`, `sent`), which may be the same array as an input of the same type. The interpreter lock is
released meanwhile. Shifts `s` are from -62 to 62. "fx" is int32 with 16 fractional bits.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]
Total = Int32 | npt.NDArray[np.int64]
Accumulator = Int32 | npt.NDArray[np.int64] | npt.NDArray[np.float32] | npt.NDArray[np.float64]

def quantize(v: Int32, mu: int, s: int, bits: int, out: Int16) -> None:
    """out = clamp(rsh(v·mu, s), -2^(bits-1), 2^(bits-1) - 1); v fx, 2 ≤ bits ≤ 16."""

def rescale(acc: Accumulator, mu: Int32, s: int, out: Int32) -> None:
    """out = sat32(rsh(acc·mu, s)), exact if |acc·mu| < 2⁶².

    acc [..., n] holds integers, mu [n] one factor for each entry of its last axis (or mu [1]).
    """

def add(a: Int32, b: Int32, out: Int32) -> None:
    """out = sat32(a + b)."""

def sub(a: Int32, b: Int32, out: Int32) -> None:
    """out = sat32(a - b)."""

def mul(a: Int32, b: Int32, out: Int32) -> None:
    """out = sat32(rsh(a·b, 16)), all fx."""

def tanh(x: Int32, table: Int32, out: Int32) -> None:
    """Tanh of fx by linear interpolation; table [257] holds 2¹⁵·tanh(i/32), at most 2¹⁵ - 1."""

def sigmoid(x: Int32, table: Int32, out: Int32) -> None:
    """out = 2¹⁵ + rsh(tanh(rsh(x, 1)), 1), all fx, with the table of tanh."""

def piecewise(
    x: Int32, breaks: Int32, values: Int32, slopes: Int32, centre: int, out: Int32
) -> None:
    """out = centre ± (values[i] + rsh(slopes[i]·(|x| - breaks[i]), 16)), i the last segment with
    breaks[i] ≤ |x|; breaks start with 0 and increase, the last slope is 0.
    """

def delta_encode(
    x: Int16,
    x_hat: Int16,
    block: int,
    theta: Int32,
    overshoot: int,
    bits: int,
    delta: Int32,
    mask: npt.NDArray[np.uint8],
    sent: Int16,
) -> None:
    """Send the blocks of `block` neighbours whose largest |x - x_hat| is ≥ their theta and not 0.

    x, x_hat, delta, sent: [..., n]; mask: [..., ceil(n / block)]; theta: [ceil(n / block)], none negative.
    Where mask is 1, sent is x and beyond it min(|x - x_hat|, theta)·overshoot >> 8 in the direction of
    the change, clamped to `bits` bits; elsewhere x_hat. delta = sent - x_hat. 0 ≤ overshoot < 256.
    """

def matrix_linear(
    matrix: object,
    x: Int16,
    bias: Total | None,
    out: Total,
    taps: Int32 | None = None,
) -> None:
    """out [out] = bias + A·x, by the portable kernels on the packed bits of a `StoredMatrix`.

    Exact if every sum of terms fits the type of `out`. With taps [positions, in], x is a map and out
    [out, positions] (core/windows.py); bias is [out] either way.
    """

def matrix_accumulate(
    matrix: object,
    delta: Int32,
    mask: npt.NDArray[np.uint8],
    mask_block: int,
    total: Total,
    taps: Int32 | None = None,
) -> None:
    """total += A·delta, as `matrix_linear`; mask has one entry for each `mask_block` elements of delta,
    whose magnitudes are below 2¹⁶, and 0 where the mask is.
    """

def read_loop(words: npt.NDArray[np.uint64], passes: int) -> int:
    """Read all words so many times: the sum of all passes, modulo 2⁶⁴. Its time is a roofline."""

def packed_linear(matrix: object, x_bits: int, x: Int16, bias: Int32 | None, out: Int32) -> bool:
    """out [steps, out] = bias + A·x, x [steps, in], by the fast kernels; the weights of a
    `StoredMatrix` are packed for it. False, and nothing done, where there are none for this pair.
    """

def packed_accumulate(matrix: object, x_bits: int, delta: Int32, total: Int32) -> bool:
    """total += A·delta, as `matrix_accumulate`, by the fast kernels; see `packed_linear`."""

def packed_linear_f32(w: Float32, x: Float32, bias: Float32 | None, out: Float32) -> None:
    """out [steps, out] = bias + W·x, x [steps, in], to rounding."""

def isa() -> str:
    """The instruction set whose kernels are used: avx512vnni, avx2, neon or portable."""

def limit_isa(name: str | None) -> None:
    """Use this instruction set for what is packed from now on; None: the best of this CPU.

    Raises:
        ValueError: this CPU or this build has not got it.
    """

class Weights:
    """What a program multiplies, packed once for this CPU; every array is copied or held."""

    def add_codes(
        self,
        matrix: object,
        x_bits: int,
        accumulator_bits: int,
        bias: Int32 | npt.NDArray[np.int64] | None,
        taps: Int32 | None,
        entering: int,
        unit: int,
        packed: bool = True,
    ) -> None:
        """Add a StoredMatrix. `taps` [positions, inputs] point into a map of `entering` elements; `unit`
        inputs share a fetch unit (for the counters). Not `packed` where its terms are computed one by one.
        """

    def add_floats(
        self,
        matrix: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32] | None,
        taps: Int32 | None,
        entering: int,
        unit: int,
    ) -> None:
        """Add a matrix [out, inputs] of floats."""

    def add_term_inputs(
        self,
        v: npt.NDArray[np.float32],
        index: npt.NDArray[np.uint32] | None,
        inputs: int,
        bias: npt.NDArray[np.float32] | None,
    ) -> None:
        """Add what terms of floats multiply x with: v [rows, kept] in blocks whose numbers index [rows,
        blocks] has, of a vector of `inputs` elements (None: all of them).
        """

    def add_term_outputs(
        self, u: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None
    ) -> None:
        """Add what terms of floats add to the results: u [terms, out]."""

class Plan:
    """Calls of kernels on one block of memory: the state, then the scratch.

    Operands are (byte offset, bytes to the next row, elements). ValueError for whatever would leave
    the memory or contradicts another operand.
    """

    def __init__(
        self, weights: Weights, integer: bool, rows: int, state_bytes: int, scratch_bytes: int
    ) -> None: ...
    def begin_stage(self, once: bool) -> None: ...
    def add_call(
        self,
        kernel: int,
        site: int,
        inputs: list[tuple[int, int, int]],
        outputs: list[tuple[int, int, int]],
        attrs: dict[str, object],
        ahead: bool,
    ) -> None: ...
    def add_slot(
        self, place: tuple[int, int, int], item_bytes: int, init: bytes | None
    ) -> None: ...
    def finish(self, x: tuple[int, int, int], y: tuple[int, int, int]) -> None: ...
    @property
    def calls(self) -> int:
        """Calls of a finished plan: fewer than were added where one kernel does the work of several."""
    @property
    def in_place(self) -> int:
        """How many of the first elements of x a finished plan reads where the caller has them, as float32."""

class Stream:
    """The memory of one stream; see `modelflex.execute.native.Runtime`."""

    def __init__(self, step: Plan, chunk: Plan) -> None: ...
    def step(
        self,
        x: npt.NDArray[np.floating],
        out: npt.NDArray[np.floating] | None = None,
        *,
        terms: int | Mapping[str, int] | None = None,
        budget: float | None = None,
        deadline_s: float | None = None,
    ) -> Any: ...
    def describe(self, names: tuple[str, ...], answer: type[tuple[Any, ...]]) -> None:
        """Names of the weights that have terms, and the type of answers: tuples of (y, terms, operations,
        error, late).
        """

    def set_ladder(self, rungs: list[tuple[list[int], float]]) -> None:
        """Rungs of rising operations: the terms of each weight, and the error."""

    clock: Callable[[], int] | None
    def run(
        self, x: npt.NDArray[np.floating], out: npt.NDArray[np.floating] | None = None
    ) -> npt.NDArray[np.floating]: ...
    def reset(self) -> None: ...
    def get_state(self) -> bytes: ...
    def set_state(self, state: bytes) -> None: ...

def run_batch(
    plan: Plan,
    x: npt.NDArray[np.float32] | npt.NDArray[np.float64],
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    threads: int,
    outputs: npt.NDArray[np.float64],
    states: list[npt.NDArray[np.uint8]],
    counts: npt.NDArray[np.uint64],
    codes: list[Int16 | None],
    terms: list[int] = ...,
) -> None:
    """Run sequences from reset, `order` by falling length, as many together as the plan has rows.

    outputs: [steps or sequences, K]; states: of every carried value [sequences, bytes]; counts [sites, 3]
    (runs, units, active) are added to; codes: none, or what every site's product sees
    [steps, or sequences where it runs once, inputs] (None where terms are computed); terms: of every
    weight that has any, or none: all.
    """

def replay_delta(
    codes: Int16,
    lengths: npt.NDArray[np.int64],
    block: int,
    theta: Int32,
    overshoot: int,
    bits: int,
    held: Int16,
    mask: npt.NDArray[np.uint8],
) -> None:
    """`delta_encode` over sequences: codes [ΣT, n], one sequence of `lengths` after another, each from
    0. held [ΣT, n] is what was sent last, mask [ΣT, n / block] what is sent.
    """

Float64 = npt.NDArray[np.float64]

def round_columns(
    values: Float64,
    shares: Float64,
    steps: Float64,
    top: int,
    odd: bool,
    mask: Float64 | None,
    changes: Float64,
) -> None:
    """Round the columns values [columns, rows] to `steps` [1 or columns, rows] times the integers
    -top … top (ties to even), or the odd ones of them (ties up), one after another: column j less
    Σ shares[j, i]·changes[i], i < j. changes are what was lost; mask [columns, rows] is 1 or 0.
    """

def descend_columns(
    values: Float64,
    pulls: Float64,
    own: Float64,
    shares: Float64,
    steps: Float64,
    top: int,
    odd: bool,
    mask: Float64 | None,
    changes: Float64,
) -> None:
    """Replace column j of values by the nearest to own[j]·(pulls[j] - Σ shares[j, i]·changes[i]) +
    values[j], i < j, on the grid of `round_columns`; changes are how much more it is.
    """

def step_errors(
    values: Float64, weights: Float64, sizes: Float64, top: int, odd: bool, errors: Float64
) -> None:
    """errors [groups, sizes] = Σ weights·(y - x)² over the rows of [groups, n], x = values / size and y the
    nearest of the integers that `round_columns` names. The order of the sum: csrc/column_rounding.h.
    """
