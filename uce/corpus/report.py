"""The report of a build: every filter and how many cells it removed, as JSON and as a page to read."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uce.corpus.layout import CorpusIndex
from uce.corpus.quality import QualityRules
from uce.files import atomic_path, printable, write_json

_BAR = 40


def write_report(
    folder: Path, datasets: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str], rules: QualityRules
) -> None:
    """Write `report.json` and `report.md`.

    Parameters
    ----------
    datasets
        Name -> facts of its survey, with `removed` (filter -> cells) and `kept`.
    failed
        Name -> why it is not in the corpus.
    """
    write_json(folder / "report.json", {"rules": asdict(rules), "datasets": datasets, "failed": failed})
    with atomic_path(folder / "report.md") as temporary:
        temporary.write_text(_page(datasets, failed, rules), encoding="utf-8")


def _page(datasets: Mapping[str, Mapping[str, Any]], failed: Mapping[str, str], rules: QualityRules) -> str:
    cells = sum(facts["cells"] for facts in datasets.values())
    kept = sum(facts["kept"] for facts in datasets.values())
    removed: Counter[str] = Counter()
    for facts in datasets.values():
        removed.update(facts["removed"])
    removed["dataset left out"] = sum(facts["cells"] for facts in datasets.values() if facts["left_out"])
    lines = [
        "# What the filters did",
        "",
        f"{kept:,} of {cells:,} cells of {len(datasets):,} datasets are kept; {len(failed):,} datasets failed. A cell "
        "is counted by the first filter that removes it.",
        "",
        "```",
        *(_bar(name, count, cells) for name, count in removed.items()),
        _bar("kept", kept, cells),
        "```",
        "",
        f"Switched off: {', '.join(rules.off) or 'none'}. Thresholds: report.json.",
        "",
        *_table(datasets),
    ]
    for title, texts in (("Left out", _left_out(datasets)), ("Failed", failed), ("Notes", _notes(datasets))):
        if texts:
            lines += ["", f"## {title}", "", *(f"- {name}: {_line(text)}" for name, text in texts.items())]
    return "\n".join(lines) + "\n"


def _bar(name: str, count: int, cells: int) -> str:
    share = count / cells if cells else 0.0
    return f"{name:18}{count:>14,} {share:>7.2%} {'#' * round(_BAR * share)}".rstrip()


def _table(datasets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One row per dataset; removed cells by filter in words, as most filters remove none."""
    lines = ["| dataset | cells | kept | removed |", "| --- | ---: | ---: | --- |"]
    for name, facts in datasets.items():
        words = ", ".join(f"{what} {count:,}" for what, count in facts["removed"].items() if count)
        lines.append(f"| {name} | {facts['cells']:,} | {facts['kept']:,} | {words} |")
    return lines


def _left_out(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: facts["left_out"] for name, facts in datasets.items() if facts["left_out"]}


def _notes(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: " ".join(facts["notes"]) for name, facts in datasets.items() if facts["notes"]}


def _line(text: str) -> str:
    """Foreign text in a line of Markdown."""
    return printable(text, limit=500).replace("|", "\\|").replace("<", "&lt;")


def info_lines(index: CorpusIndex) -> list[str]:
    """A table of the datasets of a corpus, and its totals."""
    rows = index.datasets()
    width = max([len(row["dataset_id"]) for row in rows] + [7])
    lines = [f"{'dataset':{width}}  {'species':24} {'split':10} {'kept':>11} {'cells':>11}  licence"]
    for row in rows:
        numbers = f"{int(row['n_kept']):>11,} {int(row['n_cells']):>11,}"
        licence = printable(row["left_out"] or row["licence"], limit=48)
        lines.append(f"{row['dataset_id']:{width}}  {row['species']:24} {row['split']:10} {numbers}  {licence}")
    totals, content = index.content["totals"], index.content
    lines.append(
        f"{totals['datasets']:,} datasets, {totals['cells']:,} cells, {totals['entries']:,} values, "
        f"{totals['counts']:,} counts; genes of {', '.join(index.species)} ({content['gene_encoder']}), "
        f"seed {content['seed']}"
    )
    return lines + [f"failed: {name}: {printable(error, limit=300)}" for name, error in content["failed"].items()]
