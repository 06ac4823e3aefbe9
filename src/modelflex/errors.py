"""Errors that users can mend, and their exit codes."""

from __future__ import annotations

_LONGEST = 1200
"""Characters of a message; what is longer loses its middle."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what was found, expected, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """

    exit_code = 2

    def __init__(self, found: str, expected: str = "", mend: str = "") -> None:
        self.found, self.expected, self.mend = found, expected, mend
        text = found
        if expected:
            text += f"; expected {expected}"
        if mend:
            text += f"; {mend}"
        super().__init__(_line(text))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, str, str]]:
        # Worker processes hand errors back by value; the default would pass the joined text only.
        return (type(self), (self.found, self.expected, self.mend))


def _line(text: str) -> str:
    """One line that a terminal can show, whatever the file said that is cited."""
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def nearest(name: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint naming the known word closest to `name`, or all of them when none is close."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known))}"
