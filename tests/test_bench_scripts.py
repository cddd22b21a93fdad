"""The benchmarks count, learn and write as they say; that they measure well is for who runs them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from accelerate.state import AcceleratorState

from uce.model.encoder import ModelConfig
from uce.training.corpus import Corpus
from uce.training.settings import PretrainConfig
from uce.training.stream import Stream

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forgotten_by_accelerate() -> Iterator[None]:
    """It keeps the precision of the first run in a process for all that follow."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_gpu

    return bench_gpu


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_training

    return bench_training


def tiny_run(training: ModuleType) -> tuple[PretrainConfig, Corpus]:
    shape = ModelConfig(
        layers=2, dim=32, heads=2, hidden=64, protein_dim=24, out_dim=32, decoder_dim=32, max_tokens=160
    )
    objective = training.MaskedSettings(queries=32, hidden=(16, 8))
    config = training.configure(shape, objective, cells=4, steps=5, draws=64)
    return config, training.simulated_corpus(cells=64, genes=600, width=24)


def test_a_block_costs_its_products(gpu: ModuleType) -> None:
    length, shape = 50, replace(gpu.SMALL.model, layers=3)
    dim, hidden = shape.dim, shape.hidden
    one_more = gpu.cell_flops(replace(shape, layers=4), length) - gpu.cell_flops(shape, length)
    assert one_more == 2 * length * (4 * dim**2 + 2 * dim * hidden) + 4 * length**2 * dim


def test_the_share_of_the_peak_is_of_what_was_measured(gpu: ModuleType) -> None:
    case = gpu.Case("fp32", compiled=False, attention="math", share=0.25)
    shape = replace(gpu.SMALL.model, layers=2)
    row = gpu.measure_encoder(shape, case, gpu.SMALL, CPU, 1e12)
    cells = row["tokens"] / gpu.SMALL.length
    assert cells == 4
    flops = gpu.cell_flops(shape, gpu.SMALL.length)
    assert row["mfu"] == pytest.approx(row["cells_per_second"] * flops / 1e12)
    assert gpu.measure_peak("bf16", 64, CPU)["tflops"] > 0


def test_every_row_is_saved_and_a_second_call_measures_what_is_missing(gpu: ModuleType, tmp_path: Path) -> None:
    path, markdown, asked = tmp_path / "rows.json", tmp_path / "rows.md", []

    def works(value: float) -> dict[str, float]:
        asked.append(value)
        return {"tflops": value}

    def fails(error: Exception) -> None:
        asked.append(error)
        raise error

    def measure_all() -> None:
        sheet = gpu.Sheet(path, markdown, {"device": "one"})
        sheet.measure("peak", "bf16", lambda: works(700.0))
        sheet.measure("encoder", "large", lambda: fails(torch.cuda.OutOfMemoryError("of 80 GB")))
        sheet.measure("encoder", "odd", lambda: fails(RuntimeError("no such kernel\nand more")))

    measure_all()
    rows = json.loads(path.read_text())["rows"]
    assert [row.get("failed") for row in rows] == [None, "out of memory", "no such kernel"]
    measure_all()
    assert len(asked) == 4, "the one that failed for another reason is tried again"
    assert len(json.loads(path.read_text())["rows"]) == 3
    assert "| large | out of memory |" in markdown.read_text()
    with pytest.raises(SystemExit, match="another device"):
        gpu.Sheet(path, markdown, {"device": "two"})


def test_goals_are_told_beside_what_was_measured(gpu: ModuleType) -> None:
    deep = {"part": "encoder", "layers": 33, "precision": "bf16"}
    rows = [
        {**deep, "name": "a", "mfu": 0.55, "cells_per_second": 290.0},
        {**deep, "name": "b", "mfu": 0.61, "cells_per_second": 310.0},
        {**deep, "name": "c", "failed": "out of memory"},
        {"part": "memory", "name": "d", "failed": "ended with 1"},
        {"part": "memory", "name": "e", "cells": 8},
    ]
    reached = {goal["goal"].split(":")[0]: (goal["measured"], goal["reached"]) for goal in gpu.goals(rows)}
    assert reached["33 layers, bf16"] == (310.0, True)
    assert reached["4 layers, bf16"] == (None, None)
    assert reached["little memory"] == (0.5, False)


def test_a_short_training_run_is_measured(gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("UCE_HOME", "")  # the workshop sets its own
    size = replace(gpu.SMALL, steps=3)
    row = gpu.measure_training(gpu.Workshop(tmp_path, size, None), CPU, 1e12, 2, "run.workers=0")
    assert row["cells_at_a_time"] == 2
    assert row["tokens_per_second"] > row["cells_per_second"] > 0
    assert row["mfu"] == pytest.approx(row["tflops"])


def test_the_plain_loop_learns(training: ModuleType) -> None:
    config, corpus = tiny_run(training)
    config = replace(config, optimizer=replace(config.optimizer, lr=3e-3))
    cells = Stream(corpus, config).cells(0)
    made = cells, config.objective.make_batch(cells, config, 0)
    loop = training.PlainLoop(config, corpus, length=config.model.max_tokens)
    losses = [loop.step(made) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.05


def test_all_ways_to_train_take_turns(training: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    result = training.compare(*tiny_run(training), rounds=2)
    ours, padded, _ = result["rows"]
    assert ours["times_ours"] == [1.0, 1.0]
    assert len(padded["times_ours"]) == len(result["tokens"]) == 2
    training.show(result)
    assert "padded to 160" in capsys.readouterr().out
