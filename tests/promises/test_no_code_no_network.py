"""Promises 6 and 7: nothing that comes with data is run, and nothing is fetched unasked."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import uce
from uce.errors import ModelError

PACKAGE = Path(uce.__file__).parent
MAY_LOAD_TENSORS = {"genes/sources.py"}
# The one fetches models that a user names; the other sends a model where a user asks for that, and fetches nothing.
MAY_USE_NETWORK = {"model/catalogue.py", "model/hub.py"}
MAY_PUSH = {"cli/models.py"}
NETWORK = {"urllib.request", "http.client", "requests", "ftplib", "httpx", "httpx2", "aiohttp", "huggingface_hub"}


def sources() -> list[tuple[str, ast.Module]]:
    return [(path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())) for path in PACKAGE.rglob("*.py")]


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_module_can_unpickle_or_run_text() -> None:
    for name, tree in sources():
        names = imported(tree)
        if "pickle.UnpicklingError" in names:  # the exception alone may be named: torch's restricted reader raises it
            names -= {"pickle"} if not names & {"pickle.load", "pickle.loads", "pickle.Unpickler"} else set()
        assert not names & {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}, name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, name


def test_tensors_of_others_are_loaded_as_data_only() -> None:
    found = set()
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                found.add(name)
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("weights_only") == "True", name
    assert found <= MAY_LOAD_TENSORS
    assert found


def test_arrays_of_others_are_loaded_without_objects() -> None:
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.load":
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("allow_pickle") == "False", name


def test_two_modules_speak_to_the_network() -> None:
    speaking = {name for name, tree in sources() if imported(tree) & NETWORK}
    assert speaking == MAY_USE_NETWORK


def test_nothing_is_pushed_but_by_the_command() -> None:
    assert {name for name, tree in sources() if "uce.model.hub" in imported(tree)} == MAY_PUSH


def test_a_model_that_is_not_here_is_an_error_that_says_how_to_get_it() -> None:
    with pytest.raises(ModelError, match="uce models download uce-4l"):
        uce.load_model("uce-4l")


def test_import_is_quick_and_brings_no_torch() -> None:
    code = "import sys, uce; assert not {'torch', 'anndata', 'scanpy', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("words", [["--help"], ["embed", "--help"], ["--version"], ["embed"]])
def test_help_and_usage_errors_bring_no_torch(words: list[str]) -> None:
    code = (
        "import sys\nfrom uce.cli.main import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'anndata', 'scanpy', 'pandas', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
