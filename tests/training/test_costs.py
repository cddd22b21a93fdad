"""Operations as the encoder does them, without padding; peaks of devices; and runs that cannot fit are refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import uce.training.costs
from uce.errors import UsageError
from uce.model.encoder import Encoder, ModelConfig
from uce.training.corpus import Corpus
from uce.training.costs import (
    check_fits,
    forward_flops,
    known_peak,
    peak_flops,
    sample_batches,
    training_flops_per_token,
    work,
)
from uce.training.counting import FLOP_COUNTS, count_flops
from uce.training.objectives.contrastive import ContrastiveSettings
from uce.training.settings import PretrainConfig, RunSettings

Configure = Callable[..., PretrainConfig]
CPU = torch.device("cpu")


@st.composite
def shapes(draw: st.DrawFn) -> ModelConfig:
    heads = draw(st.integers(1, 3))
    widths = {name: draw(st.integers(1, 24)) for name in ("hidden", "protein_dim", "out_dim", "decoder_dim")}
    return ModelConfig(
        layers=draw(st.integers(1, 4)),
        dim=heads * 2 * draw(st.integers(1, 6)),
        heads=heads,
        norm=draw(st.sampled_from(["post", "pre"])),
        readout=draw(st.sampled_from(["cls", "cls+mean"])),
        positions=draw(st.sampled_from(["sinusoidal", "none"])),
        dropout=draw(st.sampled_from([0.0, 0.05])),
        max_tokens=64,
        **widths,
    )


@settings(max_examples=30, deadline=None)
@given(shapes(), st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 30))
def test_operations_are_those_the_encoder_does(config: ModelConfig, lengths: list[int], distinct: int) -> None:
    encoder = Encoder(config).train()
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FLOP_COUNTS) as counter:
        projected = encoder.project(torch.ones(distinct, config.protein_dim))
        for length in lengths:  # one by one, so without padding
            encoder.encode(projected[torch.zeros(1, length, dtype=torch.int64)])
    assert forward_flops(config, lengths, distinct) == counter.get_total_flops()


def test_the_published_shape_does_what_was_computed_for_it() -> None:
    # A layer of 1,075 tokens takes 48.2 GFLOP; 32 more of them, all whole, are the difference of the models.
    deep, shallow = (forward_flops(ModelConfig(layers=n), [1075], 1075) for n in (33, 4))
    assert (deep - shallow) / 29 == pytest.approx(48.2e9, rel=0.002)
    assert shallow == pytest.approx(14.1e9 + 3 * 48.2e9 + 2 * 1075 * 2 * 1280**2, rel=0.01)


def test_padding_is_no_work(corpus: Corpus, make_config: Configure) -> None:
    config = make_config(draws=2)  # genes of one or of two chromosomes
    batches = sample_batches(config, corpus)
    done = work(config, corpus, batches)
    assert done.tokens == sum(int(batch.keep.sum()) for batch in batches)
    assert done.cells == 3 * config.part_size
    padded = sum(count_flops(config, corpus, batch) for batch in batches)
    wasted = sum(
        forward_flops(config.model, np.full(len(b.keep), b.keep.shape[1]), len(b.vectors))
        - forward_flops(config.model, b.keep.sum(axis=1), len(b.vectors))
        for b in batches
    )
    assert wasted > 0
    assert done.flops == pytest.approx(padded - wasted)
    assert training_flops_per_token(config, corpus) == pytest.approx(3 * done.flops / done.tokens)


def test_more_processes_project_the_same_tokens_again(corpus: Corpus, make_config: Configure) -> None:
    config = make_config()
    assert training_flops_per_token(config, corpus, world=4) > training_flops_per_token(config, corpus)


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 67e12),
        ("NVIDIA H100 PCIe", 756e12, 51e12),
        ("NVIDIA H100 NVL", 835e12, 60e12),
        ("NVIDIA H200", 989e12, 67e12),
        ("NVIDIA B200", 2250e12, 75e12),
        ("NVIDIA L40S", 362e12, 91.6e12),
        ("NVIDIA GeForce RTX 4090", 165e12, 82.6e12),
        ("Tesla V100-SXM2-32GB", None, 15.7e12),
        ("NVIDIA A10G", None, None),
        ("NVIDIA GeForce RTX 4090 D", None, None),
        ("Some other GPU", None, None),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, bf16: float | None, fp32: float | None) -> None:
    assert known_peak(name, "bf16") == bf16
    assert known_peak(name, "no") == fp32


def test_the_peak_of_a_cpu_is_measured() -> None:
    for precision in ("no", "bf16"):
        assert 1e8 < (peak_flops(CPU, precision) or 0) < 1e15
    assert peak_flops(torch.device("meta"), "no") is None


def test_what_fits_passes(corpus: Corpus, make_config: Configure) -> None:
    check_fits(make_config(), corpus, CPU, 1)


@pytest.mark.parametrize(
    ("changes", "world", "ways"),
    [
        ({}, 1, ["accumulate=2 or more", "run.recompute=true", "several devices and run.sharding=fsdp"]),
        ({"accumulate": 2}, 4, ["accumulate=4 or more", "run.recompute=true", "run.sharding=fsdp"]),
        ({"run": RunSettings(sharding="fsdp", recompute=True)}, 4, ["accumulate=2 or more"]),
        ({"batch_size": 4, "run": RunSettings(sharding="fsdp", recompute=True)}, 4, ["a smaller model"]),
        (
            {"objective": ContrastiveSettings(panel_least=0.1), "run": RunSettings(recompute=True)},
            2,
            ["accumulate=2 or more", "run.sharding=fsdp", "objective.cache_cells=4"],
        ),
    ],
)
def test_what_cannot_fit_is_refused_with_the_way_out(
    changes: dict[str, object],
    world: int,
    ways: list[str],
    corpus: Corpus,
    make_config: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uce.training.costs, "memory_bytes", lambda _device: 1_000_000)
    config = make_config(**changes)
    with pytest.raises(UsageError) as refused:
        check_fits(config, corpus, CPU, world)
    said = str(refused.value)
    assert "each cpu device, which has 1 MB" in said
    assert f"for {config.part_size // world} cells at a time" in said
    assert said.endswith(f"Use {', or '.join(ways)}.")
    assert "\n" not in said


def test_processes_of_a_machine_share_its_memory(
    corpus: Corpus, make_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(batch_size=8)
    monkeypatch.setattr(uce.training.costs, "memory_bytes", lambda _device: 12_000_000)
    check_fits(replace(config, batch_size=2), corpus, CPU, 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    with pytest.raises(UsageError, match="which has 1 MB"):
        check_fits(replace(config, batch_size=2), corpus, CPU, 2)
