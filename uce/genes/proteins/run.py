"""Embedding a proteome: equal sequences once, every finished protein kept, the work shared by several processes.

A folder holds `plan.json` (what decides the numbers) and one database per process. Vectors are kept by the hash of
their sequence, so a killed run goes on where it was, and one with other isoforms or batches finds what it shares.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uce.devices import rank_and_world
from uce.errors import OutputExistsError, StorageError
from uce.files import check_writable, printable, write_json
from uce.genes.proteins.esm2 import LongProteins, ProteinEncoder, embed_sequences, piece_spans, token_batches
from uce.genes.proteins.kept import Kept, finished, kept_bytes
from uce.locks import lock
from uce.progress import Progress

_LOOK_SECONDS = 2.0  # how often the first process looks what the others have finished


def embed_proteome(
    encoder: ProteinEncoder,
    sequences: Sequence[str],
    folder: str | Path,
    *,
    batch_tokens: int = 4096,
    long_proteins: LongProteins = "truncate",
    quiet: bool = False,
    patience: float = 3600.0,
) -> NDArray[np.float32] | None:
    """`embed_sequences`, kept in `folder` as it goes, by every process that a launcher started.

    The batches depend on the sequences and `batch_tokens` alone, and one that is begun is computed whole: a run that
    was killed, at any number of processes, ends in the bytes of one that was not. The longest proteins come first, so
    that a machine they are too much for shows it at once.

    Parameters
    ----------
    sequences
        Clean residues, see `embed_sequences`.
    folder
        Created where missing. Delete it by `remove` when the vectors are safe elsewhere.
    quiet
        Show no progress. Only the first process shows any.
    patience
        Seconds the first process waits for another to finish a batch.

    Returns
    -------
    NDArray or None
        (sequences, dim) in the order given; None in all processes but the first.

    Raises
    ------
    OutputExistsError
        `folder` holds vectors of another encoder or by other settings.
    StorageError
        No space or permission, another process at work in `folder`, or one that did not finish its share.
    InputError, ModelError
        As `embed_sequences`.
    """
    folder = Path(folder)
    rank, world = rank_and_world()
    distinct = {_key(text): text for text in sorted(set(sequences), key=lambda text: (-len(text), text))}
    _agree(folder, encoder, long_proteins)
    with lock(folder / f"rank-{rank:04d}.lock", wait=False), Kept(folder, rank) as kept:
        done = {key for key, _ in finished(folder, encoder.dim, quiet=rank > 0)}
        check_writable(folder, needed_bytes=kept_bytes(len(distinct.keys() - done), encoder.dim))
        lengths = {key: len(text) for key, text in distinct.items()}
        missing = _Missing(lengths, done, quiet=quiet or rank > 0)
        with missing.bar:
            for batch in _own_batches(lengths, batch_tokens, long_proteins):
                if done.issuperset(batch):
                    continue
                texts = [distinct[key] for key in batch]
                kept.write(
                    batch, embed_sequences(encoder, texts, batch_tokens=batch_tokens, long_proteins=long_proteins)
                )
                missing.add(batch)
                if world > 1 and rank == 0:
                    missing.look(folder, encoder.dim)
            if rank:
                return None
            missing.wait(folder, encoder.dim, patience)
    return _gather(folder, [_key(text) for text in sequences], encoder.dim)


def _key(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _own_batches(lengths: Mapping[bytes, int], batch_tokens: int, long_proteins: LongProteins) -> list[list[bytes]]:
    """The batches of this process: every `world`-th, whatever is finished already, so that all agree without a word."""
    rank, world = rank_and_world()
    keys = list(lengths)
    batches = protein_batches(list(lengths.values()), batch_tokens, long_proteins)
    return [[keys[index] for index in batch] for batch in batches[rank::world]]


def protein_batches(lengths: Sequence[int], batch_tokens: int, long_proteins: LongProteins) -> list[NDArray[np.int64]]:
    """Indices of the proteins that are computed together, the longest first.

    Parameters
    ----------
    lengths
        Residues of each protein.
    """
    tokens = [sum(end - start + 2 for start, end in piece_spans(length, long_proteins)) for length in lengths]
    return token_batches(np.array(tokens, dtype=np.int64), batch_tokens=batch_tokens)[::-1]


def remove(folder: str | Path) -> None:
    """Delete what `embed_proteome` wrote in `folder`, and the folder itself where nothing else is in it."""
    folder = Path(folder)
    if not folder.is_dir():
        return
    for pattern in ("rank-[0-9]*.sqlite*", "rank-[0-9]*.lock*", "plan.json", ".plan.json.tmp-*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _agree(folder: Path, encoder: ProteinEncoder, long_proteins: LongProteins) -> None:
    """Record what decides the numbers in `folder`, or compare with what is recorded. Every process does it alike."""
    plan = {
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "long_proteins": long_proteins,
        "precision": encoder.precision,
    }
    path = folder / "plan.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: cannot be made ({error.strerror}). Choose another place."
        raise StorageError(msg) from error
    check_writable(folder)
    if not path.exists():
        write_json(path, plan)
    try:
        recorded = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        msg = f"{path}: not readable. Pass --no-resume to start again."
        raise OutputExistsError(msg) from error
    if key := next((key for key in plan if recorded.get(key) != plan[key]), None):
        old, new = (printable(str(found.get(key)), limit=64) for found in (recorded, plan))
        msg = (
            f"{folder}: holds an unfinished run with {key} {old}, now {new}. "
            "Repeat the old command to finish it, or pass --no-resume to start again."
        )
        raise OutputExistsError(msg)


class _Missing:
    """Which proteins are missing: for the bar (residues, proteins, rate, time left) and for the wait."""

    def __init__(self, lengths: Mapping[bytes, int], done: set[bytes], *, quiet: bool) -> None:
        self._lengths = lengths
        self._missing = set(lengths) - done
        self._looked = time.monotonic()
        self._seen: dict[tuple[str, int], int] = {}
        total = sum(lengths.values())
        self.bar = Progress(
            "embedding",
            total,
            unit="residues",
            quiet=quiet or not self._missing,
            initial=total - sum(lengths[key] for key in self._missing),
            scaled=True,
        )

    def add(self, keys: Iterable[bytes]) -> bool:
        """Count proteins as finished; whether any of them was missing."""
        new = self._missing.intersection(keys)
        self._missing -= new
        finished_proteins = len(self._lengths) - len(self._missing)
        self.bar.note(f"{finished_proteins:,} of {len(self._lengths):,} proteins")
        self.bar.advance(sum(self._lengths[key] for key in new))
        return bool(new)

    def look(self, folder: Path, dim: int) -> bool:
        """Count what the other processes have finished since the last look, if that is long enough ago."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        found = self.add(key for key, _ in finished(folder, dim, seen=self._seen))
        self._looked = time.monotonic()
        return found

    def wait(self, folder: Path, dim: int, patience: float) -> None:
        """Return when nothing is missing.

        Raises
        ------
        StorageError
            Nothing new has come for `patience` seconds.
        """
        last = time.monotonic()
        while self._missing:
            if self.look(folder, dim):
                last = time.monotonic()
            elif time.monotonic() - last > patience:
                msg = f"{folder}: {len(self._missing):,} proteins of other processes did not arrive. Run again."
                raise StorageError(msg)
            else:
                time.sleep(min(0.05, _LOOK_SECONDS))


def _gather(folder: Path, keys: Sequence[bytes], dim: int) -> NDArray[np.float32]:
    """(keys, dim) vectors in the order of `keys`, which may repeat."""
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    vectors = np.full((len(keys), dim), np.nan, dtype=np.float32)
    for key, vector in finished(folder, dim):
        vectors[rows.get(key, [])] = vector
    if lost := int(np.isnan(vectors).any(axis=1).sum()):
        msg = f"{folder}: {lost:,} vectors were damaged while this ran. Run the same command again to compute them."
        raise StorageError(msg)
    return vectors
