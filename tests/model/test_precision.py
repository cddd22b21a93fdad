"""What `--precision auto` chooses, and that it keeps to it."""

import json
from pathlib import Path

import pytest
import torch

from uce.devices import PrecisionChoice
from uce.model import precision
from uce.model.encoder import Encoder, ModelConfig
from uce.model.precision import choose_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def large() -> Encoder:
    """Of more than ten million weights; none of them takes memory."""
    with torch.device("meta"):
        return Encoder(ModelConfig(layers=2))


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """A processor with bfloat16 whose gains are taken from this list, one a measurement."""
    found: list[float] = []
    monkeypatch.setattr(precision, "computes_bf16", lambda: True)
    monkeypatch.setattr(precision, "_measure", lambda _block: found.pop(0))
    monkeypatch.setenv("UCE_HOME", str(tmp_path / "home"))
    return found


def test_what_is_asked_for_is_taken(large: Encoder) -> None:
    asked: tuple[PrecisionChoice, ...] = ("fp32", "bf16")
    assert [choose_precision(name, large, CPU) for name in asked] == ["fp32", "bf16"]


def test_a_small_model_is_in_float32_and_nothing_is_measured(gains: list[float]) -> None:
    assert choose_precision("auto", Encoder(ModelConfig(dim=32, heads=2, hidden=64)), CPU) == "fp32"
    assert gains == []


@pytest.mark.parametrize(("gain", "chosen"), [(4.0, "bf16"), (1.3, "bf16"), (1.29, "fp32"), (0.3, "fp32")])
def test_a_large_model_is_in_bfloat16_where_that_was_found_to_be_faster(
    large: Encoder, gains: list[float], gain: float, chosen: str
) -> None:
    gains.append(gain)
    assert choose_precision("auto", large, CPU) == chosen


def test_it_is_measured_once_and_kept(large: Encoder, gains: list[float], tmp_path: Path) -> None:
    gains += [4.0, 0.1]
    assert [choose_precision("auto", large, CPU) for _ in range(3)] == ["bf16"] * 3
    assert gains == [0.1]
    kept = json.loads((tmp_path / "home" / "processors.json").read_text())
    assert list(kept.values()) == [4.0]
    assert all(word in next(iter(kept)) for word in ("torch", "1280 wide"))


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b"}', "\x00"])
def test_a_damaged_record_is_measured_anew(large: Encoder, gains: list[float], tmp_path: Path, content: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "processors.json").write_text(content)
    gains.append(0.2)
    assert choose_precision("auto", large, CPU) == "fp32"


def test_where_nothing_can_be_kept_each_run_measures(
    large: Encoder, gains: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UCE_HOME", str(tmp_path / "file" / "home"))
    gains += [4.0, 4.0]
    assert [choose_precision("auto", large, CPU) for _ in range(2)] == ["bf16", "bf16"]
    assert gains == []


def test_a_processor_without_bfloat16_is_not_measured(
    large: Encoder, gains: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "computes_bf16", lambda: False)
    assert choose_precision("auto", large, CPU) == "fp32"
    assert gains == []


@pytest.mark.parametrize(("able", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_a_graphics_processor_is_asked(
    large: Encoder, monkeypatch: pytest.MonkeyPatch, able: bool, chosen: str
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda *, including_emulation: able and not including_emulation
    )
    assert choose_precision("auto", large, CUDA) == chosen


def test_a_measurement_is_a_ratio_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_SECONDS", 0.01)
    threads = torch.get_num_threads()
    encoder = Encoder(ModelConfig(layers=2, dim=32, heads=2, hidden=64)).eval()
    assert 0.01 < precision.bf16_gain(encoder) < 100
    assert torch.get_num_threads() == threads
