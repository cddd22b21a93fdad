"""One result from many processes: which blocks are whose, who assembles them, and when a process may leave.

Processes share a folder and nothing else. There is no process group and no message, so any of them may die, differ in
its device, or come later; whoever runs next finds the finished blocks and computes what is missing.
"""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uce.cells.parts import BLOCK_CELLS, Parts, block_ranges
from uce.devices import rank_and_world
from uce.errors import OutputExistsError, StorageError, UsageError
from uce.files import check_writable, printable, refuse_overwrite
from uce.health import Health
from uce.jobs import Job, examine_blocks, fill, make_record, plan_of, refuse_changed, say_notes, thinned
from uce.locks import lock
from uce.outputs import obsm_keys, write_h5ad, write_npy, write_parquet
from uce.progress import say

Fill = Callable[[Job, Parts, range], None]
Finished = tuple[Health, dict[str, Any]]


@dataclass(frozen=True)
class Share:
    """The blocks index, index + of, index + 2 of, ...: a part of the work that needs no agreement with the others."""

    index: int
    of: int

    def blocks(self, count: int) -> range:
        """Numbers of this share's blocks, of `count` in all."""
        return range(self.index, count, self.of)


def read_shard(text: str) -> Share:
    """The share that `i/N` names, counted from 0.

    Raises
    ------
    UsageError
        It is not of this form, or i is not below N.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not found or int(found[1]) >= int(found[2]):
        msg = f"--shard {printable(text)}: must be i/N with whole numbers and 0 <= i < N, such as 0/8 to 7/8."
        raise UsageError(msg)
    return Share(int(found[1]), int(found[2]))


def refuse_contradictions(
    *, shard: Share | None, engine: str, ray_actors: int | None, inplace: bool, resume: bool
) -> None:
    """Refuse two ways of sharing the work at once, and what is not safe while others work on the same file.

    Raises
    ------
    UsageError
        Naming the two options and what to leave out.
    """
    launched = rank_and_world()[1] > 1
    for wrong, msg in (
        (engine not in ("local", "ray"), f"--engine {engine}: not an engine. Use local or ray."),
        (engine == "ray" and launched, "--engine ray: not under a launcher. Give one of the two."),
        (engine == "ray" and shard, "--engine ray and --shard exclude each other: Ray shares the blocks by itself."),
        (
            engine != "ray" and ray_actors is not None,
            "--ray-actors: goes with --engine ray. Leave it out, or add that.",
        ),
        (ray_actors is not None and ray_actors < 1, f"--ray-actors {ray_actors}: must be a whole number from 1."),
        (shard and launched, "--shard: not under a launcher, which gives every rank its share. Leave one of them out."),
        (shard and inplace, "--inplace: not with --shard, where others still read the input. Give an --output."),
        (
            not resume and (shard or launched),
            "--no-resume: not under a launcher or with --shard: others may be ahead. Delete OUTPUT.parts instead.",
        ),
    ):
        if wrong:
            raise UsageError(msg)


@dataclass(frozen=True)
class Target:
    """Where a result goes and in which form.

    Attributes
    ----------
    before
        When what was at `path` had been written (see `written_at`), as this process began.
    """

    path: Path
    source: Path
    file_format: str
    key: str
    overwrite: bool
    before: int | None

    @property
    def parts(self) -> Parts:
        """The folder of finished blocks."""
        return Parts(self.path.with_name(self.path.name + ".parts"))

    @property
    def lock(self) -> Path:
        """What the process that assembles holds."""
        return self.path.with_name(self.path.name + ".lock")

    def refuse_existing(self) -> None:
        """Refuse, before any work, to write over a file or a key that is there.

        Raises
        ------
        OutputExistsError
            Naming it and the way out. Ranks above 0 leave the file to rank 0, which may have written it already.
        """
        if self.path != self.source and rank_and_world()[0] == 0:
            refuse_overwrite(self.path, overwrite=self.overwrite)
        if self.file_format == "h5ad" and not self.overwrite and self.key in obsm_keys(self.source):
            msg = f"{self.source}: obsm[{self.key!r}] exists. Choose another --key-added, or pass --overwrite."
            raise OutputExistsError(msg)

    def is_done(self) -> bool:
        """Whether the result was written after this process began, or needs nothing (rank 0 refuses to overwrite)."""
        now = written_at(self.path)
        return now != self.before or (now is not None and not self.overwrite and self.path != self.source)


def written_at(path: Path) -> int | None:
    """When `path` was last written, in nanoseconds; None where nothing is."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


@dataclass(frozen=True)
class Outcome:
    """What `embed_file` did: where the result is, how it looks, what made it.

    Attributes
    ----------
    health
        None where another process writes the result: on ranks above 0, and for a shard.
    blocks, blocks_there
        Of the whole file: how many there are, and how many were finished when this process left.
    """

    path: Path
    health: Health | None
    record: dict[str, Any]
    cells: int
    blocks: int
    blocks_there: int
    seconds: float = 0.0


