"""The Ray engine: an actor is killed at work, a cell is bad, a cluster has no room, Ray is missing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from uce.cli.main import main
from uce.errors import UsageError
from uce.ray_engine import Cluster, _cluster

CELLS = 7 * 1024 - 100

# A process of its own: Ray asks a public address for this machine's own, and leaves warnings and handlers behind; the
# actors must have as many threads as the one process that they are compared with.
KILL_THEN_FAIL = """
import json, os, signal, sys, threading, time
from pathlib import Path
import psutil
from uce.cli.main import main
from uce.ray_engine import _import_ray

good, bad, output, model = sys.argv[1:]
ray = _import_ray()
start = ray.init
ray.init = lambda **options: start(num_cpus=3, **options)  # whatever this machine has
seen = {}

def kill_an_actor():
    while not (there := sorted(Path(output + ".parts").glob("[0-9]*.npz"))):
        time.sleep(0.01)
    actors = [p for p in psutil.Process().children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]
    os.kill(actors[0].pid, signal.SIGKILL)
    seen.update(killed=len(actors), there=len(there))

words = ["--model", model, "--species", "human", "--engine", "ray", "--ray-actors", "2"]
threading.Thread(target=kill_an_actor, daemon=True).start()
codes = [main(["embed", good, "-o", output, "--replicates", "6", "--json", *words])]
codes.append(main(["embed", bad, "-o", output + ".bad", *words]))
Path(output + ".seen").write_text(json.dumps({**seen, "codes": codes}))
"""

NO_ROOM = """
import sys
from uce import ray_engine
from uce.cli.main import main

ray_engine._import_ray().init(num_cpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray_engine.START_SECONDS = 3
sys.exit(main(["embed", *sys.argv[1:], "--species", "human", "--engine", "ray"]))
"""


@pytest.fixture(scope="module")
def source(make_cells: Callable[..., ad.AnnData], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ray") / "in.h5ad"
    make_cells(cells=CELLS, genes=300).write_h5ad(path)
    return path


@pytest.mark.parametrize(
    ("resources", "actors", "device", "found"),
    [
        ({"CPU": 16.0, "GPU": 2.0}, None, "auto", Cluster(2, "cuda")),
        ({"CPU": 16.0, "GPU": 2.0}, None, "cpu", Cluster(15, "cpu")),  # a core is left for Ray's own tasks
        ({"CPU": 16.0}, None, "auto", Cluster(15, "cpu")),
        ({"CPU": 1.0}, None, "auto", Cluster(1, "cpu")),
        ({"CPU": 2.0}, 8, "auto", Cluster(8, "cpu")),  # a cluster may grow
    ],
)
def test_actors_are_as_many_as_the_cluster_has_devices(
    resources: dict[str, float], actors: int | None, device: str, found: Cluster
) -> None:
    assert _cluster(resources, actors, device) == found


def test_a_device_that_the_cluster_has_not_is_refused() -> None:
    with pytest.raises(UsageError, match="--device cuda: the Ray cluster offers none"):
        _cluster({"CPU": 4.0}, None, "cuda")


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local"}  # whatever cluster runs here
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_a_killed_actor_costs_no_block_and_no_byte_and_a_bad_cell_is_told_in_a_line(
    source: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    cells = ad.read_h5ad(source)
    cells.X.data[cells.X.indptr[3100]] = -1  # not among the cells that are tested first
    cells.write_h5ad(tmp_path / "bad.h5ad")
    options = ["--model", str(tiny_folder), "--species", "human", "--replicates", "6"]
    straight = python("-m", "uce", "embed", str(source), "-o", str(tmp_path / "straight.h5ad"), *options)
    assert straight.returncode == 0, straight.stderr

    output = tmp_path / "out.h5ad"
    done = python("-c", KILL_THEN_FAIL, str(source), str(tmp_path / "bad.h5ad"), str(output), str(tiny_folder))
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "out.h5ad.seen").read_text())
    assert seen["killed"] >= 1
    assert seen["there"] < 7  # it was killed at work
    assert seen["codes"] == [0, 3]
    assert json.loads(done.stdout)["cells"] == CELLS  # Ray has said nothing on stdout
    found = ad.read_h5ad(output).obsm["X_uce"]
    np.testing.assert_array_equal(found, ad.read_h5ad(tmp_path / "straight.h5ad").obsm["X_uce"])
    assert "value -1 of cell c3100" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.h5ad.parts").exists()


def test_a_cluster_without_room_is_told_and_not_waited_for_for_ever(
    source: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    done = python("-c", NO_ROOM, str(source), "-o", str(tmp_path / "out.h5ad"), "--model", str(tiny_folder))
    assert done.returncode == 6
    assert done.stdout == ""
    assert "the cluster had no room for an actor (one core) within 3 s" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_without_ray_its_extra_is_named(
    source: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(source.parent)
    assert main(["embed", str(source), "--model", str(tiny_folder), "--engine", "ray"]) == 2
    assert "pip install 'uce[ray]'" in capsys.readouterr().err
    assert [path.name for path in source.parent.iterdir()] == ["in.h5ad"]
