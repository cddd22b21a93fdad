"""What the package shows: names that exist, are documented, and take the object first and the rest by keyword."""

import inspect
import re
from pathlib import Path

import pytest

import uce

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = [name for name in uce.__all__ if not name.startswith("__")]


def test_all_is_sorted_and_complete() -> None:
    assert list(uce.__all__) == sorted(uce.__all__)
    assert set(FUNCTIONS) == set(uce._PUBLIC)
    assert set(dir(uce)) == set(uce.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = uce.nothing


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_object_comes_first_and_the_rest_by_keyword(name: str) -> None:
    signature = inspect.signature(getattr(uce, name))
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    assert sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds) <= 2
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_documented(name: str) -> None:
    text = inspect.getdoc(getattr(uce, name)) or ""
    assert len(text) > 60
    everything = "\n".join(path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    assert re.search(rf"uce\.{name}\b", everything), f"uce.{name} is in no page of the docs"


def test_the_readme_is_short_and_starts_with_a_command() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert 80 <= len(lines) <= 150
    assert any("uce demo" in line for line in lines[:20])


def test_ci_runs_the_very_test_command_of_the_readme() -> None:
    command = "scripts/check.py"
    readme = next(line for line in (ROOT / "README.md").read_text().splitlines() if command in line)
    ci = next(line for line in (ROOT / ".ci" / "run").read_text().splitlines() if command in line)
    assert readme == ci


def test_links_of_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
