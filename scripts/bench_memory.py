"""Peak memory of `uce embed` on simulated cells, at two sizes side by side: it must not grow with the cells.

A gzip `.h5ad` of each size is simulated in pieces, then embedded by a process of its own with a tiny untrained model
(one layer, 32 wide, 64 tokens), so that what is measured is everything around the encoder.

example: python scripts/bench_memory.py --cells 20000 200000
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from anndata.io import write_elem

from uce.cells.sentences import SentenceRule
from uce.genes.collection import load_gene_table
from uce.model.checkpoint import save_model
from uce.model.encoder import Encoder, ModelConfig

GENES_PER_CELL = 1000


def simulate(path: Path, cells: int) -> None:
    """Write `cells` simulated human cells (20,000 genes, 1,000 of them counted in each) as gzip CSR, in pieces."""
    table = load_gene_table("human")
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        write_elem(file, "obs", pd.DataFrame(index=pd.Index([f"cell{i}" for i in range(cells)])))
        write_elem(file, "var", pd.DataFrame(index=pd.Index(table.ids)))
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = [cells, len(table)]
        size = cells * GENES_PER_CELL
        options = {"compression": "gzip", "compression_opts": 1, "chunks": (262_144,)}
        data = group.create_dataset("data", (size,), np.float32, **options)
        indices = group.create_dataset("indices", (size,), np.int32, **options)
        group.create_dataset("indptr", data=np.arange(0, size + 1, GENES_PER_CELL, dtype=np.int64))
        for start in range(0, cells, 2048):
            rows = min(2048, cells - start)
            jumps = rng.integers(1, 2 * len(table) // GENES_PER_CELL, size=(rows, GENES_PER_CELL))
            columns = np.minimum(np.cumsum(jumps, axis=1) - 1, len(table) - GENES_PER_CELL + np.arange(GENES_PER_CELL))
            span = slice(start * GENES_PER_CELL, (start + rows) * GENES_PER_CELL)
            indices[span] = columns.astype(np.int32).ravel()
            data[span] = rng.geometric(0.4, size=rows * GENES_PER_CELL).astype(np.float32)


def make_model(folder: Path) -> Path:
    """A tiny untrained model that reads the bundled gene vectors."""
    width = load_gene_table("human").dim
    config = ModelConfig(layers=1, dim=32, heads=2, hidden=64, protein_dim=width, out_dim=32, decoder_dim=32)
    torch.manual_seed(0)
    return save_model(
        folder / "tiny",
        encoder=Encoder(config),
        rule=SentenceRule(draws=64, max_tokens=160),
        specials=np.random.default_rng(0).standard_normal((4, width)).astype(np.float32),
        gene_encoder="orthogroups-v1",
        gene_tables=[],
        info={},
    )


def measure(source: Path, model: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of embedding `source` in a process of its own."""
    output = source.with_suffix(".out.h5ad")
    words = ["embed", str(source), "-o", str(output), "--model", str(model), "--species", "human"]
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "uce", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"uce embed failed with {os.waitstatus_to_exitcode(status)}")
    output.unlink()
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main() -> int:
    """Print a line per size and the difference of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[20_000, 200_000])
    args = parser.parse_args()
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder)
        for cells in args.cells:
            source = folder / f"{cells}.h5ad"
            simulate(source, cells)
            seconds, peak = measure(source, model)
            peaks.append(peak)
            size = source.stat().st_size / 1e6
            rate = cells / seconds
            print(f"{cells:,} cells, {size:,.0f} MB: {seconds:.1f} s, {rate:,.0f} cells/s, {peak:,.0f} MB peak")
            source.unlink()
    print(f"difference of the peaks: {peaks[-1] - peaks[0]:+,.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
