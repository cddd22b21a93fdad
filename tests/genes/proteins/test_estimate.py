"""What a run would take: time by a known law, memory, disk, and a real measurement of a small model."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uce import devices
from uce.errors import ModelError, UsageError
from uce.genes.proteins import estimate as room
from uce.genes.proteins.esm2 import load_esm2
from uce.genes.proteins.estimate import Estimate, estimate, fit_rates, layer_timer, needed_bytes
from uce.genes.proteins.weights import Architecture, known_encoders, weights_folder

LARGEST = "esm2_t48_15B_UR50D"
SCRIPT = Path(__file__).parents[3] / "scripts" / "random_esm2.py"
LENGTHS = np.random.default_rng(0).lognormal(6, 0.8, 500).astype(int).clip(10, 30_000).tolist()


def law(rows: int, length: int) -> float:
    return 2e-5 * rows * length + 3e-8 * rows * length**2


@pytest.fixture
def by_law(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, int]]:
    """Layers take the time of `law`; holds what was measured."""
    calls: list[tuple[int, int]] = []

    def measure(rows: int, length: int) -> float:
        calls.append((rows, length))
        return law(rows, length)

    monkeypatch.setattr(room, "layer_timer", lambda *_: measure)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return calls


def test_hours_are_those_of_all_batches_by_the_fitted_law(by_law: list[tuple[int, int]]) -> None:
    found = estimate("esm2_t33_650M_UR50D", [100] * 40, batch_tokens=1020)
    assert found.hours == pytest.approx(33 * 4 * law(10, 102) / 3600)
    found = estimate("esm2_t33_650M_UR50D", [5000, 98], long_proteins="window")
    windows = [1024] * 8 + [5000 - 8 * 510 + 2]  # four fit in a batch of 4,096 tokens
    assert found.hours == pytest.approx(33 * (sum(law(1, tokens) for tokens in windows) + law(1, 100)) / 3600, rel=0.02)


def test_hours_grow_with_proteins_and_layers_and_shrink_with_processes(
    by_law: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = estimate("esm2_t33_650M_UR50D", LENGTHS)
    assert estimate("esm2_t33_650M_UR50D", LENGTHS * 2).hours == pytest.approx(2 * once.hours, rel=0.02)
    assert estimate("esm2_t6_8M_UR50D", LENGTHS).hours == pytest.approx(once.hours * 6 / 33)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert estimate("esm2_t33_650M_UR50D", LENGTHS).hours == pytest.approx(once.hours / 4)


def test_processes_are_those_of_the_launcher(by_law: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    found = estimate("esm2_t6_8M_UR50D", LENGTHS)
    assert found.processes == 8
    assert "on each of 8 processes" in str(found)


@pytest.mark.parametrize("slowness", [1, 20, 100, 500])
def test_the_sample_is_bounded_on_slow_machines_and_still_gives_the_law(slowness: float) -> None:
    shapes = np.array([[30, 130], [8, 500], [5, 800], [4, 1024]])
    taken: list[float] = []

    def measure(rows: int, length: int) -> float:
        taken.append(slowness * law(rows, length))
        return taken[-1]

    rates = fit_rates(shapes, measure, budget_seconds=20)
    assert sum(taken) < 30
    np.testing.assert_allclose(rates, [slowness * 2e-5, slowness * 3e-8], rtol=1e-6)


def test_the_sample_takes_little_memory_whatever_the_batches() -> None:
    tokens: list[int] = []

    def measure(rows: int, length: int) -> float:
        tokens.append(rows * length)
        return 1e-3 * law(rows, length)

    rates = fit_rates(np.array([[80_000, 100], [10_000, 1024]]), measure)
    assert max(tokens) <= 16_384
    np.testing.assert_allclose(rates, [2e-8, 3e-11], rtol=1e-6)


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_clock_on_a_graphics_processor_waits_for_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: waited.append("cuda"))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    room._synchronize(torch.device(kind))
    room._synchronize(torch.device("cpu"))
    assert waited == [kind]


def test_each_sample_is_measured_twice_after_a_warm_up_and_the_best_counts() -> None:
    calls: list[tuple[int, int]] = []

    def disturbed(rows: int, length: int) -> float:
        calls.append((rows, length))
        return law(rows, length) * (3 if len(calls) % 2 else 1)

    rates = fit_rates(np.array([[4, 1000], [40, 100]]), disturbed)
    np.testing.assert_allclose(rates, [2e-5, 3e-8], rtol=1e-6)
    assert calls == [(1, 100), (1, 100), (40, 100), (40, 100), (4, 1000), (4, 1000)]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(3, 1024)), min_size=1, max_size=30), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_rates_are_never_negative_whatever_the_clock_says(shapes: list[tuple[int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rates = fit_rates(np.array(shapes), lambda *_: rng.uniform(1e-6, 1.0))
    assert rates.shape == (2,)
    assert (rates >= 0).all()
    assert rates.any()


def test_disk_is_that_of_the_weights_the_run_and_the_table(by_law: list[tuple[int, int]]) -> None:
    found = estimate(LARGEST, LENGTHS, genes=200)
    assert found.download_gb == known_encoders()[LARGEST].about / 1e9
    assert found.table_gb == 200 * 5120 * 4 / 1e9
    assert found.run_gb > 500 * 5120 * 4 / 1e9
    assert (found.proteins, found.residues, found.longest) == (500, sum(LENGTHS), max(LENGTHS))


def test_memory_is_that_of_weights_in_their_precision_and_of_the_largest_call() -> None:
    size = known_encoders()[LARGEST].architecture
    none = np.zeros((0, 2), dtype=np.int64)
    assert needed_bytes(size, none, "fp32") == pytest.approx(60.4e9, rel=0.01)
    assert needed_bytes(size, none, "bf16") == pytest.approx(30.2e9, rel=0.01)
    small, large = np.array([[4, 100]]), np.array([[4, 1000], [4, 100]])
    assert needed_bytes(size, none, "fp32") < needed_bytes(size, small, "fp32") < needed_bytes(size, large, "fp32")


def test_what_it_says_is_a_few_clear_lines_of_an_estimate(
    by_law: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "memory_bytes", lambda _: 24 * 10**9)
    text = str(estimate(LARGEST, LENGTHS, genes=200))
    assert text.splitlines()[0] == (
        "esm2_t48_15B_UR50D (48 layers, 5,120 wide) in fp32 on cpu. An estimate from a sample measured on this machine:"
    )
    assert re.search(r"proteins  500 different ones, [\d,]+ residues, the longest [\d,]+\n", text)
    assert re.search(r"time      about \d+ minutes\n", text)
    assert re.search(
        r"memory    about 6\d\.\d GB; there are 24\.0 GB: too little\. Use --precision bf16, a smaller", text
    )
    assert re.search(r"disk      30\.3 GB to download, \d+ MB while it runs, 4 MB for the gene table$", text)
    fitting = estimate("esm2_t6_8M_UR50D", LENGTHS)
    assert fitting.fits
    assert "too little" not in str(fitting)


@pytest.mark.parametrize(
    ("hours", "text"), [(0.0, "1 minute"), (0.5, "30 minutes"), (1.26, "1.3 hours"), (312.4, "312 hours (13 days)")]
)
def test_durations_read_well(hours: float, text: str) -> None:
    shown = Estimate("e", Architecture(1, 8, 1), "cpu", "fp32", 1, 1, 1, 1, hours, 1, 1, 0, 1, 1)
    assert f"about {text}\n" in str(shown)


def test_no_proteins_take_no_time(by_law: list[tuple[int, int]]) -> None:
    found = estimate("esm2_t6_8M_UR50D", [])
    assert (found.hours, found.proteins, found.longest) == (0.0, 0, 0)
    assert not by_law


def test_an_unknown_encoder_or_precision_is_refused_before_anything_is_measured(
    by_law: list[tuple[int, int]],
) -> None:
    with pytest.raises(ModelError, match="Did you mean esm2_t6_8M_UR50D"):
        estimate("esm2_t6_8M", LENGTHS)
    with pytest.raises(UsageError, match="fp16"):
        estimate("esm2_t6_8M_UR50D", LENGTHS, precision="fp16")
    assert not by_law


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], Path]:
    """Write a small random model."""
    spec = importlib.util.spec_from_file_location("random_esm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(script.random_esm2(3, 48, 4, seed=1), path)
        return path

    return write


def test_the_size_of_a_file_comes_from_the_file_and_nothing_is_to_be_fetched(
    small: Callable[[Path], Path], by_law: list[tuple[int, int]], tmp_path: Path
) -> None:
    found = estimate(str(small(tmp_path / "esm2_mine.pt")), LENGTHS)
    assert (found.encoder, found.architecture, found.download_gb) == ("esm2_mine", Architecture(3, 48, 4), 0)
    assert "download" not in str(found)
    small(weights_folder() / "esm2_t6_8M_UR50D.pt")
    assert estimate("esm2_t6_8M_UR50D", LENGTHS).download_gb == 0


def test_weights_take_the_memory_reckoned_with(
    small: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "computes_bf16", lambda: True)
    path = small(tmp_path / "esm2_mine.pt")
    for precision in ("fp32", "bf16"):
        module = load_esm2(path, precision=precision).module
        held = sum(values.numel() * values.element_size() for values in module.parameters())
        assert held == needed_bytes(Architecture(3, 48, 4), np.zeros((0, 2), dtype=np.int64), module_precision(module))


def module_precision(module: torch.nn.Module) -> str:
    return "fp32" if module.layers[0].fc1.weight.dtype == torch.float32 else "bf16"  # type: ignore[union-attr,index]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_layer_of_the_models_width_is_measured_without_the_weights(precision: str) -> None:
    measure = layer_timer(Architecture(6, 64, 4), torch.device("cpu"), precision)  # type: ignore[arg-type]
    assert 0 < measure(2, 50) < 60


def test_a_real_sample_gives_a_plausible_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert 1e-7 < estimate("esm2_t6_8M_UR50D", [50, 80]).hours < 1
