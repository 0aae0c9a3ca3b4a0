"""Runs the notebooks as they stand and keeps what they show.

    pip install -e ".[train,dev,audio]"
    python notebooks/execute.py [NAME ...]        # all of them if none is named; minutes each on two CPU cores

Each runs in an empty folder with a kernel of this Python. What is kept names neither the machine nor the moment; sounds
are shortened. tests/test_notebooks.py runs the same notebooks with less to do, and holds what is kept to their source.
"""

import base64
import hashlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import scipy.signal
import soundfile

FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = tuple(sorted(path.stem for path in FOLDER.glob("*.ipynb")))
EXECUTED = "executed"
"""Key of a notebook's metadata: the digest of the source that its outputs come from."""
_MOST_SECONDS = 3600
"""That a cell may take."""
_NOISE = re.compile(r"slow_operation_alarm|^\*{20,}$|^\[Compiling module |^The operation took ")
"""Lines in which XLA says that this machine had other work too."""
_SOUND_SECONDS = 24
_HALF_RATE = 22_050
_COMPRESSION = 0.8
"""Of 0 to 1: about 3 kB a second."""


def read(name: str) -> nbformat.NotebookNode:
    """A notebook by its name, without ending."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def digest(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of what its code cells say."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def execute(name: str, folder: Path, environment: Mapping[str, str] | None = None) -> nbformat.NotebookNode:
    """A notebook with what its cells show when they run in a folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook,
        timeout=_MOST_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=os.environ | dict(environment or {}))
    return notebook


def kept(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as it is stored: short sounds, and nothing of the machine that ran it."""
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = "".join(line for line in output.text.splitlines(True) if not _NOISE.search(line))
            html = output.get("data", {}).get("text/html", "")
            if "<audio" in html:
                output.data["text/html"] = re.sub(r"data:audio/[^;]+;base64,([^\"]+)", _shortened, html)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        EXECUTED: digest(notebook),
    }
    return notebook


def _shortened(found: "re.Match[str]") -> str:
    """The beginning of a sound, as a small MP3."""
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found[1])), frames=_SOUND_SECONDS * 44_100)
    mono = scipy.signal.resample_poly(samples.mean(axis=1), _HALF_RATE, rate)
    fading = min(len(mono), _HALF_RATE // 2)
    mono[len(mono) - fading :] *= np.linspace(1, 0, fading)
    short = io.BytesIO()
    soundfile.write(short, mono, _HALF_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=_COMPRESSION)
    return f"data:audio/mpeg;base64,{base64.b64encode(short.getvalue()).decode()}"


def main(names: list[str]) -> None:
    """Runs them one after another; each replaces its file once all of its cells have run."""
    for name in names or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(kept(execute(name, Path(folder))), FOLDER / f"{name}.ipynb")
        print(f"{name}: {(FOLDER / f'{name}.ipynb').stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
