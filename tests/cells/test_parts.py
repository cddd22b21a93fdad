"""Finished blocks on disk: complete or absent, and tied to one plan."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from uce.cells.parts import BLOCK_CELLS, Block, Parts, block_ranges
from uce.errors import ModelError, StorageError, UsageError

PLAN = {"seed": 0, "model": "m", "cells": 5}


def block(value: float, cells: int = 3) -> Block:
    whole = np.arange(cells, dtype=np.int64)
    return Block(np.full((cells, 2), value, np.float32), whole, whole * 2.0, whole * 1.0, whole * 0)


@pytest.mark.parametrize("cells", [0, 1, BLOCK_CELLS, BLOCK_CELLS + 1, 5 * BLOCK_CELLS - 1])
def test_blocks_cover_every_row_once(cells: int) -> None:
    rows = [row for start, stop in block_ranges(cells) for row in range(start, stop)]
    assert rows == list(range(cells))


def test_a_block_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "p")
    parts.begin(PLAN)
    parts.write(4, block(1.5))
    assert parts.has(4)
    assert not parts.has(3)
    again = parts.read(4)
    np.testing.assert_array_equal(again.vectors, block(1.5).vectors)
    np.testing.assert_array_equal(again.covered, block(1.5).covered)


def test_the_same_plan_continues_and_counts_what_is_there(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "p")
    assert parts.begin(PLAN) == 0
    parts.write(0, block(0))
    assert Parts(tmp_path / "p").begin(PLAN) == 1


def test_another_plan_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    Parts(tmp_path / "p").begin(PLAN)
    with pytest.raises(UsageError, match=r"unfinished run with seed 0, now 1\. Repeat the old command"):
        Parts(tmp_path / "p").begin({**PLAN, "seed": 1})


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    Parts(tmp_path / "p").begin(PLAN)
    (tmp_path / "p" / "plan.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        Parts(tmp_path / "p").begin(PLAN)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_block_is_never_used(tmp_path: Path, damage: str) -> None:
    parts = Parts(tmp_path / "p")
    parts.begin(PLAN)
    parts.write(0, block(1.0, cells=500))
    path = tmp_path / "p" / "000000.npz"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[1000] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="damaged"):
        parts.read(0)


def test_waiting_ends_when_nothing_arrives(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "p")
    parts.begin(PLAN)
    parts.write(0, block(0))
    with pytest.raises(StorageError, match="block 1 and 1 more did not arrive"):
        parts.wait(3, patience=0.1)


def test_a_rank_joins_only_the_same_plan(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="rank 0 has not begun"):
        Parts(tmp_path / "p").join(PLAN, seconds=0.1)
    Parts(tmp_path / "p").begin(PLAN)
    Parts(tmp_path / "p").join(PLAN, seconds=0.1)
    with pytest.raises(UsageError, match="cells 5, now 6"):
        Parts(tmp_path / "p").join({**PLAN, "cells": 6}, seconds=0.1)


def test_removing_leaves_files_of_others_alone(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "p")
    parts.begin(PLAN)
    parts.write(0, block(0))
    (tmp_path / "p" / "notes.txt").write_text("mine")
    parts.remove()
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["notes.txt"]
    (tmp_path / "p" / "notes.txt").unlink()
    parts.remove()
    assert not (tmp_path / "p").exists()


def test_of_many_who_begin_at_once_one_decides_the_plan(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def begin(seed: int) -> bool:
        together.wait()
        try:
            Parts(tmp_path / "p").begin({**PLAN, "seed": seed})
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(begin, [seed % 4 for seed in range(8)]))
    decided = json.loads((tmp_path / "p" / "plan.json").read_text())["seed"]
    assert accepted == [seed % 4 == decided for seed in range(8)]
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"without a plan\.json"):
        Parts(tmp_path / "p").begin(PLAN)
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "notes.txt"]


def test_a_rank_that_comes_after_the_end_does_not_wait(tmp_path: Path) -> None:
    assert not Parts(tmp_path / "p").join(PLAN, done=lambda: True)
    assert not (tmp_path / "p").exists()
