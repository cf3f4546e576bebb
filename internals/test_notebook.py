"""docs/notebook.ipynb runs from top to bottom, in the framework that the project begins with."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from interface import copy_project
from paths import TEMPLATE

DOCS = TEMPLATE / "docs"


def test_every_cell_runs(tmp_path, monkeypatch):
    project = copy_project(tmp_path / "project")
    (project / "docs").mkdir()
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    place = {"metadata": {"path": str(project / "docs")}}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place)
    client.execute()
    results = {
        cell.source: "".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert float(results['run.metrics["test"]["accuracy"]']) > 0.9
    assert "1, 8, 8), dtype('float32')" in list(results.values())[-1]
    assert list((project / "outputs").glob("small_cnn-digits-*/report.html"))
