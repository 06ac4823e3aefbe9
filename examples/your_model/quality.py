"""Your own quality, in a module that worker processes can import."""

import numpy as np


def event_f1(outputs: np.ndarray, y: np.ndarray, lengths: np.ndarray) -> float:
    """F1 of the class "event" over all steps.

    Quality is any function of outputs [ΣT, K] (one a sequence: [N, K]), y and lengths [N]. Named as
    "module:function", worker processes can import it; a lambda works too, in this process.
    """
    found = outputs.argmax(axis=1) == 1
    hits = np.count_nonzero(found & (y == 1))
    return 2 * hits / max(np.count_nonzero(found) + np.count_nonzero(y), 1)
