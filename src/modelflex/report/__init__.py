"""The report: one offline HTML page, the summary for scripts, and the table for the terminal."""

from __future__ import annotations

from modelflex.report.search import write_report

__all__ = ["write_report"]
