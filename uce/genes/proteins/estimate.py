"""What embedding a proteome takes: time, memory and disk, from one layer of the model measured on this machine.

The weights are not needed: a layer of random numbers takes as long as one of the model, and the layers are alike.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uce.devices import (
    ProteinPrecision,
    arithmetic,
    memory_bytes,
    pick_device,
    pick_protein_precision,
    rank_and_world,
)
from uce.genes.proteins.esm2 import LongProteins, piece_spans, token_batches
from uce.genes.proteins.kept import kept_bytes
from uce.genes.proteins.run import protein_batches
from uce.genes.proteins.weights import (
    Architecture,
    encoder_name,
    find_weights,
    known_encoders,
    local_weights,
    read_weights,
)

if TYPE_CHECKING:
    import torch

_SAMPLE_SECONDS = 20.0
_QUANTILES = (0.1, 0.4, 0.7, 1.0)
_REPEATS = 2
_SAMPLE_TOKENS = 16_384  # cost is linear in rows: enough of them to measure, too few to fill the memory
_LIBRARIES_GB = 0.6  # Python and torch themselves

Measure = Callable[[int, int], float]


@dataclass(frozen=True)
class Estimate:
    """What a run takes. `str()` of it is what `--dry-run` prints."""

    encoder: str
    architecture: Architecture
    device: str
    precision: ProteinPrecision
    processes: int
    proteins: int
    """Different sequences; equal ones are embedded once."""
    residues: int
    longest: int
    hours: float
    memory_gb: float
    """Of each process, on the device."""
    machine_gb: float
    """What the device has: a graphics processor's free memory, or all memory of the machine."""
    download_gb: float
    """Of the weights, 0 where they are on this machine."""
    run_gb: float
    """What the folder of finished proteins takes until the table is written."""
    table_gb: float

    @property
    def fits(self) -> bool:
        """Whether the memory seems to be enough."""
        return self.memory_gb <= self.machine_gb

    def __str__(self) -> str:
        size = f"{self.architecture.layers} layers, {self.architecture.dim:,} wide"
        shared = f" on each of {self.processes} processes like this one" if self.processes > 1 else ""
        ways = "a smaller ESM2 or a larger machine"
        ways = f"--precision bf16, {ways}" if self.precision == "fp32" else ways
        verdict = "" if self.fits else f": too little. Use {ways}"
        fetched = f"{_size(self.download_gb)} to download, " if self.download_gb else ""
        return "\n".join(
            (
                f"{self.encoder} ({size}) in {self.precision} on {self.device}. "
                "An estimate from a sample measured on this machine:",
                f"  proteins  {self.proteins:,} different ones, {self.residues:,} residues, "
                f"the longest {self.longest:,}",
                f"  time      about {_duration(self.hours)}{shared}",
                f"  memory    about {_size(self.memory_gb)}; there are {_size(self.machine_gb)}{verdict}",
                f"  disk      {fetched}{_size(self.run_gb)} while it runs, {_size(self.table_gb)} for the gene table",
            )
        )


def estimate(
    encoder: str,
    lengths: Sequence[int],
    *,
    device: str = "cpu",
    precision: str = "fp32",
    batch_tokens: int = 4096,
    long_proteins: LongProteins = "truncate",
    genes: int | None = None,
) -> Estimate:
    """Estimate a run of `embed_proteome`; the weights need not be there.

    One transformer layer of the model's width is timed on a few of the run's own batches for some 20 seconds, and
    seconds = a tokens + b tokens length is fitted (matrices cost by the token, attention also by the length), added up
    over all batches and multiplied by the layers.

    Parameters
    ----------
    encoder
        Name of a published ESM2, or the path of a weights file.
    lengths
        Residues of each different protein.
    device, precision
        As in `load_esm2`.
    genes
        Rows of the table; as many as proteins where not given.

    Raises
    ------
    ModelError
        The encoder is neither known nor a weights file.
    UsageError
        The device or precision is not to be had.
    """
    place = pick_device(device)
    kind = pick_protein_precision(precision, place)
    name, architecture, download = _find(encoder)
    shapes = _shapes(lengths, batch_tokens, long_proteins)
    processes = rank_and_world()[1]
    seconds = 0.0
    if len(shapes):
        rates = fit_rates(shapes, layer_timer(architecture, place, kind))
        seconds = architecture.layers * float(_terms(shapes).sum(axis=0) @ rates) / processes
    return Estimate(
        encoder=name,
        architecture=architecture,
        device=str(place),
        precision=kind,
        processes=processes,
        proteins=len(lengths),
        residues=sum(lengths),
        longest=max(lengths, default=0),
        hours=seconds / 3600,
        memory_gb=needed_bytes(architecture, shapes, kind) / 1e9 + _LIBRARIES_GB,
        machine_gb=memory_bytes(place) / 1e9,
        download_gb=download / 1e9,
        run_gb=kept_bytes(len(lengths), architecture.dim) / 1e9,
        table_gb=4 * architecture.dim * (genes or len(lengths)) / 1e9,
    )


