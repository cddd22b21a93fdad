"""The study of recursion: trains every arm of a study file and measures it; a table, a picture, what may be said.

    python scripts/study_recursion.py configs/study_recursion.yaml -o studies/recursion [key=value ...]

Start it as often as there are cores: the processes share the runs, and what was killed goes on. With --report it only
writes the report anew. Settings `key=value` go to every run.
"""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uce.config import config_to_dict, read_config
from uce.files import atomic_path, write_json
from uce.grid import Row, read_rows, run_rows
from uce.scaling.verdicts import t_interval
from uce.training.batch import to_tensors, token_tables
from uce.training.corpus import open_corpus
from uce.training.costs import sample_batches, work
from uce.training.counting import parameters
from uce.training.loop import pretrain
from uce.training.probe import Probe
from uce.training.settings import PretrainConfig
from uce.training.state import read_state, snapshot_path
from uce.training.trainee import Trainee
from uce.training.validation import open_validation

PRIMARIES = ("probe_f1", "valid_excess")
_CKA_CELLS = 32  # of each dataset


@dataclass(frozen=True)
class Arm:
    """One thing that is compared."""

    name: str
    changes: tuple[str, ...] = ()  # key=value, over the base
    control: str = ""  # what it controls for, in words
    full_only: bool = False  # not on the small corpus


@dataclass(frozen=True)
class Study:
    """What is asked, by which rule it is answered, and what is run."""

    question: str
    primaries: tuple[str, ...]
    rule: str
    base: str  # configuration beside this file
    corpora: tuple[str, ...]  # folders: the full one, then a small one
    seeds: tuple[int, ...]
    read_at: tuple[int, ...]  # cycles
    margins: tuple[float, ...]  # of the primaries
    arms: tuple[Arm, ...]


def rows_of(study: Study, base: Path, common: Sequence[str]) -> list[tuple[Row, PretrainConfig]]:
    """Every run, seed by seed, so that a study that is cut short has whole comparisons."""
    found = []
    for place, corpus in enumerate(study.corpora):
        for seed in study.seeds:
            for arm in study.arms:
                if place and arm.full_only:
                    continue
                where = (f"data.corpus={corpus}", f"seed={seed}", f"name={arm.name}")
                config = read_config(PretrainConfig, base, overrides=[*common, *arm.changes, *where])
                settings = {"arm": arm.name, "corpus": Path(corpus).name, "seed": seed, "config": _plain(config)}
                found.append((Row(f"{Path(corpus).name}-{arm.name}-{seed}", settings), config))
    return found


def _plain(config: PretrainConfig) -> Any:
    """What decides the run, without where its corpus lies."""
    values = config_to_dict(config)
    del values["data"]["corpus"]
    return json.loads(json.dumps(values))


def measure(config: PretrainConfig, run: Path, read_at: Sequence[int]) -> dict[str, Any]:
    """What a finished run came to: both primaries, read at several cycles, with and without averaged weights."""
    from accelerate import Accelerator

    corpus = open_corpus(config.data)
    validation = open_validation(config, corpus)
    assert validation is not None
    accelerator = Accelerator()
    tables = token_tables([corpus, validation.corpus], accelerator.device)
    trainee, weights = Trainee(config), read_state(snapshot_path(run, config.steps))
    trainee.load_state_dict(_below(weights, "weights."))
    trainee.eval()

    def scores(cycles: int) -> dict[str, Any]:
        trainee.encoder.cycles = cycles
        values = validation.measure(trainee, trainee.objective, accelerator, tables)
        return {name: values[name] for name in (*PRIMARIES, "probe_f1_baseline", "probe")}

    raw = scores(config.model.cycles)
    trainee.encoder.load_state_dict(_below(weights, "average."), strict=False)
    recursive = config.model.kind == "recursive"
    read = {str(cycles): scores(cycles) for cycles in (read_at if recursive else [1])}
    trainee.encoder.cycles = config.model.cycles
    similar = [similarity(trainee, probe, config, tables) for probe in validation.probes]
    done = work(config, corpus, sample_batches(config, corpus))
    size = parameters(config)
    blocks = sum(weight.numel() for weight in trainee.encoder.blocks.parameters())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        "trained": read[str(config.model.cycles)],
        "read": read,
        "last_weights": raw,
        "similarity": np.mean(similar, axis=0).round(4).tolist(),
        "weights": size.encoder,
        "block_weights": blocks,
        "updates": config.steps,
        "cells": config.steps // config.recursion.supervision * config.batch_size,
        "tflop": done.training_flops / done.cells * config.steps * config.batch_size / 1e12,
        "seconds": last["seconds"],
        "state_change": last.get("state_change"),
    }


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in own.items() if not name.startswith("window.")}


