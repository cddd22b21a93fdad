"""Everything that is judged side by side: our embedding, those in the file, baselines and controls."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from uce.cells.parts import BLOCK_CELLS
from uce.engines import embed_cells
from uce.evaluation.baselines import BASELINES
from uce.evaluation.cells import Cells
from uce.evaluation.controls import CONTROLS
from uce.evaluation.embeddings import Embedding, Floats, Kind
from uce.evaluation.reading import Judged
from uce.evaluation.results import NotPossible, Status
from uce.evaluation.saving import Pieces
from uce.progress import Progress

OWN_TITLE = "zero-shot, by this package"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A row of the report: vectors, or the reason why there are none.

    Attributes
    ----------
    name, kind, title
        As of an embedding.
    embedding
        Of all cells that were read, or None.
    status, note
        `skipped` or `failed`, and why, where there is none.
    copy
        Number of the copy, for what starts from random numbers; None for all else.
    """

    name: str
    kind: Kind
    title: str
    embedding: Embedding | None
    status: Status = "ok"
    note: str = ""
    copy: int | None = None


def gather(
    judged: Judged, baselines: Sequence[str], pieces: Pieces, *, seed: int, copies: int, quiet: bool = False
) -> list[Candidate]:
    """All candidates but the controls, ours first, then the given ones, then the baselines as they were listed."""
    found: list[Candidate] = []
    cells = judged.cells
    if judged.embed and cells.reader is not None:
        name = cells.reader.model.name
        found.append(attempt(name, "own", OWN_TITLE, partial(embed_own, cells, pieces, quiet=quiet)))
    found += [_given(judged, key) for key in judged.given]
    found += [
        Candidate(row_name(key, judged.cells), "given", "in the file", None, "skipped", why)
        for key, why in judged.broken.items()
    ]
    for name in baselines:
        for copy in range(copies) if BASELINES[name].random else [None]:
            make = partial(make_baseline, cells, name, pieces, seed + (copy or 0))
            found.append(replace(attempt(name, "baseline", BASELINES[name].title, make), copy=copy))
    return found


def _given(judged: Judged, key: str) -> Candidate:
    record, reader = judged.record_of(key), judged.cells.reader
    title = f"in the file, by {record['model']}" if "model" in record else "in the file"
    ours = reader is not None and record.get("model_sha256") == reader.model.sha256
    kind: Kind = "own" if ours else "given"
    name = row_name(key, judged.cells)
    return Candidate(name, kind, title, Embedding(name, judged.given[key], kind, title))


def row_name(key: str, cells: Cells) -> str:
    """The key, marked where another row has its name: rows of one name would be taken for copies of one."""
    reader = cells.reader
    taken = {*BASELINES, *CONTROLS, reader.model.name if reader else ""}
    return f"obsm/{key}" if key in taken else key


def attempt(name: str, kind: Kind, title: str, make: Callable[[], Embedding]) -> Candidate:
    """A row of what `make` returns, or of the reason why it cannot or did not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries about their own future; what matters is in the result
            return Candidate(name, kind, title, make())
    except NotPossible as reason:
        return Candidate(name, kind, title, None, "skipped", str(reason))
    except Exception as error:  # a baseline that breaks must not take the others with it
        return Candidate(name, kind, title, None, "failed", f"{type(error).__name__}: {error}")


def embed_own(cells: Cells, pieces: Pieces, *, quiet: bool) -> Embedding:
    """The cells by the model that was made ready for them."""
    reader = cells.need_reader()
    started = time.monotonic()
    vectors = pieces.vectors(f"own {reader.model.sha256}", lambda: np.concatenate(list(_embedded(cells, quiet=quiet))))
    return Embedding(reader.model.name, vectors, "own", OWN_TITLE, seconds=time.monotonic() - started)


def _embedded(cells: Cells, *, quiet: bool) -> Iterator[Floats]:
    reader, counts = cells.need_reader(), cells.need_counts()
    with Progress("embedding", len(cells), unit="cells", quiet=quiet) as progress:
        for start in range(0, len(cells), BLOCK_CELLS):
            block = counts[start : start + BLOCK_CELLS]
            yield embed_cells(block, reader).vectors
            progress.advance(block.shape[0])


def make_baseline(cells: Cells, name: str, pieces: Pieces, seed: int) -> Embedding:
    """A baseline of `BASELINES`, with the way to fit it on a part of the cells."""
    baseline = BASELINES[name]
    started = time.monotonic()

    def made(train: NDArray[np.bool_] | None) -> Floats:
        return np.ascontiguousarray(baseline.embed(cells, train, seed), dtype=np.float32)

    return Embedding(
        name,
        pieces.vectors(f"baseline {name} {seed}", lambda: made(None)),
        "baseline",
        baseline.title,
        transductive=baseline.transductive,
        refit=made if baseline.fitted and not baseline.transductive else None,
        seconds=time.monotonic() - started,
    )
