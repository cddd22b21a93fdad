"""Is a corpus what was written? Every file against its hash, every store against its sums."""

from dataclasses import dataclass
from pathlib import Path

from uce.corpus.layout import changed_tables, read_index
from uce.corpus.store import RECORD, UNFINISHED, verify_store
from uce.errors import InputError
from uce.files import sha256_file
from uce.progress import Progress


@dataclass(frozen=True)
class CorpusVerdict:
    """The verdict on a corpus.

    Attributes
    ----------
    datasets, cells
        How many it has by its index.
    problems
        All that is wrong with it, a line each.
    notes
        What is there and does no harm.
    """

    folder: Path
    datasets: int = 0
    cells: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the corpus can be trained on."""
        return not self.problems

    def __str__(self) -> str:
        word = "sound" if self.ok else "NOT sound. Give the build command again: it mends what is damaged"
        lines = [f"{self.folder}: {self.datasets:,} datasets, {self.cells:,} cells: {word}"]
        lines += [f"  problem: {problem}" for problem in self.problems]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def verify_corpus(folder: str | Path, *, quiet: bool = True) -> CorpusVerdict:
    """Read a corpus again from end to end. Nothing is changed, and a damaged one is a verdict, not an exception."""
    folder = Path(folder)
    left = [f"{path}: left by a killed writer" for path in sorted((folder / "data").glob(f"*{UNFINISHED}"))]
    try:
        index = read_index(folder)
    except InputError as error:
        return CorpusVerdict(folder, problems=(str(error), *left))
    problems = [*changed_tables(index), *_changed_files(folder, dict(index.content["files"])), *left]
    with Progress("verifying", len(index.stores), unit="datasets", quiet=quiet) as progress:
        for name, expected in index.stores.items():
            problems += _store_problems(folder / "data" / name, expected)
            progress.advance(1)
    unlisted = sorted(_stores(folder) - set(index.stores))
    notes = [f"{folder / 'data' / name}: of no dataset of the manifest; delete it for its space" for name in unlisted]
    totals = index.content["totals"]
    return CorpusVerdict(folder, totals["datasets"], totals["cells"], tuple(problems), tuple(notes))


def _stores(folder: Path) -> set[str]:
    return {path.name for path in (folder / "data").iterdir() if path.is_dir() and not path.name.endswith(UNFINISHED)}


def _changed_files(folder: Path, expected: dict[str, str]) -> list[str]:
    problems = []
    for name, hashed in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: missing")
        elif sha256_file(path) != hashed:
            problems.append(f"{path}: changed since it was written (SHA-256)")
    return problems


def _store_problems(store: Path, expected: str) -> list[str]:
    record = store / RECORD
    if record.is_file() and sha256_file(record) != expected:
        return [f"{record}: changed since the corpus was written (SHA-256)"]
    return verify_store(store)