@contextmanager
def watched(trainee: Trainee) -> Iterator[list[Tensor]]:
    """A context that collects the CLS state after every two blocks, whether they are the same ones or others."""
    states: list[Tensor] = []
    blocks = trainee.encoder.blocks
    hooks = [
        block.register_forward_hook(lambda _block, _inputs, out: states.append(out[:, 0].detach()))
        for block in blocks[1::2]
    ]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def similarity(
    trainee: Trainee, probe: Probe, config: PretrainConfig, tables: Mapping[str, Tensor]
) -> NDArray[np.float64]:
    """Linear CKA (Kornblith et al. 2019, equation 4) of the CLS states after each two blocks, (depths, depths)."""
    cells = np.arange(min(_CKA_CELLS, len(probe.labels)))
    batch = to_tensors(probe.batch(cells, config), tables, torch.device("cpu"))
    with watched(trainee) as states:
        trainee(batch, embed=True)
    centred = [(state - state.mean(dim=0)).double() for state in states]
    norms = [torch.linalg.matrix_norm(state.T @ state) for state in centred]
    table = [
        [float(torch.linalg.matrix_norm(a.T @ b) ** 2 / (na * nb)) for b, nb in zip(centred, norms, strict=True)]
        for a, na in zip(centred, norms, strict=True)
    ]
    return np.array(table)


def difference(
    records: Sequence[Mapping[str, Any]], corpus: str, one: str, other: str, primary: str, *, margin: float
) -> dict[str, Any]:
    """One arm minus another over the seeds that both have, and which word of the rule it deserves.

    An arm is "NAME" or "NAME@CYCLES" (read at so many), or "NAME#last" (the last weights, not averaged ones).
    """
    mine, theirs = (_by_seed(records, corpus, arm, primary) for arm in (one, other))
    seeds = sorted(set(mine) & set(theirs))
    found: dict[str, Any] = {"corpus": corpus, "one": one, "other": other, "primary": primary, "seeds": len(seeds)}
    if len(seeds) < 2:
        return {**found, "word": "undecided"}
    values = np.array([mine[seed] - theirs[seed] for seed in seeds])
    low, high = t_interval(values)
    word = "better" if low > 0 else "worse" if high < 0 else "not worse" if low > -margin else "undecided"
    return {**found, "mean": float(values.mean()), "low": low, "high": high, "word": word}


def _by_seed(records: Sequence[Mapping[str, Any]], corpus: str, arm: str, primary: str) -> dict[int, float]:
    name, _, cycles = arm.partition("@")
    name, _, last = name.partition("#")
    found = {}
    for record in records:
        settings, values = record["settings"], record.get("values")
        if values and (settings["arm"], settings["corpus"]) == (name, corpus):
            scores = values["last_weights"] if last else values["read"][cycles] if cycles else values["trained"]
            if scores[primary] is not None and math.isfinite(scores[primary]):
                found[settings["seed"]] = scores[primary]
    return found


def comparisons(study: Study) -> list[tuple[str, str]]:
    """What is subtracted from what, in the order of the questions."""
    pairs = [("recursive", "one-pass"), ("recursive", "untied"), ("recursive", "one-pass-larger-batches")]
    pairs += [(name, "recursive") for name in ("input-once", "one-step-gradient", "supervised-steps")]
    pairs += [("recursive#last", "recursive")]
    pairs += [(f"recursive@{cycles}", "recursive") for cycles in study.read_at]
    pairs += [("small-input", "small-input-one-pass"), ("small-input", "recursive")]
    return [*pairs, *((f"small-input@{cycles}", "small-input") for cycles in study.read_at)]


def report(study: Study, folder: Path) -> None:
    """Write `table.md`, `verdict.json` and `recursion.svg` from the rows that are there."""
    records = read_rows(folder)
    names = [Path(corpus).name for corpus in study.corpora]
    found = [
        difference(records, corpus, one, other, primary, margin=margin)
        for corpus in names
        for one, other in comparisons(study)
        for primary, margin in zip(PRIMARIES, study.margins, strict=True)
    ]
    write_json(folder / "verdict.json", [line for line in found if line["seeds"]])
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text("\n".join([*_arm_table(study, records), "", *_difference_table(found), ""]), "utf-8")
    with atomic_path(folder / "recursion.svg") as temporary:
        draw(study, records, temporary)


