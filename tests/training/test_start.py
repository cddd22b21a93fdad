"""Runs that begin from a model: its weights and no others, an anchor that holds them, adapters that leave them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from uce.errors import UsageError
from uce.model.checkpoint import load_model, save_model
from uce.model.encoder import Encoder, ModelConfig
from uce.training.adapters import add_adapters, merged
from uce.training.corpus import special_vectors
from uce.training.loop import pretrain
from uce.training.objectives.masked import MaskedSettings
from uce.training.optimizer import Anchor
from uce.training.settings import AdapterSettings, DataSettings, OptimizerSettings, PretrainConfig, RunSettings
from uce.training.state import read_state, snapshot_path

from .conftest import WIDTH, toy_config

Configure = Callable[..., PretrainConfig]
SMALL = ModelConfig(
    layers=2, dim=16, heads=2, hidden=32, protein_dim=8, out_dim=8, decoder_dim=16, norm="post", readout="cls+mean"
)
LORA = AdapterSettings(rank=4)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_start(folder: Path, *, seed: int = 3, gene_encoder: str = "planted", **changes: object) -> Path:
    torch.manual_seed(seed)
    config = toy_config()
    return save_model(
        folder,
        encoder=Encoder(replace(config.model, **changes)),  # type: ignore[arg-type]
        rule=config.rule,
        specials=special_vectors(WIDTH),
        gene_encoder=gene_encoder,
        gene_tables=[{"species": "mus_musculus", "encoder": "planted", "sha256": "x"}],
        info={},
    )


@pytest.fixture
def start(tmp_path: Path) -> Path:
    return write_start(tmp_path / "start")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def lines(run: Path) -> Iterator[dict[str, float]]:
    return (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())


def test_a_run_begins_with_the_weights_of_the_model_and_says_so(
    planted_files: DataSettings, make_config: Configure, start: Path, tmp_path: Path
) -> None:
    still = OptimizerSettings(lr=1e-9, warmup=0, weight_decay=0.0)
    config = make_config(data=planted_files, start=str(start), steps=2, optimizer=still)
    model = load_model(pretrain(config, out=tmp_path / "run"))
    for name, tensor in weights(start).items():
        torch.testing.assert_close(weights(model.folder)[name], tensor, atol=1e-7, rtol=0)  # type: ignore[arg-type]
    base = load_model(start)
    facts = model.info["adapted_from"]
    assert (facts["model"], facts["sha256"]) == ("start", base.sha256)
    assert [table["species"] for table in model.gene_tables] == ["homo_sapiens", "mus_musculus"]
    manifest = json.loads((tmp_path / "run" / "toy" / "trained_on" / "manifest.json").read_text())
    assert (
        manifest["lacking"]
        == "the cells that start was trained on, from which it began (its folder does not say which)"
    )
    again = load_model(pretrain(replace(config, start=str(model.folder)), out=tmp_path / "again"))
    manifest = json.loads((tmp_path / "again" / "toy" / "trained_on" / "manifest.json").read_text())
    assert [dataset["dataset"] for dataset in manifest["datasets"]] == ["set0", "set1"]  # the same cells
    assert "start" in manifest["lacking"]
    assert again.info["adapted_from"]["model"] == "toy"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 256}, r"has hidden = 256, not model.hidden = 128"),
        ({"gene_encoder": "other"}, r"reads other vectors, the corpus was built for planted"),
    ],
)
def test_a_model_of_another_shape_or_kind_is_refused(
    changes: dict[str, object], message: str, planted_files: DataSettings, make_config: Configure, tmp_path: Path
) -> None:
    other = write_start(tmp_path / "other", **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        pretrain(make_config(data=planted_files, start=str(other)), out=tmp_path / "run")


def test_dropout_may_differ(planted_files: DataSettings, make_config: Configure, tmp_path: Path) -> None:
    other = write_start(tmp_path / "other", dropout=0.1)
    pretrain(make_config(data=planted_files, start=str(other), steps=1), out=tmp_path / "run")


def test_a_run_does_not_go_on_from_another_model(
    planted_files: DataSettings, make_config: Configure, start: Path, tmp_path: Path
) -> None:
    config = make_config(data=planted_files, start=str(start), steps=4, run=RunSettings(workers=0, snapshot_every=2))
    folder = pretrain(config, out=tmp_path / "run")
    folder.rename(tmp_path / "aside")
    write_start(tmp_path / "other", seed=4)
    with pytest.raises(UsageError, match=r"the run began from"):
        pretrain(replace(config, start=str(tmp_path / "other")), out=tmp_path / "run")
    start.rename(tmp_path / "moved")
    pretrain(replace(config, start=str(tmp_path / "moved")), out=tmp_path / "run", resume=2)
    assert weights(folder).keys() == weights(tmp_path / "aside").keys()
    for name, tensor in weights(folder).items():
        assert torch.equal(tensor, weights(tmp_path / "aside")[name])


def test_heads_are_taken_from_a_finished_run_of_the_same_objective(
    planted_files: DataSettings, make_config: Configure, start: Path, tmp_path: Path
) -> None:
    config = make_config(data=planted_files, start=str(start), steps=2, run=RunSettings(workers=0, snapshot_every=1))
    pretrain(config, out=tmp_path / "one")
    still = replace(config, steps=1, optimizer=OptimizerSettings(lr=1e-9, warmup=0), start_heads=str(tmp_path / "one"))
    pretrain(still, out=tmp_path / "two")
    ours, theirs = (read_state(snapshot_path(tmp_path / run, step)) for run, step in (("two", 1), ("one", 2)))
    heads = [name for name in ours if name.startswith("weights.objective.")]
    assert heads
    for name in heads:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-7, rtol=0)
    for folder in (tmp_path / "one" / "checkpoints").glob("step-00000002"):
        folder.rename(tmp_path / "taken")
    with pytest.raises(UsageError, match="a finished run is needed"):
        pretrain(still, out=tmp_path / "three")
    other = replace(still, objective=MaskedSettings(queries=32, hidden=(32, 16)))
    (tmp_path / "taken").rename(tmp_path / "one" / "checkpoints" / "step-00000002")
    with pytest.raises(UsageError, match="the objective must be the same"):
        pretrain(other, out=tmp_path / "three")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": OptimizerSettings(anchor=0.1)}, r"optimizer.anchor = 0.1: needs start"),
        ({"start_heads": "run"}, r"start_heads = 'run': needs start"),
        ({"adapters": LORA}, r"adapters.rank = 4: needs start"),
        ({"start": "m", "adapters": LORA, "optimizer": OptimizerSettings(anchor=0.1)}, "adapters freeze what it holds"),
        ({"start": "m", "adapters": LORA, "run": RunSettings(sharding="fsdp")}, "not with run.sharding = 'fsdp'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    changes: dict[str, object], message: str, make_config: Configure
) -> None:
    with pytest.raises(UsageError, match=message):
        make_config(**changes)


def test_an_anchor_that_would_overshoot_is_refused() -> None:
    assert OptimizerSettings(lr=0.01, anchor=100.0).anchor == 100
    with pytest.raises(UsageError, match=r"optimizer.anchor = 101"):
        OptimizerSettings(lr=0.01, anchor=101.0)


@pytest.mark.parametrize(("curvature", "strength"), [(0.01, 0.1), (0.1, 0.1), (1.0, 0.01), (1.0, 1.0)])
def test_an_anchor_settles_where_the_quadratic_says(curvature: float, strength: float) -> None:
    wanted, begun, rate = torch.tensor([3.0, -1.0], dtype=torch.float64), torch.tensor([1.0, 2.0]).double(), 0.05
    toy = nn.ParameterDict({"w": nn.Parameter(begun.clone())})
    anchor = Anchor(toy, ["w"], strength=strength)
    for _ in range(200_000):
        before = toy["w"].detach().clone()
        with torch.no_grad():
            toy["w"] -= rate * curvature * (toy["w"] - wanted)
        anchor.pull(rate)
        if float((toy["w"].detach() - before).abs().max()) < 1e-12:
            break

    def settled(rate: float) -> torch.Tensor:
        """Where a step of the loss and a pull after it take each other back."""
        freed = (1 - rate * strength) * curvature
        return (freed * wanted + strength * begun) / (freed + strength)

    torch.testing.assert_close(toy["w"].detach(), settled(rate), atol=1e-6, rtol=0)
    # For small rates that is (H w_S + a phi) / (H + a), by which a strength is chosen.
    plain = (curvature * wanted + strength * begun) / (curvature + strength)
    torch.testing.assert_close(settled(1e-7), plain, atol=1e-6, rtol=0)


def test_an_anchor_of_nothing_changes_no_bit_and_one_of_all_holds_everything(
    planted_files: DataSettings, make_config: Configure, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def optimizer(anchor: float) -> OptimizerSettings:
        return OptimizerSettings(lr=1e-3, warmup=0, anchor=anchor, final=1.0)

    config = make_config(data=planted_files, start=str(start), steps=4)
    free = pretrain(replace(config, optimizer=optimizer(0.0)), out=tmp_path / "free")
    held = pretrain(replace(config, optimizer=optimizer(1000.0)), out=tmp_path / "held")
    with monkeypatch.context() as patch:
        patch.setattr(Anchor, "pull", lambda _self, _rate: None)
        none = pretrain(replace(config, optimizer=optimizer(0.0)), out=tmp_path / "none")
    for name, tensor in weights(start).items():
        assert torch.equal(weights(free)[name], weights(none)[name])
        torch.testing.assert_close(weights(held)[name], tensor, atol=1e-6, rtol=0)
    assert not torch.equal(weights(free)["encoder.projection.weight"], weights(start)["encoder.projection.weight"])
    assert [line["drift"] for line in lines(tmp_path / "held")] == pytest.approx([0, 0], abs=1e-6)
    drift = [line["drift"] for line in lines(tmp_path / "free")]
    moved = sum((weights(free)[n] - t).square().sum() for n, t in weights(start).items() if n.startswith("encoder."))
    whole = sum(t.square().sum() for n, t in weights(start).items() if n.startswith("encoder."))
    assert drift[-1] == pytest.approx(float((moved / whole).sqrt()), rel=1e-4)


def test_adapters_begin_as_the_model_itself_and_are_merged_exactly() -> None:
    torch.manual_seed(0)
    encoder = Encoder(SMALL).eval()
    sentence = torch.randn(3, 7, 8)
    before = encoder(sentence)
    plain = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    add_adapters(encoder, LORA)
    assert torch.equal(encoder(sentence), before)
    trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 5 * 2
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name in trained:
                parameter.normal_(std=0.1)
    joined = Encoder(SMALL).eval()
    joined.load_state_dict(merged(encoder.state_dict(), LORA))
    with torch.no_grad():
        after = encoder(sentence)
        torch.testing.assert_close(joined(sentence), after, atol=1e-6, rtol=0)
    assert float((after - before.detach()).abs().max()) > 1e-3
    assert merged(plain, LORA).keys() == plain.keys()


def test_blocks_that_share_a_map_share_its_adapter() -> None:
    encoder = Encoder(SMALL)
    encoder.blocks[1] = encoder.blocks[0]
    add_adapters(encoder, LORA)
    assert sum(parameter.requires_grad for parameter in encoder.parameters()) == 5 * 2


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_adapters_leave_every_other_weight_bit_for_bit_and_go_on_where_they_were(
    ema: float, planted_files: DataSettings, make_config: Configure, start: Path, tmp_path: Path
) -> None:
    run = RunSettings(workers=0, snapshot_every=2, keep_snapshots=9)
    config = make_config(data=planted_files, start=str(start), steps=4, adapters=LORA, ema=ema, run=run)
    whole = pretrain(config, out=tmp_path / "run")
    state = read_state(snapshot_path(tmp_path / "run", 4))
    moments = {name.split(".parametrizations")[0] for name in state if name.startswith("optimizer.encoder.")}
    assert all(".parametrizations.weight.0." in name for name in state if name.startswith("optimizer.encoder."))
    assert len(moments) == 10
    first = read_state(snapshot_path(tmp_path / "run", 2))
    assert all(torch.equal(state[name], first[name]) for name in state if name.endswith(".original"))
    changed = {name for name, tensor in weights(whole).items() if not torch.equal(tensor, weights(start)[name])}
    assert len(changed) == 10
    whole.rename(tmp_path / "aside")
    pretrain(config, out=tmp_path / "run", resume=2)
    for name, tensor in weights(tmp_path / "aside").items():
        assert torch.equal(weights(whole)[name], tensor)
    assert np.isfinite([line["drift"] for line in lines(tmp_path / "run")]).all()
