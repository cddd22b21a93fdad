"""Choice of labelled cells in the studies of few labels, and what their report says of rows that are known."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.config import read_config

ROOT = Path(__file__).parents[1]
COUNTS = (1, 5, 20)


@pytest.fixture(scope="module")
def few() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        import study_few_shot
    return study_few_shot


@given(
    labels=st.lists(st.sampled_from(["T", "B", "rare", "unknown", ""]), min_size=30, max_size=120),
    seed=st.integers(0, 100),
    data=st.data(),
)
def test_cells_of_fewer_labels_are_among_those_of_more_and_no_cell_is_learned_from_and_asked_about(
    few: ModuleType, labels: list[str], seed: int, data: st.DataObject
) -> None:
    apart = data.draw(st.none() | st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    chosen = [few.choose(labels, count, fewest=4, seed=seed, apart=apart) for count in COUNTS]
    learned = [set(np.flatnonzero(table["part"] == "learn")) for table in chosen]
    assert learned[0] <= learned[1] <= learned[2]
    told = np.array(labels)
    for count, table in zip(COUNTS, chosen, strict=True):
        shown, part = table["shown"].to_numpy(dtype=str), table["part"].to_numpy(dtype=str)
        assert not set(shown) & {"unknown", "unassigned"}
        assert (shown[part == "learn"] == told[part == "learn"]).all()
        asked = (part == "ask") & (shown != "")
        assert (shown[asked] == told[asked]).all()
        assert set(shown[asked]) == set(shown[part == "learn"])  # both sides have every type
        for name in set(shown) - {""}:
            cells, many = np.count_nonzero(told == name), np.count_nonzero((part == "learn") & (told == name))
            assert 1 <= many <= count
            assert apart is not None or many <= cells // 2
        if apart is not None:
            assert not (np.array(apart) & (part == "learn")).any()
            assert np.array(apart)[asked].all()


@pytest.mark.parametrize("name", ["study_few_shot.yaml", "study_adapt.yaml"])
def test_the_report_of_known_rows_says_better_only_where_the_interval_is_above_nothing(
    few: ModuleType, name: str, tmp_path: Path
) -> None:
    study = read_config(few.Study, ROOT / "configs" / name)
    (tmp_path / "rows").mkdir()
    for row in few.rows_of(study):
        seed = row.settings["seed"]
        # The first recipe is .1 above components of every seed, the last is above and below by turns.
        ways = dict.fromkeys(study.recipes, 0.6 + 0.001 * seed)
        ways[study.recipes[-1]] = 0.5 + 0.1 * (-1) ** seed
        values = {str(count): {"PCA": 0.5 + 0.001 * seed, "asked": 100, **ways} for count in study.labels_per_type}
        record = {"name": row.name, "seconds": 1.0, "settings": row.settings, "status": "done", "values": values}
        (tmp_path / "rows" / f"{row.name}.json").write_text(json.dumps(record), "utf-8")
    few.report(study, tmp_path)
    table = (tmp_path / "table.md").read_text()
    arm, count = study.arms[0], study.labels_per_type[0]
    assert f"| {count} | {arm} {study.recipes[0]} | 0.60" in table
    said = {
        (line["labels"], line["one"], line["other"]): line
        for line in json.loads((tmp_path / "verdict.json").read_text())
    }
    sure, unsure = said[count, f"{arm} {study.recipes[0]}", "PCA"], said[count, f"{arm} {study.recipes[-1]}", "PCA"]
    assert (sure["word"], unsure["word"]) == ("better", "undecided")
    assert sure["mean"] == pytest.approx(0.1)
    pair = f"{arm} {study.recipes[-1]} − {arm} probe"
    assert f"| {count} | {pair} |" in table
    assert (tmp_path / "few_shot.svg").read_text().startswith("<?xml")

    for row in few.rows_of(study):  # of one seed there is no interval, and no word
        if row.settings["seed"] != study.seeds[0]:
            (tmp_path / "rows" / f"{row.name}.json").unlink()
    few.report(study, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert f"| {count} | {arm} {study.recipes[0]} | 0.600 |" in table
    assert "nan" not in table
    assert pair not in table
    assert json.loads((tmp_path / "verdict.json").read_text()) == []
