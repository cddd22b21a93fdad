"""Model folders: what is saved comes back, by folder or name, with a card made of facts."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uce.cells.sentences import SentenceRule
from uce.errors import ModelError, OutputExistsError, StorageError
from uce.genes.tables import GeneTable
from uce.model.checkpoint import Model, check_table, load_model, save_model
from uce.model.encoder import Encoder
from uce.model.folders import find_model

Saved = Callable[..., Path]


def test_a_model_comes_back_as_it_was_saved(saved: Saved, small: Callable[..., Encoder]) -> None:
    encoder, vectors = small(readout="cls+mean", norm="pre"), torch.randn(3, 9, 8)
    chromosomes = {"homo_sapiens:1": np.ones(8, np.float32), "danio_rerio:KN149 x": np.arange(8, dtype=np.float32)}
    model = load_model(saved(encoder=encoder, chromosome_vectors=chromosomes))
    assert torch.equal(model.encoder(vectors), encoder(vectors))
    assert (model.name, model.gene_encoder, model.config) == ("tiny", "toy", encoder.config)
    assert model.rule == SentenceRule(draws=32, max_tokens=64)
    assert model.gene_tables == [{"species": "homo_sapiens", "encoder": "toy", "sha256": "ab12"}]
    assert model.info == {"objective": "masked", "metrics": {"kNN macro-F1": 0.5}}
    np.testing.assert_array_equal(model.specials, np.arange(32).reshape(4, 8))
    assert list(model.chromosome_vectors) == list(chromosomes)
    for name, vector in chromosomes.items():
        np.testing.assert_array_equal(model.chromosome_vectors[name], vector)


def test_a_loaded_model_is_frozen_in_evaluation_and_free_of_its_file(saved: Saved) -> None:
    folder = saved()
    model = load_model(folder)
    before = model.encoder.decoder[3].weight.clone()
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-4096, os.SEEK_END)
        stream.write(bytes(4096))
    assert torch.equal(model.encoder.decoder[3].weight, before)
    assert not model.encoder.training
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert model.chromosome_vectors == {}


def test_weights_of_a_model_in_training_are_saved_as_float32_for_evaluation(saved: Saved) -> None:
    encoder = Encoder(load_model(saved()).config).double().train()
    model = load_model(saved("other", encoder=encoder))
    assert {parameter.dtype for parameter in model.encoder.parameters()} == {torch.float32}
    torch.testing.assert_close(model.encoder.positions, encoder.positions.float())


def test_equal_models_give_equal_bytes_and_the_hash_sees_all_that_decides_the_numbers(
    saved: Saved, small: Callable[..., Encoder]
) -> None:
    encoder = small()
    one, two = (saved(name, encoder=encoder) for name in ("one", "two"))
    for name in ("config.json", "model.safetensors", "genes.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    same = load_model(one).sha256
    assert load_model(two).sha256 == same
    changes: list[dict[str, Any]] = [
        {"rule": SentenceRule(draws=31, max_tokens=64)},
        {"gene_encoder": "other"},
        {"specials": np.ones((4, 8), np.float32)},
        {"encoder": small()},
        {"chromosome_vectors": {"homo_sapiens:1": np.ones(8, np.float32)}},
    ]
    hashes = {load_model(saved(str(i), **{"encoder": encoder, **change})).sha256 for i, change in enumerate(changes)}
    assert len({same} | hashes) == 6
    assert load_model(saved("told", encoder=encoder, info={})).sha256 == same


def test_names_of_chromosomes_follow_their_vectors_in_the_hash(saved: Saved, small: Callable[..., Encoder]) -> None:
    encoder, vector = small(), np.ones(8, np.float32)
    one, two = (saved(name, encoder=encoder, chromosome_vectors={f"a:{name}": vector}) for name in "12")
    assert load_model(one).sha256 != load_model(two).sha256


def test_a_folder_holds_exactly_four_files_and_the_card_states_the_facts(saved: Saved) -> None:
    folder = saved(info={"training": {"cells": 11900, "sets": ["a", "b"]}, "metrics": {"F1": {"value": 0.5}}})
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "genes.json",
        "model.safetensors",
    ]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tiny"]
    card = (folder / "README.md").read_text()
    for fact in (
        "# tiny",
        "2 layers, 16 wide",
        "- cells: 11900",
        "- sets: a, b",
        "- F1: value 0.5",
        "| homo_sapiens |",
    ):
        assert fact in card
    assert "## Licence\n\nNot recorded." in card
    assert "uce embed cells.h5ad --model tiny" in card
    assert (saved("temporary", name="final") / "README.md").read_text().startswith("# final\n")


def test_a_name_is_looked_up_in_the_users_folder_before_the_bundled_models(
    saved: Saved, uce_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundled = tmp_path / "package"
    monkeypatch.setattr("uce.model.folders.BUNDLED", bundled)
    for place in (bundled, uce_home / "models"):
        place.mkdir(parents=True)
        shutil.copytree(saved(f"in-{place.name}"), place / "mini")
    assert load_model("mini").name == "mini"
    assert find_model("mini") == uce_home / "models" / "mini"
    shutil.rmtree(uce_home / "models" / "mini")
    assert find_model("mini") == bundled / "mini"


def test_an_output_folder_of_the_same_name_does_not_hide_a_model(
    saved: Saved, uce_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(saved(), uce_home / "models" / "mini")
    (tmp_path / "work" / "mini").mkdir(parents=True)
    (tmp_path / "work" / "mini" / "cells.h5ad").touch()
    monkeypatch.chdir(tmp_path / "work")
    assert find_model("mini") == uce_home / "models" / "mini"


@pytest.mark.parametrize("name", ["uce-4l", "uce-33l"])
def test_a_published_model_that_was_not_downloaded_says_how_to_get_it(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: published, but not downloaded yet. Run: uce models download {name}"):
        load_model(name)


def test_an_unknown_name_lists_what_is_there_and_the_nearest(saved: Saved, uce_home: Path) -> None:
    shutil.copytree(saved(), uce_home / "models" / "kidney")
    with pytest.raises(ModelError, match=r"no model of this name\. Did you mean kidney.* Installed: .*kidney"):
        load_model("kidny")
    with pytest.raises(ModelError, match=r"\.\./models: no model folder"):
        load_model("../models")


def test_nothing_is_overwritten_unasked_and_nothing_but_a_model_ever(saved: Saved, tmp_path: Path) -> None:
    folder = saved()
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(OutputExistsError, match="tiny exists"):
        saved()
    assert (folder / "model.safetensors").read_bytes() == before
    saved(overwrite=True, gene_encoder="newer")
    assert load_model(folder).gene_encoder == "newer"
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match=r"is not only a model folder \(thesis.txt\)"):
        saved(overwrite=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputExistsError, match=r"is not only a model folder \(no config.json\)"):
        saved("empty", overwrite=True)


def test_a_failed_save_leaves_nothing_behind(saved: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("uce.model.checkpoint.card", broken)
    with pytest.raises(KeyboardInterrupt):
        saved()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_a_storage_error(saved: Saved, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safetensors import SafetensorError

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("uce.model.checkpoint.save_file", full)
    with pytest.raises(StorageError, match=r"model.safetensors: cannot be written .*No space left.* Free some space"):
        saved()
    assert list(tmp_path.iterdir()) == []


def test_parts_that_do_not_fit_each_other_are_not_saved(saved: Saved) -> None:
    with pytest.raises(ModelError, match="4 special vectors, and chromosome vectors, of width 8 are needed"):
        saved(specials=np.zeros((3, 8), np.float32))
    with pytest.raises(ModelError, match="of width 8 are needed"):
        saved(chromosome_vectors={"homo_sapiens:1": np.zeros(9, np.float32)})
    with pytest.raises(ModelError, match="sentences of up to 65 tokens, but the encoder takes 64"):
        saved(rule=SentenceRule(draws=32, max_tokens=65))


def test_a_folder_of_format_one_still_loads() -> None:
    """The folder was written by format version 1; a later format must go on reading it, to the same numbers."""
    model = load_model(Path(__file__).parent / "format-1")
    expected = json.loads((Path(__file__).parent / "format-1-expected.json").read_text())
    vectors = torch.linspace(-1, 1, 2 * 5 * 8).reshape(2, 5, 8).sin()
    torch.testing.assert_close(model.encoder(vectors), torch.tensor(expected["embedding"]), rtol=0, atol=1e-6)
    assert model.sha256 == expected["sha256"]
    assert list(model.chromosome_vectors) == ["homo_sapiens:1", "homo_sapiens:X"]


def test_save_model_needs_no_ending_slash_nor_an_existing_parent_to_say_so(saved: Saved, tmp_path: Path) -> None:
    model = load_model(saved())
    with pytest.raises(StorageError, match="missing: no such folder"):
        save_model(
            tmp_path / "missing" / "model",
            encoder=model.encoder,
            rule=model.rule,
            specials=model.specials,
            gene_encoder="toy",
            gene_tables=[],
            info={},
        )


def fitting_table(model: Model, **changes: Any) -> GeneTable:
    facts = {"species": "gallus_gallus", "encoder": model.gene_encoder, "metadata": {}} | changes
    width = facts.pop("width", model.config.protein_dim)
    return GeneTable.from_rows(ids=["G1", "G2"], vectors=np.eye(2, width) + 1, **facts)


def test_a_model_refuses_gene_vectors_of_another_kind_and_says_how_to_make_the_right_ones(tiny_model: Model) -> None:
    check_table(tiny_model, fitting_table(tiny_model))
    check_table(tiny_model, fitting_table(tiny_model, encoder=f"{tiny_model.gene_encoder}+shifted"))
    for changes in ({"encoder": "esm2_t33_650M_UR50D"}, {"width": 5}):
        with pytest.raises(ModelError, match=r"gallus_gallus: vectors of .*tiny reads orthogroups-v1.*uce species add"):
            check_table(tiny_model, fitting_table(tiny_model, **changes))


def test_a_model_refuses_vectors_made_with_other_weights_of_the_same_name(tiny_model: Model) -> None:
    model = replace(tiny_model, gene_tables=[{"species": "homo_sapiens", "encoder_sha256": "a" * 64}])
    check_table(model, fitting_table(model))
    check_table(model, fitting_table(model, metadata={"encoder_sha256": "a" * 64}))
    with pytest.raises(ModelError, match=r"weights bbbbbbbbbbbb\.\., tiny was trained with those of aaaaaaaaaaaa"):
        check_table(model, fitting_table(model, metadata={"encoder_sha256": "b" * 64}))


def test_the_folder_around_a_model_names_it(saved: Saved, tmp_path: Path) -> None:
    folder = saved()
    with pytest.raises(ModelError, match=rf"no model folder itself, but {folder} in it is one"):
        load_model(folder.parent)
