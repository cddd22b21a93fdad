"""A report as one file that opens offline: pictures first, tables behind them, nothing left out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uce.evaluation.report.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """Import matplotlib and all that draws only when a report is written."""
    if name not in __all__:
        raise AttributeError(name)
    from uce.evaluation.report.write import write_report

    return write_report
