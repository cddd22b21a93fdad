"""Configurations: what a file may hold, what an override may change, and what is refused in which words."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uce.config import build_config, config_to_dict, read_config, write_config
from uce.errors import UsageError


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    widths: tuple[int, ...] = (8, 4)
    kind: Literal["plain", "fancy"] = "plain"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UsageError("inner.rate is negative.")


@dataclass(frozen=True)
class Circle:
    name: Literal["circle"] = "circle"
    radius: float = 1.0


@dataclass(frozen=True)
class Square:
    name: Literal["square"] = "square"
    side: int = 2


@dataclass(frozen=True)
class Drawing:
    shape: Circle | Square = field(default_factory=Circle)


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 10
    quick: bool = False
    note: str | None = None
    inner: Inner = field(default_factory=Inner)


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_and_overrides_make_a_configuration_in_that_order(tmp_path: Path) -> None:
    path = _file(tmp_path, "name: a\nsteps: 5\ninner:\n  rate: 0.5\n  widths: [3]\n")
    config = read_config(Outer, path, overrides=["inner.rate=2", "steps=7", "steps=8", "inner.kind=fancy"])
    assert config == Outer("a", steps=8, inner=Inner(rate=2.0, widths=(3,), kind="fancy"))
    assert isinstance(config.inner.rate, float)


@pytest.mark.parametrize(
    ("text", "overrides", "shape"),
    [
        ("", [], Circle()),
        ("shape: {radius: 3}", [], Circle(radius=3.0)),
        ("shape: {name: square, side: 5}", [], Square(side=5)),
        ("shape: {name: circle}", ["shape.name=square", "shape.side=7"], Square(side=7)),
    ],
)
def test_a_name_chooses_among_several_kinds_and_the_first_needs_none(
    tmp_path: Path, text: str, overrides: list[str], shape: Circle | Square
) -> None:
    config = read_config(Drawing, _file(tmp_path, text), overrides=overrides)
    assert config == Drawing(shape)
    assert build_config(Drawing, config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "shape: {name: sqare}",
            r"shape\.name: 'sqare' found; one of circle, square is needed\. Did you mean square\?",
        ),
        ("shape: {name: square, radius: 3}", r"unknown key shape\.radius"),
        ("shape: {name: [square]}", r"shape\.name: \['square'\] found"),
        ("shape: 5", "shape: 5 found; keys below it are needed"),
        ("shape: null", "shape: None found; keys below it are needed"),
    ],
)
def test_a_kind_that_is_not_known_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_config(Drawing, _file(tmp_path, text))


def test_an_override_can_make_keys_the_file_does_not_have(tmp_path: Path) -> None:
    config = read_config(Outer, _file(tmp_path, ""), overrides=["name=b", "inner.widths=[1, 2, 3]", "note=null"])
    assert config == Outer("b", inner=Inner(widths=(1, 2, 3)))


@pytest.mark.parametrize(("written", "value"), [("1e-4", 1e-4), ("3e5", 3e5), ("2", 2.0), ("1.5", 1.5)])
def test_numbers_that_yaml_reads_as_text_are_read_as_numbers(tmp_path: Path, written: str, value: float) -> None:
    assert read_config(Outer, _file(tmp_path, f"name: a\ninner: {{rate: {written}}}")).inner.rate == value


def test_a_whole_number_may_be_written_with_an_exponent(tmp_path: Path) -> None:
    assert read_config(Outer, _file(tmp_path, "name: a\nsteps: 1e3")).steps == 1000


@given(
    st.builds(
        Outer,
        name=st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
        steps=st.integers(),
        quick=st.booleans(),
        note=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
        inner=st.builds(
            Inner,
            rate=st.floats(min_value=0, allow_nan=False, allow_infinity=False),
            widths=st.lists(st.integers()).map(tuple),
            kind=st.sampled_from(["plain", "fancy"]),
        ),
    )
)
def test_what_is_written_is_read_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Outer) -> None:
    path = tmp_path_factory.mktemp("configs") / "run.yaml"
    write_config(config, path)
    assert read_config(Outer, path) == config
    assert build_config(Outer, config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nstep: 5", r"unknown key step\. Did you mean steps\?"),
        ("name: a\ninner: {ratte: 5}", r"unknown key inner\.ratte\. Did you mean rate\?"),
        ("steps: 5", "name is missing"),
        ("name: a\nname: b", r"name is set twice \(line 2\)"),
        ("name: a\ninner: {rate: 1, rate: 2}", "rate is set twice"),
        ("name: a\nsteps: 1.5", "steps: 1.5 found; a whole number is needed"),
        ("name: a\nsteps: '1.5'", "steps: '1.5' found; a whole number is needed"),
        ("name: a\nsteps: true", "steps: True found; a whole number is needed"),
        ("name: a\ninner: {rate: fast}", r"inner\.rate: 'fast' found; a number is needed"),
        ("name: 5", "name: 5 found; text is needed"),
        ("name: a\nquick: 1", "quick: 1 found; true or false is needed"),
        ("name: a\ninner: 5", r"inner: 5 found; keys below it are needed"),
        ("name: a\ninner: {kind: fanzy}", r"'fanzy' found; one of plain, fancy is needed\. Did you mean fancy\?"),
        ("name: a\ninner: {widths: 3}", r"inner\.widths: 3 found; a list is needed"),
        ("name: a\ninner: {widths: [3, x]}", r"inner\.widths: 'x' found; a whole number"),
        ("name: a\ninner: {rate: -1}", r"inner\.rate is negative"),
        ("- a\n- b", "list found; a configuration is a mapping"),
        ("name: [a", "not readable as YAML on line"),
        ("5: a", "key 5 on line 1 is not text"),
        ("name: !!python/object/apply:os.system ['true']", "not readable as YAML"),
    ],
)
def test_a_mistake_is_named_with_the_file_and_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=f"run.yaml: .*{message}"):
        read_config(Outer, _file(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "steps: not an override; write key=value"),
        ("=5", "=5: not an override"),
        ("inner..rate=5", "not an override"),
        ("name.first=5", "name holds one value and has no keys below it"),
        ("inner.widths=[1", "override inner.widths=.*: not readable as YAML"),
        ("inner.wdths=[1]", "unknown key inner.wdths. Did you mean widths"),
    ],
)
def test_an_override_that_cannot_be_used_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_config(Outer, _file(tmp_path, "name: a"), overrides=[override])


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml: no such file"):
        read_config(Outer, tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="not a text file"):
        read_config(Outer, tmp_path)