def _arm_table(study: Study, records: Sequence[Mapping[str, Any]]) -> list[str]:
    head = "corpus | arm | seeds | macro-F1 | excess (millinats) | weights of blocks | TFLOP | cells"
    lines = [f"| {head} |", "| --- | --- |" + " ---: |" * 6]
    for corpus in study.corpora:
        for arm in study.arms:
            name = Path(corpus).name
            values = [
                record["values"]
                for record in records
                if (record["settings"]["arm"], record["settings"]["corpus"]) == (arm.name, name)
                and record["status"] == "done"
            ]
            if not values:
                continue
            f1, excess = ([value["trained"][primary] for value in values] for primary in PRIMARIES)
            shown = (
                f"{name} | {arm.name} | {len(values)} | {np.mean(f1):.3f} ± {_sd(f1):.3f} | "
                f"{1e3 * np.mean(excess):.3f} ± {1e3 * _sd(excess):.3f} | {values[0]['block_weights']:,} | "
                f"{values[0]['tflop']:.1f} | {values[0]['cells']:,}"
            )
            lines.append(f"| {shown} |")
    return lines


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _difference_table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| corpus | one minus other | primary | difference (95 %) | seeds | by the rule |",
        "| --- |" * 1 + " --- |" * 5,
    ]
    for line in found:
        if "mean" not in line:
            continue
        scale, unit = (1.0, "") if line["primary"] == "probe_f1" else (1e3, " millinats")
        mean, low, high = (f"{scale * line[name]:+.4f}" for name in ("mean", "low", "high"))
        shown = f"{line['one']} − {line['other']} | {line['primary']} | {mean} ({low} to {high}){unit}"
        lines.append(f"| {line['corpus']} | {shown} | {line['seeds']} | {line['word']} |")
    return lines


def draw(study: Study, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Both primaries of every arm and seed; quality against cycles; similarity of the cycles' states."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 8), layout="constrained")
    panels = figure.subplots(2, 4, width_ratios=[4, 4, 3, 3])
    full = Path(study.corpora[0]).name
    for row, primary in enumerate(PRIMARIES):
        scale = 1.0 if primary == "probe_f1" else 1e3
        label = "macro-F1 of types by neighbours" if primary == "probe_f1" else "excess, millinats a question"
        axes = panels[row, 0]
        for place, arm in enumerate(reversed(study.arms)):
            for corpus, colour in zip(study.corpora, ("C0", "C1"), strict=False):
                values = list(_by_seed(records, Path(corpus).name, arm.name, primary).values())
                axes.plot(scale * np.array(values), [place] * len(values), "o", color=colour, alpha=0.6)
        axes.set_yticks(range(len(study.arms)), [arm.name for arm in reversed(study.arms)])
        axes.set_xlabel(label)
        axes = panels[row, 1]
        for corpus, colour in zip(study.corpora, ("C0", "C1"), strict=False):
            curves = [_by_seed(records, Path(corpus).name, f"recursive@{c}", primary) for c in study.read_at]
            for seed in study.seeds:
                axes.plot(
                    study.read_at,
                    [scale * curve.get(seed, math.nan) for curve in curves],
                    "-o",
                    color=colour,
                    alpha=0.6,
                )
        axes.set_xscale("log", base=2)
        axes.set_xticks(study.read_at, [str(cycles) for cycles in study.read_at])
        axes.set_title("recursive", fontsize=10)
        axes.set_xlabel("cycles it is read at (trained at 4)")
        axes.set_ylabel(label)
    for axes, name in zip(panels[:, 2:].flat, ("recursive", "small-input", "untied", ""), strict=True):
        axes.set_axis_off()
        tables = [
            record["values"]["similarity"]
            for record in records
            if record["status"] == "done" and (record["settings"]["arm"], record["settings"]["corpus"]) == (name, full)
        ]
        if tables:
            mean = np.mean(tables, axis=0)
            axes.imshow(mean, vmin=0, vmax=1, cmap="viridis")
            for (i, j), value in np.ndenumerate(mean):
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
            axes.set_title(f"{name}: CKA of CLS\nafter 2, 4, 6, 8 blocks", fontsize=10)
    for corpus, colour in zip(study.corpora, ("C0", "C1"), strict=False):
        panels[0, 0].plot([], [], "o", color=colour, label=Path(corpus).name)
    panels[0, 0].legend(loc="best", fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Do the runs that are left, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("common", nargs="*", metavar="key=value", help="settings of every run")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--corpora", type=Path, default=Path(), help="folder that the corpora lie in (here)")
    parser.add_argument("--report", action="store_true", help="no runs, only the report")
    args = parser.parse_intermixed_args()
    study = read_config(Study, args.study)
    study = replace(study, corpora=tuple(str(args.corpora / corpus) for corpus in study.corpora))
    runs = rows_of(study, args.study.parent / study.base, args.common)
    by_name = {row.name: config for row, config in runs}

    def train(row: Row, place: Path) -> dict[str, Any]:
        config = by_name[row.name]
        if not (place / "run" / config.name / "config.json").is_file():
            pretrain(config, out=place / "run")
        return measure(config, place / "run", study.read_at)

    if not args.report:
        run_rows(args.output, [row for row, _ in runs], train)
    report(study, args.output)
    print(args.output / "table.md")


if __name__ == "__main__":
    main()