def take_part(
    job: Job, target: Target, compute: Fill, shard: Share | None, *, num_workers: int, resume: bool, quiet: bool
) -> Outcome:
    """Do this process's part of a job: the whole, or what its shard or rank is.

    Raises
    ------
    StorageError, UsageError
        No room for the result, or what `lead`, `follow` and `take_shard` raise.
    """
    rank, world = rank_and_world()
    check_writable(target.path.parent, needed_bytes=_bytes_needed(job, target))
    say_notes(job, quiet=quiet or rank > 0)
    finished: Finished | None = None
    if shard is not None:
        finished = take_shard(job, target, shard, num_workers=num_workers, quiet=quiet)
    elif rank > 0:
        follow(job, target, Share(rank, world), num_workers=num_workers)
    else:
        finished = lead(job, target, compute, Share(rank, world), resume=resume, quiet=quiet)
    health, record = finished or (None, {})
    if health is not None:
        say(health, quiet=quiet)
    every = range(len(block_ranges(job.counts.n_cells)))
    missing = target.parts.missing(every) if target.parts.begun() else []  # without the folder all is done
    return Outcome(target.path, health, record, job.counts.n_cells, len(every), len(every) - len(missing))


def _bytes_needed(job: Job, target: Target) -> int:
    """Bytes of the blocks and of the result beside them."""
    cells, width = job.shape
    copied = target.source.stat().st_size if target.source.is_file() else 0
    return cells * width * 4 * 2 + copied


def lead(job: Job, target: Target, compute: Fill, share: Share, *, resume: bool, quiet: bool) -> Finished:
    """Compute a share, wait for the blocks of the others if there are any, and write the result.

    Raises
    ------
    StorageError
        Another process leads this very run, or the blocks of the others did not arrive.
    UsageError
        An unfinished run of another plan is there.
    """
    count = len(block_ranges(job.counts.n_cells))
    parts = target.parts
    with lock(target.lock, wait=False):
        if not resume:
            parts.remove()
        if done := parts.begin(plan_of(job)):
            say(f"resuming: {done} finished blocks of {BLOCK_CELLS} cells are there already", quiet=quiet)
        compute(job, parts, share.blocks(count))
        parts.wait(count)
        return _assemble(job, target)


def follow(job: Job, target: Target, share: Share, *, num_workers: int) -> None:
    """Compute a share for rank 0, which began the run and writes the result."""
    if target.parts.join(plan_of(job), done=target.is_done):
        _help(job, target.parts, share, num_workers=num_workers, quiet=True)


def take_shard(job: Job, target: Target, share: Share, *, num_workers: int, quiet: bool) -> Finished | None:
    """Compute a share and leave, whatever the others do; or write the result, if all blocks were there already.

    Raises
    ------
    UsageError
        The other shards have another plan.
    """
    every = range(len(block_ranges(job.counts.n_cells)))
    parts = target.parts
    parts.begin(plan_of(job))
    if parts.missing(every):
        _help(job, parts, share, num_workers=num_workers, quiet=quiet)
        return None
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(target.lock, wait=False))
        except StorageError:
            say(f"{target.path}: another process is writing it", quiet=quiet)
            return None
        if parts.missing(every):  # it was written, and the blocks removed, just before the lock was ours
            return None
        return _assemble(job, target)


def _help(job: Job, parts: Parts, share: Share, *, num_workers: int, quiet: bool) -> None:
    try:
        fill(job, parts, share.blocks(len(block_ranges(job.counts.n_cells))), num_workers=num_workers, quiet=quiet)
    except StorageError:
        if parts.begun():
            raise
        # Another run has computed these blocks too, written the result and removed the folder: nothing is left to do.


def _assemble(job: Job, target: Target) -> Finished:
    """Judge the finished blocks, write them in order as one result, and remove them."""
    refuse_changed(job)
    cells, parts = job.counts.n_cells, target.parts
    count = len(block_ranges(cells))
    summary = [thinned(block, cells) for block in parts.blocks(count)]
    health = examine_blocks(job, summary)
    record = make_record(job, summary, health)
    vectors = (block.vectors for block in parts.blocks(count))
    if target.file_format == "npy":
        write_npy(target.path, vectors, job.shape, record)
    elif target.file_format == "parquet":
        write_parquet(target.path, vectors, job.counts.obs_names, target.key, record)
    else:
        write_h5ad(
            target.path,
            job.counts,
            vectors,
            source=target.source,
            shape=job.shape,
            key=target.key,
            record=record,
            overwrite_key=target.overwrite,
        )
    parts.remove()
    return health, record
