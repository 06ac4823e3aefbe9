"""Prepare tiny Shakespeare for the character model: symbols, split, sequences.

1,115,394 characters of Shakespeare's plays with 65 different symbols; the task is to predict the
next character. Source: A. Karpathy, github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt;
the text is in the public domain. Read from `tinyshakespeare/input.txt` below $MODELFLEX_DATA
(default ../shared/data).

    python examples/shakespeare/prepare.py [--out examples/shakespeare/data]

splits by position (90 % training, 5 % validation, 5 % test) and writes `validation.npz` and
`test.npz` in sequences of 1,000 characters and `calibration.npz`, 500 sequences of 200 characters
drawn from the training text. Keys: `x` [sum of lengths, 1] float32, the symbol's number in the
order of the code points; `lengths` [N]; `y` [sum of lengths] int64, the number of the next symbol.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelflex.core.data import Sequences
from modelflex.errors import UserError

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from _training import data_file, write_sequences  # noqa: E402

SYMBOLS = 65
CHARACTERS = 1_115_394
SEQUENCE = 1000
CALIBRATION_SEQUENCE = 200
CALIBRATION_COUNT = 500
ORIGIN = "tiny Shakespeare's input.txt (see the example's README)"
Codes = npt.NDArray[np.int64]


def load_codes() -> Codes:
    """The text as numbers of symbols [1,115,394].

    Raises:
        UserError: the file is missing or not this text.
    """
    path = data_file("tinyshakespeare/input.txt", ORIGIN)
    text = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    alphabet, codes = np.unique(text, return_inverse=True)
    if text.size != CHARACTERS or alphabet.size != SYMBOLS:
        raise UserError(
            f"{path} holds {text.size} characters, {alphabet.size} different",
            f"{CHARACTERS} characters, {SYMBOLS} different: {ORIGIN}",
        )
    return codes.astype(np.int64)


def split_codes(codes: Codes) -> dict[str, Codes]:
    """Train, validation and test text: the first 90 %, the next 5 %, the rest."""
    first, second = codes.size * 90 // 100, codes.size * 95 // 100
    return {
        "train": codes[:first],
        "validation": codes[first:second],
        "test": codes[second:],
    }


def cut(codes: Codes, length: int) -> Sequences:
    """Text [n + 1] as sequences of `length` symbols, the last one shorter, each with its next."""
    count = codes.size - 1
    lengths = np.full(-(-count // length), length, dtype=np.int64)
    lengths[-1] = count - length * (lengths.size - 1)
    return Sequences(codes[:-1, None].astype(np.float32), lengths, codes[1:])


def calibration(train: Codes, seed: int = 0) -> Sequences:
    """500 sequences of 200 symbols drawn from the training text without overlap."""
    data = cut(train, CALIBRATION_SEQUENCE)
    whole = np.flatnonzero(data.lengths == CALIBRATION_SEQUENCE)
    return data.take(np.random.default_rng(seed).choice(whole, CALIBRATION_COUNT, replace=False))


def load_parts() -> dict[str, Sequences]:
    """Calibration, validation and test sequences."""
    text = split_codes(load_codes())
    parts = {name: cut(text[name], SEQUENCE) for name in ("validation", "test")}
    return {"calibration": calibration(text["train"]), **parts}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Write tiny Shakespeare as .npz files.")
    parser.add_argument("--out", type=Path, default=HERE / "data", help="output folder")
    options = parser.parse_args(arguments)
    try:
        write_sequences(options.out, load_parts())
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
