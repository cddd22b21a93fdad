"""The demonstration and the notebook: what a newcomer runs first."""

from pathlib import Path

import anndata as ad
import nbformat
import pytest
from nbclient import NotebookClient

from uce.cli.main import main
from uce.demo import demo_cells

ROOT = Path(__file__).resolve().parents[1]


def test_the_demo_embeds_every_cell_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    assert main(["demo", "-o", str(output)]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "demo.h5ad"), str(tmp_path / "demo.png")]
    result = ad.read_h5ad(tmp_path / "demo.h5ad")
    assert result.obs_names.equals(demo_cells().obs_names)
    record = result.uns["uce"]["X_uce"]
    assert record["model"] == "uce-mini"
    assert record["counts_slot"] == "raw"
    assert record["health"]["counts_covered"] > 0.95
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.h5ad", "demo.png"]
    assert main(["demo", "-o", str(output)]) == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "pbmc.ipynb", as_version=4)
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )
    assert "(700, " in said
