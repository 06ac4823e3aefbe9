"""The way of the data: load → calibrate → price → search → pick → test → export → report."""

from __future__ import annotations

from modelflex.pipeline.advising import ALLOCATED, advise_model, allocate_config
from modelflex.pipeline.compare import REPORT, TABLE, compare
from modelflex.pipeline.exploring import explore_fpga
from modelflex.pipeline.exporting import export_model, validate_export
from modelflex.pipeline.jobs import (
    Tell,
    analyze_model,
    compile_model,
    retarget,
    run,
    say_if_slow,
    search,
    search_config,
)
from modelflex.pipeline.refining import refine_model
from modelflex.pipeline.result import Result
from modelflex.pipeline.setting import versions
from modelflex.pipeline.simulate import (
    find_platform,
    price_model,
    simulate_gemm,
    simulate_topology,
)
from modelflex.pipeline.sweep import simulate_sweep

__all__ = [
    "ALLOCATED",
    "REPORT",
    "TABLE",
    "Result",
    "Tell",
    "advise_model",
    "allocate_config",
    "analyze_model",
    "compare",
    "compile_model",
    "explore_fpga",
    "export_model",
    "find_platform",
    "price_model",
    "refine_model",
    "retarget",
    "run",
    "say_if_slow",
    "search",
    "search_config",
    "simulate_gemm",
    "simulate_sweep",
    "simulate_topology",
    "validate_export",
    "versions",
]
