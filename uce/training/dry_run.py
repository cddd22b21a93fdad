"""What a training run takes, before it begins: cells, work, memory of each device, time. Nothing is written."""

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from uce.devices import memory_bytes, pick_device
from uce.errors import UsageError
from uce.files import printable, shorten
from uce.progress import duration_text, size_text
from uce.training.batch import Batch, to_tensors, token_tables
from uce.training.corpus import Corpus, open_corpus
from uce.training.costs import check_width, peak_flops, sample_batches, work
from uce.training.counting import Parameters, parameters
from uce.training.memory import Memory, memory, with_states
from uce.training.optimizer import build_optimizer
from uce.training.stream import Stream
from uce.training.trainee import Trainee

if TYPE_CHECKING:
    from uce.training.settings import PretrainConfig

_DEVICES = (1, 8, 16)
_ASSUMED_FLOPS = 0.4 * 989e12  # 40 % of an H100's dense peak in bfloat16
_MOST_SECONDS = 20.0
_LEAST_SHARE = 0.2  # of its peak that a device surely reaches
_MOST_ROWS = 20


@dataclass(frozen=True)
class Passes:
    """How often a run shows a dataset: `share` of all cells shown are its, each of its cells comes `passes` times."""

    name: str
    species: str
    cells: int
    share: float
    passes: float


@dataclass(frozen=True)
class DryRun:
    """What a run takes. `str()` of it is what `--dry-run` prints.

    Attributes
    ----------
    cells_shown
        In all steps.
    window_bytes, cache_bytes
        Memory that a window of every dataset needs, in each process, and what `run.cache_gb` allows.
    tokens_per_cell, forward_flops, training_flops
        Of a cell: means of some parts of the run, without padding. Training is three times forward.
    memory
        Of each of `devices` GPUs, by sharding ("ddp", "fsdp") and by what is kept ("kept", "recompute").
    cells_per_second
        What this machine's `device` did in a few real updates on parts from all over the run, made before; None
        where that would have taken too long.
    """

    name: str
    corpus: str
    gene_encoder: str
    datasets: tuple[Passes, ...]
    parameters: Parameters
    steps: int
    cells_shown: int
    devices: int
    window_bytes: int
    cache_bytes: int
    tokens_per_cell: float
    forward_flops: float
    training_flops: float
    memory: dict[str, dict[str, Memory]]
    device: str
    cells_per_second: float | None

    @property
    def cells(self) -> int:
        """Of the corpus."""
        return sum(dataset.cells for dataset in self.datasets)

    def hours(self, cells: int, devices: int) -> float:
        """Hours to show so many cells on so many H100 GPUs of which 40 % of the peak are reached."""
        return cells * self.training_flops / (_ASSUMED_FLOPS * devices) / 3600

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        devices = sorted({*_DEVICES, self.devices})
        hours = {str(n): {"run": self.hours(self.cells_shown, n), "pass": self.hours(self.cells, n)} for n in devices}
        totals = {
            sharding: {kept: {**asdict(bytes_), "total": bytes_.total} for kept, bytes_ in kinds.items()}
            for sharding, kinds in self.memory.items()
        }
        return {**asdict(self), "cells": self.cells, "memory": totals, "hours": hours}

    def __str__(self) -> str:
        return "\n".join([*self._corpus_lines(), *self._model_lines(), *self._memory_lines(), *self._time_lines()])

    def _corpus_lines(self) -> list[str]:
        species = sorted({dataset.species for dataset in self.datasets})
        often = sorted(self.datasets, key=lambda dataset: -dataset.passes)
        width = max(len(dataset.name) for dataset in often[:_MOST_ROWS])
        lines = [
            f"{self.name}: {self.steps:,} updates, {self.cells_shown:,} cells shown. An estimate:",
            f"  corpus      {printable(self.corpus, limit=200)}: {self.cells:,} cells of {len(species)} species "
            f"({shorten(species)}), gene vectors {self.gene_encoder}",
            f"  datasets    {len(often):,}, the most repeated first",
        ]
        lines += [
            f"              {one.name:<{width}}  {one.species}, {one.cells:,} cells: {one.share:.1%} of the run, "
            f"each cell {one.passes:,.2f} times"
            for one in often[:_MOST_ROWS]
        ]
        if len(often) > _MOST_ROWS:
            lines.append(f"              and {len(often) - _MOST_ROWS:,} more")
        short = (
            "" if self.window_bytes <= self.cache_bytes else ": raise run.cache_gb, or windows are read again and again"
        )
        windows, cache = size_text(self.window_bytes), size_text(self.cache_bytes)
        return [
            *lines,
            f"  reading     a window of every dataset is {windows} of each process, of {cache} it may keep{short}",
        ]

    def _model_lines(self) -> list[str]:
        size = self.parameters
        return [
            f"  parameters  {size.learned:,} learned: encoder {size.encoder:,}, objective {size.objective:,}",
            f"  sentences   {self.tokens_per_cell:,.0f} tokens a cell",
            f"  work        {_flops(self.forward_flops)} a cell forward, {_flops(self.training_flops)} in training",
        ]

    def _memory_lines(self) -> list[str]:
        lines = [f"  memory      of each GPU of {self.devices:,}"]
        for sharding, kinds in self.memory.items():
            for kept, needed in kinds.items():
                how = f"run.sharding={sharding}" + (" run.recompute=true" if kept == "recompute" else "")
                lines.append(
                    f"              {size_text(needed.total):>8}  {how}: {size_text(needed.standing)} standing, "
                    f"{size_text(needed.activations + needed.batch)} for the cells at hand"
                )
        return lines

    def _time_lines(self) -> list[str]:
        lines = ["  time        for the run, and for one pass of the corpus, at 40 % of an H100's 989 TFLOP/s"]
        for n in sorted({*_DEVICES, self.devices}):
            run, once = (duration_text(self.hours(cells, n)) for cells in (self.cells_shown, self.cells))
            lines.append(f"              {n:>4} GPU{'s' if n > 1 else ' '}  {run}; {once}")
        if self.cells_per_second:
            here = duration_text(self.cells_shown / self.cells_per_second / 3600)
            lines.append(f"  here        {self.cells_per_second:,.1f} cells/s on one {self.device}, measured: {here}")
        return lines


