"""The study of AMT2: its file is whole, arms do the same work, and its rule is applied as it is written."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from uce.config import read_config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def study_amt2(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import study_amt2

    return study_amt2


@pytest.fixture
def study(study_amt2: ModuleType) -> Any:
    return read_config(study_amt2.Study, ROOT / "configs" / "study_amt2.yaml")


def test_every_row_has_a_name_of_its_own_and_rivals_and_baselines_are_among_them(
    study_amt2: ModuleType, study: Any
) -> None:
    rows = study_amt2.rows_of(study)
    arms = {arm.name for arm in study.all_arms}
    assert len({row.name for row in rows}) == len(rows) == 3 * (5 * len(arms) + 2)
    assert set(study_amt2.RIVALS) <= arms
    assert {"amt2-0", "amt2-1", "amt2-10", "amt2-100", "amt2-part", "amt2-shuffled"} <= arms
    assert study.develop in [pair.name for pair in study.pairs]
    assert not {donor for pair in study.pairs for donor in pair.held_out} & {""}


def test_arms_make_as_many_updates_of_each_kind(
    study_amt2: ModuleType, study: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(study_amt2, "open_corpus", lambda _data: type("Opened", (), {"datasets": ()}))
    monkeypatch.setattr(study_amt2, "classes_of", lambda _datasets: (("a", "b"), (3, 4)))
    made = {arm.name: study_amt2.phases_of(arm, study, tmp_path, 3) for arm in study.all_arms}

    def updates(name: str, kind: str) -> int:
        return sum(phase.config.steps for phase in made[name] if phase.name == kind)

    for name, phases in made.items():
        total = sum(phase.config.steps for phase in phases)
        if name.startswith("amt2") or name in ("source-unlabelled", "unlabelled-source"):
            assert (updates(name, "source"), updates(name, "unlabelled")) == (400, 400)
        else:
            assert total == {"untrained": 1, "source": 400}.get(name, 800)
        assert all(phase.config.seed == 3 for phase in phases)
    joint = made["joint"][0].config
    # Half of its parts are labelled ones: two datasets of one weight, and sizes do not count.
    assert joint.data.balance == 0
    assert set(study_amt2.TRAINED) - set(joint.data.leave_out) == {"source", "target"}
    assert joint.objective.with_labels == ("source", "source_held_out")
    assert [phase.anchor for phase in made["amt2-100"]] == [0] + [0, 100] * 4
    seen = {name: {part for phase in made[name] for part in _seen(study_amt2, phase)} for name in made}
    assert seen["amt2-part"] == {"source", "source_part"}
    assert seen["amt2-shuffled"] == {"source_shuffled", "target"}
    assert seen["amt2-0"] == {"source", "target"}


def _seen(study_amt2: ModuleType, phase: Any) -> set[str]:
    return set(study_amt2.TRAINED) - set(phase.config.data.leave_out)


def _records(scores: dict[tuple[str, str], Sequence[float]]) -> list[dict[str, Any]]:
    return [
        {
            "status": "done",
            "settings": {"pair": pair, "arm": arm, "seed": seed},
            "values": {"f1": {"0": None, "0.01": 0.0, "0.05": score, "0.1": 0.0}},
        }
        for (pair, arm), values in scores.items()
        for seed, score in enumerate(values)
    ]


def test_the_rule_chooses_alpha_elsewhere_and_compares_with_the_best(study_amt2: ModuleType, study: Any) -> None:
    noise = np.array([-0.02, 0.01, 0.0, 0.02, -0.01])
    scores = {("skin", study_amt2.amt2_name(alpha)): 0.5 + noise for alpha in study.alphas}
    scores["skin", "amt2-1"] = 0.6 + noise
    for pair, gain in (("technology", 0.1), ("species", 0.005)):
        for place, rival in enumerate(study_amt2.RIVALS):
            scores[pair, rival] = 0.4 + 0.01 * place + noise
        scores[pair, "amt2-1"] = 0.44 + gain + noise[::-1]
        scores[pair, "amt2-100"] = 0.9 + noise  # best here, and not asked
        scores[pair, "amt2-10"] = 0.5 + noise
        scores[pair, "amt2-part"], scores[pair, "amt2-shuffled"] = 0.5 + noise, 0.2 + noise[::-1]
    found = study_amt2.verdict(study, _records(scores))
    assert found["alpha"] == 1
    technology, species = (found["primaries"][name] for name in ("technology", "species"))
    assert technology["rival"] == species["rival"] == study_amt2.RIVALS[-1]
    assert (technology["word"], species["word"]) == ("better", "no difference found")
    assert technology["mean"] == pytest.approx(0.1)
    words = {name: line["word"] for name, line in found["controls"]["technology"].items()}
    assert words == {"amt2-part": "no difference found", "amt2-shuffled": "better"}


def test_a_difference_has_its_t_interval(study_amt2: ModuleType) -> None:
    one, other = {0: 0.5, 1: 0.6, 2: 0.7, 9: 0.1}, {0: 0.4, 1: 0.4, 2: 0.4, 8: 0.0}
    found = study_amt2.difference(one, other, level=0.95)
    half = 4.302652729911275 * 0.1 / 3**0.5  # t of two degrees of freedom
    assert found.pop("word") == "no difference found"
    assert found == pytest.approx({"seeds": 3, "mean": 0.2, "low": 0.2 - half, "high": 0.2 + half}, abs=1e-9)
    assert study_amt2.difference({0: 1.0}, {0: 0.5}, level=0.95)["word"] == "not enough runs"


def test_readings_are_of_the_share_of_labels_that_is_asked(
    study_amt2: ModuleType, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    kinds = {name: random.integers(0, 3, 300) for name in ("source", "target", "target_held_out")}
    labels = {name: np.array(["a", "b", "rare"])[kind] for name, kind in kinds.items()}
    labels["source"] = np.where(labels["source"] == "rare", "other type", labels["source"])
    monkeypatch.setattr(study_amt2, "labels_of", lambda _folder, name, _pair: labels[name])
    clear = {name: np.eye(3, dtype=np.float32)[kind] for name, kind in kinds.items()}
    clear = {name: part + random.normal(0, 0.01, part.shape).astype(np.float32) for name, part in clear.items()}
    found = study_amt2.readings(clear, study, study.pairs[0], Path())
    assert found["labels"] == ["a", "b", "rare"]
    assert found["shared"] == ["a", "b"]
    assert found["f1"] == {"0": 1.0, "0.01": 1.0, "0.05": 1.0, "0.1": 1.0}
    noise = {name: random.normal(size=part.shape).astype(np.float32) for name, part in clear.items()}
    assert all(score < 0.65 for score in study_amt2.readings(noise, study, study.pairs[0], Path())["f1"].values())
    assert [len(scores) for scores in found["each"].values()] == [1, 10, 10, 10]
