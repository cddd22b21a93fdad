"""The recipe for a cluster, with stand-ins for the programs of Slurm and torch: what is started, what a signal does."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain.slurm"
PROGRAMS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "$@" > requeued; fi',
    "torchrun": 'echo "$OMP_NUM_THREADS $*" > started; [ -z "$CODE" ] || exit "$CODE"; '
    'trap "echo saved > snapshot; exit 1" USR1; touch ready; while true; do sleep 0.02; done',
}


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job of two nodes, in a folder where the stand-ins leave their traces."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_GPUS_PER_NODE": "h100:8",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "64",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "123456",
        "CODE": "",
    }


def start(tmp_path: Path, job: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["bash", str(SCRIPT), "tiny.yaml", "runs/tiny", "seed=1"], cwd=tmp_path, env=job)


@pytest.mark.parametrize("code", [0, 3])
def test_a_run_that_ends_by_itself_ends_the_job(tmp_path: Path, job: dict[str, str], code: int) -> None:
    assert start(tmp_path, job | {"CODE": str(code)}).wait(120) == code
    assert not (tmp_path / "requeued").exists()
    started = (tmp_path / "started").read_text()
    assert started.startswith("8 --nnodes 2 --nproc-per-node 8 ")
    assert "--rdzv-endpoint node1:29956 " in started
    assert started.endswith("-m uce pretrain tiny.yaml -o runs/tiny --expect-world-size 16 seed=1\n")


def test_a_job_whose_time_is_over_saves_and_is_put_back_into_the_queue(tmp_path: Path, job: dict[str, str]) -> None:
    running = start(tmp_path, job)
    while not (tmp_path / "ready").exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGUSR1)
    assert running.wait(120) == 0
    assert (tmp_path / "snapshot").read_text() == "saved\n"
    assert (tmp_path / "requeued").read_text() == "requeue 123456\n"
