"""What embedding a file takes, from a small sample of its cells computed on this machine. Nothing is written."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uce.cells.parts import BLOCK_CELLS
from uce.engines import embed_rows, sentence_lengths
from uce.errors import InputError
from uce.files import printable
from uce.jobs import Job, Request
from uce.progress import duration_text, size_text

ATLAS_CELLS = 100_000_000
_DEVICES = (1, 8, 64)
_SAMPLE_SECONDS = 3.0
_NUMBERS_PER_CELL = 4 * 8  # genes, total, covered, left_out beside each vector of a block


@dataclass(frozen=True)
class Estimate:
    """What a run takes. `str()` of it is what `--dry-run` prints.

    Attributes
    ----------
    tokens_per_cell, cells_per_second
        Measured on `sample` cells; the rate with reading them, on one such device.
    parts_bytes, result_bytes
        Disk for the finished blocks, which are removed at the end, and for the result.
    """

    file: str
    cells: int
    dim: int
    device: str
    precision: str
    sample: int
    tokens_per_cell: float
    cells_per_second: float
    parts_bytes: int
    result_bytes: int

    def hours(self, cells: int, devices: int) -> float:
        """Hours for `cells` such cells on `devices` such devices."""
        return cells / self.cells_per_second / devices / 3600

    def to_dict(self) -> dict[str, Any]:
        """The estimate as plain values, for JSON."""
        atlas = {str(devices): self.hours(ATLAS_CELLS, devices) for devices in _DEVICES}
        return {**asdict(self), "hours": self.hours(self.cells, 1), f"hours_for_{ATLAS_CELLS}_cells": atlas}

    def __str__(self) -> str:
        atlas = ", ".join(f"{duration_text(self.hours(ATLAS_CELLS, n))} on {n}" for n in _DEVICES)
        vectors = 4 * self.dim * ATLAS_CELLS
        return "\n".join(
            (
                f"{printable(self.file, limit=200)}: {self.cells:,} cells, {self.precision} on {self.device}. "
                f"An estimate from {self.sample:,} of them, computed here:",
                f"  sentences   {self.tokens_per_cell:,.0f} tokens a cell",
                f"  rate        {self.cells_per_second:,.1f} cells/s",
                f"  time        {duration_text(self.hours(self.cells, 1))} on one such device",
                f"  disk        {size_text(self.result_bytes)} for the result, "
                f"and {size_text(self.parts_bytes)} for finished blocks until it is written",
                f"  10^8 cells  {atlas} such devices; {size_text(vectors)} of vectors",
            )
        )


def estimate(request: Request, *, file_format: str = "h5ad") -> Estimate:
    """Measure a sample of the cells of a request, and reckon time and disk for all of them.

    Parameters
    ----------
    file_format
        Of the result: a `.h5ad` also holds what the input holds.

    Raises
    ------
    UsageError, InputError, ModelError
        The file cannot be embedded as it is, or holds no cells.
    """
    with request.open() as job:
        cells, dim = job.shape
        if not cells:
            msg = f"{request.source}: holds no cells, so there is nothing to estimate."
            raise InputError(msg)
        sample, tokens, seconds = _measure(job)
        vectors = 4 * dim * cells
        return Estimate(
            file=str(request.source),
            cells=cells,
            dim=dim,
            device=job.settings.device.type,
            precision=job.settings.precision,
            sample=sample,
            tokens_per_cell=tokens,
            cells_per_second=sample / seconds,
            parts_bytes=vectors + _NUMBERS_PER_CELL * cells,
            result_bytes=vectors + (_file_bytes(request.source) if file_format == "h5ad" else 0),
        )


def _measure(job: Job) -> tuple[int, float, float]:
    """Cells of the sample, tokens a cell, and seconds for all: more and more cells until they take long enough.

    The samples lie at different places of the file. Those before the last one warm up memory, caches and clocks.
    """
    cells = job.counts.n_cells
    most = min(BLOCK_CELLS, cells)
    size, place = min(8, most), np.random.default_rng(0)
    while True:
        start = int(place.integers(cells - size + 1))
        began = time.perf_counter()
        counts, species = job.counts.read(start, start + size), job.species[start : start + size]
        embed_rows(counts, job.readers, species)
        seconds = time.perf_counter() - began
        if seconds > _SAMPLE_SECONDS or size == most:
            return size, float(sentence_lengths(counts, job.readers, species).mean()), seconds
        size = min(2 * size, most)


def _file_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