def _flops(count: float) -> str:
    return f"{count / 1e12:,.2f} TFLOP" if count >= 1e12 else f"{count / 1e9:,.3g} GFLOP"


def dry_run(config: "PretrainConfig", *, devices: int = 1) -> DryRun:
    """Count what a run takes, on so many GPUs.

    Raises
    ------
    UsageError
        The cells of a part cannot be shared among so many devices, or vectors are of another width than the model's.
    InputError, ModelError
        The corpus cannot be opened, see `open_corpus`.
    """
    if devices < 1 or config.part_size % devices:
        msg = f"--devices {devices}: batch_size / accumulate = {config.part_size} is not a multiple of it."
        raise UsageError(msg)
    corpus = open_corpus(config.data)
    check_width(config, corpus)
    batches = sample_batches(config, corpus, world=devices)
    done = work(config, corpus, batches, world=devices)
    device, stream = pick_device("auto"), Stream(corpus, config)
    needed = _memory(config, corpus, batches, world=devices)
    seconds = _seconds(config, corpus, batches, device, flops=done.training_flops)
    return DryRun(
        name=config.name,
        corpus=config.data.corpus,
        gene_encoder=corpus.gene_encoder,
        datasets=_passes(config, stream),
        window_bytes=stream.window_bytes(),
        cache_bytes=int(config.run.cache_gb * 1e9),
        parameters=parameters(config),
        steps=config.steps,
        cells_shown=config.steps * config.batch_size,
        devices=devices,
        tokens_per_cell=done.tokens / done.cells,
        forward_flops=done.flops / done.cells,
        training_flops=done.training_flops / done.cells,
        memory=needed,
        device=device.type,
        cells_per_second=done.cells / seconds if seconds else None,
    )


def _passes(config: "PretrainConfig", stream: Stream) -> tuple[Passes, ...]:
    parts = config.parts
    turns = stream.schedule.turns(parts)
    return tuple(
        Passes(one.name, one.species, one.n_cells, turn / parts, turn * config.part_size / one.n_cells)
        for one, turn in zip(stream.corpus.datasets, turns.tolist(), strict=True)
    )


def _memory(
    config: "PretrainConfig", corpus: Corpus, batches: list[Batch], *, world: int
) -> dict[str, dict[str, Memory]]:
    found: dict[str, dict[str, Memory]] = {"ddp": {}, "fsdp": {}} if world > 1 else {"ddp": {}}
    for kept, again in (("kept", False), ("recompute", True)):
        changed = replace(config, run=replace(config.run, sharding="ddp", recompute=again))
        found["ddp"][kept] = needed = memory(changed, corpus, batches, kind="cuda", world=world)
        if world > 1:
            shared = replace(changed, run=replace(changed.run, sharding="fsdp"))
            passes = needed.batch, needed.activations  # the same, whoever holds the weights
            found["fsdp"][kept] = with_states(shared, corpus, *passes, world=world)
    return found


def _seconds(
    config: "PretrainConfig", corpus: Corpus, batches: list[Batch], device: torch.device, *, flops: float
) -> float | None:
    """Of a real update with each of these batches on this device; None where they take too long or too much memory."""
    peak = peak_flops(device, config.precision)
    if peak is None or 2 * flops / (_LEAST_SHARE * peak) > _MOST_SECONDS:
        return None
    if memory(config, corpus, batches, kind=device.type, world=1).total > memory_bytes(device):
        return None
    trainee = Trainee(config).to(device)
    trainee.encoder.recompute = config.run.recompute
    optimizer = build_optimizer(trainee, config.optimizer)
    tables = token_tables([corpus], device)
    spent = 0.0
    for batch in batches:
        tensors = to_tensors(batch, tables, device)
        for _ in range(2):  # the first one also warms up memory, caches and kernels
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                sums = trainee(tensors)
            loss = trainee.objective.loss(sums, tensors)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for the device
            seconds = time.perf_counter() - began
        spent += seconds
    return spent
