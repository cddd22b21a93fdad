"""A proteome is embedded through kills, damage, changed plans and several processes, to the bytes of one quiet run."""

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uce.errors import ModelError, OutputExistsError, StorageError
from uce.genes.proteins import kept, run
from uce.genes.proteins.esm2 import ProteinEncoder, embed_sequences, load_esm2
from uce.genes.proteins.kept import finished
from uce.genes.proteins.run import embed_proteome, protein_batches, remove

SCRIPT = Path(__file__).parents[3] / "scripts" / "random_esm2.py"
RANDOM = np.random.default_rng(0)
LETTERS = sorted("ACDEFGHIKLMNPQRSTVWYX")
SEQUENCES = ["".join(RANDOM.choice(LETTERS, n)) for n in RANDOM.integers(5, 300, size=60)]
SEQUENCES += [SEQUENCES[3], SEQUENCES[3], "M", "".join(RANDOM.choice(LETTERS, 1500))]
DISTINCT = len(set(SEQUENCES))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("random_esm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    path = tmp_path_factory.mktemp("esm2") / "esm2_t2_tiny.pt"
    torch.save(script.random_esm2(2, 32, 4, seed=5), path)
    return path


@pytest.fixture(scope="module")
def encoder(weights: Path) -> ProteinEncoder:
    return load_esm2(weights)


@pytest.fixture
def embed(encoder: ProteinEncoder, tmp_path: Path) -> Callable[..., np.ndarray | None]:
    """Embed all sequences in one folder, in small batches."""

    def embed(sequences: list[str] = SEQUENCES, **options: object) -> np.ndarray | None:
        given = {"batch_tokens": 700, "quiet": True, "encoder": encoder, **options}
        return embed_proteome(given.pop("encoder"), sequences, tmp_path / "run", **given)  # type: ignore[arg-type]

    return embed


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sequences that were embedded."""
    texts: list[str] = []

    def counted(encoder: ProteinEncoder, sequences: list[str], **options: object) -> np.ndarray:
        texts.extend(sequences)
        return embed_sequences(encoder, sequences, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "embed_sequences", counted)
    return texts


def database(folder: Path, rank: int = 0) -> sqlite3.Connection:
    return sqlite3.connect(folder / f"rank-{rank:04d}.sqlite", isolation_level=None)


@pytest.mark.parametrize("way", ["truncate", "window"])
def test_vectors_are_those_of_each_sequence_and_equal_ones_are_embedded_once(
    way: str, embed: Callable[..., np.ndarray], encoder: ProteinEncoder, computed: list[str]
) -> None:
    vectors = embed(long_proteins=way)
    expected = embed_sequences(encoder, SEQUENCES, long_proteins=way)
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=0)
    assert vectors.dtype == np.float32
    assert sorted(computed) == sorted(set(SEQUENCES))
    assert len(computed[0]) == 1500  # the longest first


def test_no_proteins_give_no_vectors(embed: Callable[..., np.ndarray]) -> None:
    assert embed([]).shape == (0, 32)


def test_a_second_call_computes_nothing_and_gives_equal_bytes(
    embed: Callable[..., np.ndarray], computed: list[str]
) -> None:
    first = embed()
    computed.clear()
    np.testing.assert_array_equal(embed(), first)
    np.testing.assert_array_equal(embed(SEQUENCES[::-1]), first[::-1])
    assert not computed


def test_other_proteins_and_other_batches_reuse_what_is_there(
    embed: Callable[..., np.ndarray], computed: list[str]
) -> None:
    first = embed(SEQUENCES[:40])
    computed.clear()
    np.testing.assert_array_equal(embed(SEQUENCES[:20], batch_tokens=90), first[:20])
    assert not computed
    both = embed()
    assert len(set(computed)) < DISTINCT
    np.testing.assert_allclose(both[:40], first, atol=1e-6, rtol=0)


@given(st.lists(st.integers(1, 4000), max_size=40), st.integers(1, 5000), st.sampled_from(["truncate", "window"]))
@settings(deadline=None)
def test_batches_hold_every_protein_once_longest_first(lengths: list[int], batch_tokens: int, way: str) -> None:
    batches = protein_batches(lengths, batch_tokens, way)  # type: ignore[arg-type]
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(len(lengths)))
    shown = [min(max(lengths[index] for index in batch), 1022 if way == "truncate" else 10**9) for batch in batches]
    assert shown == sorted(shown, reverse=True)
    again = protein_batches(lengths, batch_tokens, way)  # type: ignore[arg-type]
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


# Killed and lost processes

WORKER = """
import json, os, sys, time, torch
torch.set_num_threads(1)
from uce.genes.proteins import run
from uce.genes.proteins.esm2 import embed_sequences, load_esm2
weights, sequences, folder, pause = sys.argv[1:]
def slow(*args, **options):
    time.sleep(float(pause))
    return embed_sequences(*args, **options)
run.embed_sequences = slow
print(run.embed_proteome(load_esm2(weights), json.load(open(sequences)), folder, batch_tokens=700, quiet=True))
"""


@pytest.fixture(scope="module")
def start(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[str]]:
    """Start a process of its own on a folder."""
    sequences = tmp_path_factory.mktemp("sequences") / "sequences.json"
    sequences.write_text(json.dumps(SEQUENCES))

    def start(folder: Path, *, pause: float = 0.0, rank: int = 0, world: int = 1) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(weights), str(sequences), str(folder), str(pause)]
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def undisturbed(encoder: ProteinEncoder, tmp_path: Path) -> bytes:
    """What one process gives that nobody disturbs, with as many threads as the others have."""
    torch.set_num_threads(1)
    vectors = embed_proteome(encoder, SEQUENCES, tmp_path / "undisturbed", batch_tokens=700, quiet=True)
    assert vectors is not None
    return vectors.tobytes()


def kill_half_way(process: subprocess.Popen[str], folder: Path, *, rank: int = 0) -> None:
    path = folder / f"rank-{rank:04d}.sqlite"
    with process:
        while not (path.exists() and stored(folder) >= 3):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)


def stored(folder: Path) -> int:
    return len(dict(finished(folder, 32)))


def test_a_killed_run_goes_on_and_ends_in_the_bytes_of_one_that_was_not(
    start: Callable[..., subprocess.Popen[str]], undisturbed: bytes, embed: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kill_half_way(start(folder, pause=0.15), folder)
    assert 3 <= stored(folder) < DISTINCT
    assert (folder / "rank-0000.lock").exists()
    assert embed().tobytes() == undisturbed


def test_two_processes_share_the_work_and_the_first_has_the_bytes_of_one(
    start: Callable[..., subprocess.Popen[str]],
    undisturbed: bytes,
    embed: Callable[..., np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    other = start(folder, rank=1, world=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert embed(patience=60).tobytes() == undisturbed
    out, error = other.communicate(timeout=300)
    assert (other.returncode, out) == (0, "None\n"), error
    with database(folder, 0) as first, database(folder, 1) as second:
        shares = [store.execute("SELECT count(*) FROM vectors").fetchone()[0] for store in (first, second)]
    assert sum(shares) == DISTINCT
    assert min(shares) > DISTINCT / 4


def test_what_a_lost_process_left_is_completed_by_any_number_of_others(
    start: Callable[..., subprocess.Popen[str]], undisturbed: bytes, embed: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kill_half_way(start(folder, pause=0.15, rank=1, world=2), folder, rank=1)
    left = stored(folder)
    assert 3 <= left < DISTINCT
    assert embed().tobytes() == undisturbed
    with database(folder) as store:
        assert store.execute("SELECT count(*) FROM vectors").fetchone()[0] == DISTINCT - left


def test_the_first_process_does_not_wait_for_ever(
    embed: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(run, "_LOOK_SECONDS", 0.0)
    with pytest.raises(StorageError, match=r"run: \d+ proteins of other processes did not arrive\. Run again\."):
        embed(patience=0.1)


def test_two_runs_in_one_folder_are_not_mixed(embed: Callable[..., np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rank-0000.lock").write_text(json.dumps({"host": "elsewhere", "pid": 12}))
    with pytest.raises(StorageError, match=r"rank-0000\.lock: process 12 on elsewhere is writing there"):
        embed()


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    path.write_bytes(b"<html>" * 1000)


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(5000, len(content), 1711):
        content[place] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, overwrite, scribble])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_damaged_database_is_said_and_computed_again(
    harm: Callable[[Path], None],
    rank: int,
    embed: Callable[..., np.ndarray],
    computed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = embed()
    path = tmp_path / "run" / f"rank-{rank:04d}.sqlite"
    if rank:
        path.with_name("rank-0000.sqlite").rename(path)
    harm(path)
    computed.clear()
    capsys.readouterr()
    np.testing.assert_array_equal(embed(), expected)
    assert computed
    assert f"{path}: " in capsys.readouterr().err


def test_an_emptied_database_is_filled_again(embed: Callable[..., np.ndarray], tmp_path: Path) -> None:
    expected = embed()
    (tmp_path / "run" / "rank-0000.sqlite").write_bytes(b"")
    np.testing.assert_array_equal(embed(), expected)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vectors SET vector = zeroblob(128) WHERE rowid = 5",
        "UPDATE vectors SET vector = x'00' WHERE rowid = 5",
        "UPDATE vectors SET vector = 'text' WHERE rowid = 5",
        "UPDATE vectors SET vector = NULL, checksum = NULL WHERE rowid = 5",
        "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE rowid = 6) WHERE rowid = 5",
        "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE rowid = 6), "
        "checksum = (SELECT checksum FROM vectors WHERE rowid = 6) WHERE rowid = 5",
    ],
)
def test_a_damaged_row_is_said_and_its_batch_computed_again(
    change: str,
    embed: Callable[..., np.ndarray],
    computed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = embed()
    with database(tmp_path / "run") as store:
        assert store.execute(change).rowcount == 1
    computed.clear()
    np.testing.assert_array_equal(embed(), expected)
    assert 0 < len(computed) < DISTINCT
    assert "rank-0000.sqlite: 1 damaged vectors; they are computed again." in capsys.readouterr().err


def test_a_database_that_another_process_begins_again_is_passed_over(
    embed: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    embed()
    gone = tmp_path / "run" / "rank-0001.sqlite"
    monkeypatch.setattr(Path, "glob", lambda folder, _: [folder / "rank-0000.sqlite", gone])
    assert stored(tmp_path / "run") == DISTINCT


def test_vectors_of_another_width_are_not_taken(embed: Callable[..., np.ndarray], tmp_path: Path) -> None:
    embed()
    assert stored(tmp_path / "run") == DISTINCT
    assert not dict(finished(tmp_path / "run", 16))


# The plan, the disk, and the end


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"name": "esm2_other"}, {}, "encoder esm2_t2_tiny, now esm2_other"),
        ({"sha256": "0" * 64}, {}, f"encoder_sha256 [0-9a-f]{{64}}, now {'0' * 64}"),
        ({"precision": "bf16"}, {}, "precision fp32, now bf16"),
        ({}, {"long_proteins": "window"}, "long_proteins truncate, now window"),
    ],
)
def test_vectors_of_another_plan_are_not_mixed_in(
    change: dict[str, str],
    options: dict[str, str],
    message: str,
    embed: Callable[..., np.ndarray],
    encoder: ProteinEncoder,
) -> None:
    embed(SEQUENCES[:2])
    with pytest.raises(
        OutputExistsError, match=rf"run: holds an unfinished run with {message}\. Repeat .* or pass --no-resume"
    ):
        embed(SEQUENCES[:2], encoder=replace(encoder, **change), **options)


@pytest.mark.parametrize("content", ["", "[", "3", "[1]", "\x00"])
def test_a_damaged_plan_is_one_clear_line(content: str, embed: Callable[..., np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plan.json").write_text(content)
    with pytest.raises(OutputExistsError, match=r"plan\.json: not readable\. Pass --no-resume"):
        embed()


def test_a_folder_that_cannot_be_made_is_one_clear_line(embed: Callable[..., np.ndarray], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(StorageError, match=r"run: cannot be made \(File exists\)"):
        embed()


def test_too_little_space_is_said_before_any_work(
    embed: Callable[..., np.ndarray], computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "kept_bytes", lambda proteins, dim: proteins * dim * 10**15)
    with pytest.raises(StorageError, match=r"GB needed, .* GB free"):
        embed()
    assert not computed


def test_a_full_disk_is_one_clear_line_and_keeps_what_is_finished(
    embed: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = kept._opened

    def small(path: Path) -> sqlite3.Connection:
        connection = opened(path)
        connection.execute("PRAGMA max_page_count = 4")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(kept, "_opened", small)
        with pytest.raises(StorageError, match=r"rank-0000\.sqlite: cannot be written \(database or disk is full\)"):
            embed()
    assert 0 < stored(tmp_path / "run") < DISTINCT
    assert embed() is not None


def test_the_space_reckoned_with_is_enough_and_not_far_too_much(
    embed: Callable[..., np.ndarray], encoder: ProteinEncoder, tmp_path: Path
) -> None:
    keys = [bytes([number % 256, number // 256]) * 16 for number in range(600)]
    for dim in (320, 1280, 5120):
        folder = tmp_path / str(dim)
        folder.mkdir()
        with kept.Kept(folder, 0) as store:
            store.write(keys, np.ones((600, dim), dtype=np.float32))
        size = (folder / "rank-0000.sqlite").stat().st_size
        assert size < kept.kept_bytes(600, dim) < 2 * size


def test_an_error_of_the_encoder_keeps_what_was_finished(
    embed: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = []

    def fail(encoder: ProteinEncoder, sequences: list[str], **options: object) -> np.ndarray:
        calls.append(sequences)
        if len(calls) == 3:
            raise ModelError("too much for this machine")
        return embed_sequences(encoder, sequences, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "embed_sequences", fail)
    with pytest.raises(ModelError, match="too much"):
        embed()
    assert stored(tmp_path / "run") == len(calls[0]) + len(calls[1])
    assert not (tmp_path / "run" / "rank-0000.lock").exists()


def test_progress_counts_residues_and_proteins_on_stderr_and_quiet_is_quiet(
    embed: Callable[..., np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    embed(SEQUENCES[:40])
    assert capsys.readouterr() == ("", "")
    embed(quiet=False)
    out, error = capsys.readouterr()
    assert not out
    assert f"{DISTINCT} of {DISTINCT} proteins" in error
    assert "residues" in error


def test_only_what_was_written_here_is_removed(embed: Callable[..., np.ndarray], tmp_path: Path) -> None:
    embed()
    folder = tmp_path / "run"
    (folder / "mine.txt").write_text("mine")
    remove(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    remove(folder)
    assert not folder.exists()
    remove(folder)
