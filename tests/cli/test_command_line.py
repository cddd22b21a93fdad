"""The `uce` command: help, exit codes, one line per error, JSON on stdout and words on stderr."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from uce.cli.main import build_parser, main


def parsers(parser: argparse.ArgumentParser, name: str = "uce") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from parsers(child, f"{name} {word}")


COMMANDS = dict(parsers(build_parser()))


@pytest.fixture
def source(make_cells: Callable[..., ad.AnnData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_cells().write_h5ad("in.h5ad")
    return tmp_path / "in.h5ad"


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    assert "example: uce" in COMMANDS[name].format_help().replace("\n", " ")
    for action in COMMANDS[name]._actions:
        assert action.help or isinstance(action, argparse._SubParsersAction), f"{name} {action.dest}"


def test_the_example_of_every_command_parses() -> None:
    for parser in COMMANDS.values():
        words = str(parser.epilog).removeprefix("example: uce ").split()
        build_parser().parse_args(words)


def test_embed_writes_beside_the_user_and_says_so(
    source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", str(source), "--model", str(tiny_folder)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("in.uce.h5ad: 60 cells in ")
    assert "species: homo_sapiens" in said.err
    assert "health: genes" in said.err
    assert ad.read_h5ad("in.uce.h5ad").obsm["X_uce"].shape == (60, 16)


def test_embed_as_json_is_only_json(source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(source), "--model", str(tiny_folder), "--species", "human", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["cells"], done["output"], done["health"]["cells"]) == (60, "in.uce.h5ad", 60)


def test_umap_draws_a_picture_of_every_key(source: Path, tiny_folder: Path) -> None:
    words = ["--model", str(tiny_folder), "--species", "human", "--umap", "map.png", "--color", "kind"]
    assert main(["embed", str(source), *words]) == 0
    assert Path("map.png").read_bytes().startswith(b"\x89PNG")
    assert main(["embed", str(source), "-o", "b.h5ad", *words]) == 5  # the picture exists


def test_an_unknown_colour_is_refused_before_any_work(
    source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", str(tiny_folder), "--umap", "map.png", "--color", "kin"]
    assert main(["embed", str(source), *words]) == 2
    assert "obs has no column 'kin'. Did you mean kind?" in last_line(capsys)
    assert not Path("in.uce.h5ad").exists()


def test_a_file_of_two_species_is_embedded_by_the_species_of_each_cell(
    make_cells: Callable[..., ad.AnnData], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    both = make_cells(cells=40)
    both.obs["organism"] = ["human", "Macaca mulatta"] * 20
    both.write_h5ad("both.h5ad")
    both[both.obs["organism"] == "human"].copy().write_h5ad("human.h5ad")
    common = ["--model", str(tiny_folder), "--format", "npy"]
    assert main(["embed", "both.h5ad", *common, "--species-key", "organism"]) == 0
    assert main(["embed", "human.h5ad", *common, "--species", "human"]) == 0
    assert main(["embed", "both.h5ad", *common, "--species", "rhesus", "-o", "rhesus.npy"]) == 0
    together = np.load("both.uce.npy")
    np.testing.assert_allclose(together[::2], np.load("human.uce.npy"), atol=1e-6)
    np.testing.assert_allclose(together[1::2], np.load("rhesus.npy")[1::2], atol=1e-6)
    assert main(["embed", "both.h5ad", "--model", str(tiny_folder), "--species-key", "organism"]) == 0
    assert main(["verify", "both.uce.h5ad", "--model", str(tiny_folder)]) == 0


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["absent.h5ad"], 3, "absent.h5ad"),
        (["in.h5ad", "--model", "no-such-model"], 4, "no-such-model"),
        (["in.h5ad", "--species", "unicorn"], 2, "unicorn"),
        (["in.h5ad", "--species", "human", "--species-key", "kind"], 2, "exclude each other"),
        (["in.h5ad", "--species-key", "kind"], 3, "kind 0"),
        (["in.h5ad", "--seed", "-1"], 2, "--seed -1"),
        (["in.h5ad", "--replicates", "0"], 2, "--replicates 0"),
        (["in.h5ad", "--device", "cuda"], 2, "--device cuda"),
        (["in.h5ad", "--layer", "nope"], 2, "nope"),
        (["in.h5ad", "--gene-column", "nope"], 2, "nope"),
        (["in.h5ad", "-o", "absent/out.h5ad"], 6, "no such folder"),
        (["in.h5ad", "-o", "in.h5ad"], 2, "one file"),
        (["in.h5ad", "--inplace", "--format", "npy"], 2, "--inplace"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    source: Path, tiny_folder: Path, words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--model" in words else ["--model", str(tiny_folder)]
    assert main(["embed", *words, *model]) == code
    said = capsys.readouterr().err
    assert last_line_of(said).startswith("error: ")
    assert text in last_line_of(said)
    assert "Traceback" not in said
    assert sorted(path.name for path in source.parent.iterdir()) == ["in.h5ad"]


def last_line_of(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_check_says_yes_with_reasons_and_no_with_exit_code(
    source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(source), "--model", str(tiny_folder)]) == 0
    assert "can be embedded" in capsys.readouterr().out
    scaled = ad.read_h5ad(source)
    scaled.X = scaled.X.toarray() - 0.5
    scaled.write_h5ad("scaled.h5ad")
    assert main(["check", "scaled.h5ad", "--model", str(tiny_folder), "--json"]) == 3
    verdict = json.loads(capsys.readouterr().out)
    assert not verdict["ok"]
    assert "negative" in verdict["problems"][0]


def test_verify_goes_from_the_record_alone(source: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(source), "--model", str(tiny_folder), "--species", "human"]) == 0
    capsys.readouterr()
    assert main(["verify", "in.uce.h5ad", "--model", str(tiny_folder)]) == 0
    assert "verified: 60 cells" in capsys.readouterr().out


def test_species_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["species", "list"]) == 0
    assert "danio_rerio" in capsys.readouterr().out
    assert main(["species", "show", "zebrafish", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["species"] == "danio_rerio"
    assert facts["genes"] > 20_000
    assert main(["species", "show", "unicorn"]) == 2


def test_models_are_listed_and_shown(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert {"uce-mini", "uce-4l", "uce-33l"} <= set(listed.split())
    assert main(["models", "show", str(tiny_folder)]) == 0
    assert "licence" in capsys.readouterr().out.lower()
    assert main(["models", "show", "uce-33l"]) == 4


def test_a_reader_that_leaves_early_is_no_error() -> None:
    line = f"{sys.executable} -m uce species show human | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