def _find(encoder: str) -> tuple[str, Architecture, int]:
    """Name and size of the model, and the bytes to fetch."""
    known = known_encoders().get(encoder)
    if known and local_weights(encoder) is None:
        return encoder, known.architecture, known.about
    path = find_weights(encoder)
    return encoder_name(path), read_weights(path)[1], 0


def _shapes(lengths: Sequence[int], batch_tokens: int, long_proteins: LongProteins) -> NDArray[np.int64]:
    """(calls, 2) rows and tokens per row of every call of the model, as `embed_sequences` makes them."""
    shapes = []
    for batch in protein_batches(lengths, batch_tokens, long_proteins):
        spans = [span for index in batch for span in piece_spans(lengths[index], long_proteins)]
        tokens = np.array([end - start + 2 for start, end in spans], dtype=np.int64)
        shapes += [(len(rows), tokens[rows].max()) for rows in token_batches(tokens, batch_tokens=batch_tokens)]
    return np.array(shapes, dtype=np.int64).reshape(-1, 2)


def _terms(shapes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(calls, 2) tokens, and tokens times length."""
    tokens = shapes.prod(axis=1)
    return np.stack([tokens, tokens * shapes[:, 1]], axis=1).astype(np.float64)


def fit_rates(
    shapes: NDArray[np.int64], measure: Measure, *, budget_seconds: float = _SAMPLE_SECONDS
) -> NDArray[np.float64]:
    """(2,) seconds of one layer per token, and per token and length, none negative.

    A few of the calls in `shapes` are measured, short ones first, with fewer rows where whole ones would take longer
    than the budget, the longest not at all where even one row would; each counts by its best time.

    Parameters
    ----------
    measure
        Seconds of one layer for (rows, tokens per row).
    """
    from scipy.optimize import nnls

    order = shapes[np.argsort(shapes[:, 1], kind="stable")]
    sample = np.unique(order[[round(q * (len(order) - 1)) for q in _QUANTILES]], axis=0)
    sample = sample[np.argsort(sample[:, 1], kind="stable")]
    shortest = int(sample[0, 1])
    measure(1, shortest)  # warms caches, clocks and memory up
    per_token = measure(1, shortest) / shortest
    share = budget_seconds / len(sample) / _REPEATS
    measured: list[tuple[int, int]] = []
    seconds: list[float] = []
    for most, length in sample.tolist():
        if len(seconds) >= 2 and _REPEATS * (sum(seconds) + per_token * length) > budget_seconds:
            break  # so slow a machine that the long ones are reckoned from the short ones
        rows = max(1, min(most, _SAMPLE_TOKENS // length, int(share / (per_token * length))))
        measured.append((rows, length))
        seconds.append(min(measure(rows, length) for _ in range(_REPEATS)))
    times = np.array(seconds)[:, None]
    rates, _ = nnls(_terms(np.array(measured)) / times, np.ones(len(times)))  # relative errors count alike
    return np.asarray(rates, dtype=np.float64)


def layer_timer(architecture: Architecture, device: "torch.device", precision: ProteinPrecision) -> Measure:
    """A function (rows, tokens per row) -> seconds of one layer of random weights."""
    import torch
    from esm.modules import TransformerLayer

    dim = architecture.dim
    with torch.device("meta"):
        layer = TransformerLayer(
            dim, 4 * dim, architecture.heads, add_bias_kv=False, use_esm1b_layer_norm=True, use_rotary_embeddings=True
        )
    layer = layer.to_empty(device=device).eval().requires_grad_(False)
    for values in (*layer.parameters(), *layer.buffers()):
        values.uniform_(-0.02, 0.02)
    for part in layer.modules():
        if isinstance(part, torch.nn.Linear) and precision != "fp32":
            part.to(torch.bfloat16 if precision == "bf16" else torch.float16)

    def measure(rows: int, length: int) -> float:
        hidden = torch.randn(length, rows, dim, device=device)
        with torch.inference_mode(), arithmetic(device, precision):
            _synchronize(device)
            begin = time.perf_counter()
            layer(hidden)
            _synchronize(device)
        return time.perf_counter() - begin

    return measure


def _synchronize(device: "torch.device") -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def needed_bytes(architecture: Architecture, shapes: NDArray[np.int64], precision: ProteinPrecision) -> float:
    """Weights and the largest call: fair-esm holds scores of every head twice, and the wide hidden layer four times."""
    weights = architecture.linear_parameters * (4 if precision == "fp32" else 2) + architecture.other_parameters * 4
    if not len(shapes):
        return weights
    tokens, by_length = _terms(shapes).T
    scores = 2 * 4 * architecture.heads * by_length
    hidden = 4 * (4 * 4 + 4) * architecture.dim * tokens
    return float(weights + (scores + hidden).max())


def _size(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{max(1, round(gigabytes * 1000))} MB"


def _duration(hours: float) -> str:
    if hours >= 48:
        return f"{hours:,.0f} hours ({hours / 24:,.0f} days)"
    if hours >= 1:
        return f"{hours:.1f} hours"
    minutes = max(1, round(hours * 60))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"
