"""Platforms made ready: those that measure this machine get the native executor handed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelflex.core.platform import MeasuredPlatform, Platform
from modelflex.execute.native import Runtime
from modelflex.registry import PLATFORMS


def ready_platform(
    name: str, options: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> Platform:
    """A platform by the name of its family.

    Args:
        known: constants of a measured platform that an earlier search stored (`stored_constants`).

    Raises:
        UserError: no such family, a wrong option; for measured platforms, no native kernels.
    """
    platform: Platform = PLATFORMS.get(name).from_config(options)
    if isinstance(platform, MeasuredPlatform):
        platform = platform.calibrated(Runtime, (known or {}).get(name))
    return platform


def stored_constants(name: str, platform: Platform) -> dict[str, Any]:
    """What a study keeps so that its prices stay as they are: family → constants."""
    return {name: dict(platform.constants)} if isinstance(platform, MeasuredPlatform) else {}
