"""How much of a layer is followed one by one."""

from __future__ import annotations

from typing import Final

from modelflex.errors import UserError

MAX_FOLLOWED: Final = 2**25
"""Most words, cycles of a pass or misses of a layer that are kept in memory or followed: it takes a
GB or two, and seconds to a few minutes."""


def check_followed(count: int) -> None:
    """Refuse layers that would take too much memory or time.

    Raises:
        UserError: more than `MAX_FOLLOWED`.
    """
    if count > MAX_FOLLOWED:
        raise UserError(
            "a layer too large to follow its requests one by one, as SCALE-Sim 3.0.0 does",
            f"at most 2^{MAX_FOLLOWED.bit_length() - 1} of them",
            "cut it into several, or take larger buffers",
        )
