"""Which machine this is, and the file in which its constants are kept."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modelflex.core.files import replacing
from modelflex.errors import UserError

CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
CPU_INFO: Final = Path("/proc/cpuinfo")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cache_sizes(folder: Path = CACHES) -> dict[str, int]:
    """Level ("L1", "L2", …) → bytes of the data cache that one core sees; empty where unknown."""
    sizes: dict[str, int] = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = int((index / "level").read_text())
            found = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and found:
            sizes[f"L{level}"] = int(found[1]) * _UNITS[found[2]]
    return dict(sorted(sizes.items()))


def cpu_name(file: Path = CPU_INFO) -> str:
    """The processor's own name, or its architecture."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the constants hang on: processor, caches, instruction set in use, compiled kernels.

    Raises:
        UserError: the native kernels were not built or cannot be loaded.
    """
    # Not at the top: the module is absent without a compiler, and the platform's name is known even so.
    try:
        import modelflex._native as _native
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError)
        raise UserError(
            f"the native kernels cannot be loaded ({'they were not built' if absent else error})",
            "an installation with a C compiler for the platform 'cpu'",
            "take another platform",
        ) from None

    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "caches_bytes": cache_sizes(),
        "isa": _native.isa(),
        "kernels_sha256": hashlib.sha256(Path(_native.__file__).read_bytes()).hexdigest(),
    }


def fingerprint(found: Mapping[str, Any]) -> str:
    """A short name of a machine."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def kept_file(found: Mapping[str, Any]) -> Path:
    """Where the constants of a machine are kept: in $XDG_CACHE_HOME or ~/.cache."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "modelflex" / f"cpu-{fingerprint(found)}.json"


def read_kept(file: Path) -> Any:
    """What the file holds, or None if there is nothing of use."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def keep(file: Path, constants: Mapping[str, Any]) -> None:
    """Write the file, if its folder can be written: constants can be measured again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(constants, indent=1) + "\n", encoding="utf-8")
    except (OSError, UserError):
        return
