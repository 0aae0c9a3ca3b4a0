"""What all commands share: how an error reaches the person, and with which exit code."""

import dataclasses
import difflib
import errno
import importlib.util
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from midillm_jax.errors import UserError

Parsed = TypeVar("Parsed")


EXTRAS = {
    "absl": "train",
    "apache_beam": "beam",
    "array_record": "train",
    "datasketch": "train",
    "etils": "train",
    "fastapi": "serve",
    "fsspec": "train",
    "gguf": "gguf",
    "gradio": "page",
    "grain": "train",
    "libtpu": "tpu",
    "llama_cpp": "llamacpp",
    "matplotlib": "train",
    "numba": "train",
    "onnxruntime": "eval",
    "optax": "train",
    "orbax": "train",
    "prometheus_client": "serve",
    "pyarrow": "train",
    "pydantic": "serve",
    "pyloudnorm": "eval",
    "orbax.checkpoint": "train",  # orbax is a folder of several packages' modules
    "scipy": "eval",
    "soundfile": "audio",
    "tensorboardX": "train",
    "tensorstore": "train",
    "torch": "clap",
    "transformers": "eval",
    "uvicorn": "serve",
    "vllm": "vllm",
}
"""Modules that a plain installation need not have, and the extra of setup.py that brings them."""


def run(command: Callable[[list[str]], None], arguments: Sequence[str] | None = None, *, resumes: bool = False) -> None:
    """Runs ``command(arguments)`` and ends the process as a command should.

    ``command`` parses the arguments itself (with tyro) and does the work. What a person can mend becomes one
    sentence on stderr and exit code 2: a :class:`UserError`, a package of an extra that is not installed, a file that
    cannot be read or written. Ctrl-C becomes exit code 130. ``--traceback`` anywhere among the arguments is taken out
    here and shows where an error came from.

    Args:
        command: what to call with the remaining arguments.
        arguments: without the program's name; the process's own when None.
        resumes: whether the same command, called again, goes on where it was stopped.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in arguments
    try:
        command([argument for argument in arguments if argument != "--traceback"])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has seen enough. Python flushes once more at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, ModuleNotFoundError, OSError) as error:
        sentence = _sentence(error)
        if traceback or sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        again = (
            "the same command goes on where this one was"
            if resumes
            else "nothing was half-written, run the same command again"
        )
        print(f"\nstopped; {again}", file=sys.stderr)
        sys.exit(130)


def _sentence(error: Exception) -> str | None:
    """What to tell the person, or None where the error is a fault of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        if error.name not in EXTRAS:
            return None
        return f"this needs the package {error.name}; pip install 'midillm_jax[{EXTRAS[error.name]}]'"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; mend that or name another place (--traceback shows who asked)."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; make room, or write to another disk."  # a full disk has no file name
    return None


def parse(
    kind: Callable[..., Parsed], arguments: list[str], *, prog: str, description: str | None, **options: Any
) -> Parsed:
    """Fills a dataclass, or calls a function, from the command line with tyro.

    Args:
        kind: the dataclass or function.
        prog: how the command is called, for its messages.
        options: further ones of tyro.cli, such as ``default``.

    Raises:
        UserError: an option that ``kind`` does not have; the nearest is named.
    """
    known = {"help", *_option_names(kind)}
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].replace("_", "-")
        # Every place of a tuple has the fields of place 0; whether it is there, tyro says.
        first = re.sub(r"\.\d+(?=\.)", ".0", name)
        plain = ".".join(part.removeprefix("no-") for part in first.split("."))
        if argument.startswith("--") and not {first, plain} & known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"`{prog} --help` lists them."
            raise UserError(f"{prog}: there is no option --{name}; {hint}")
    return tyro.cli(kind, args=arguments, prog=prog, description=description, **options)


def _option_names(kind: Any, prefix: str = "") -> Iterator[str]:
    """Names that tyro gives the fields of a dataclass or the parameters of a function.

    Nested ones have dots between, and in a tuple of dataclasses the number 0: ``data.music.0.path``.
    """
    hints = typing.get_type_hints(kind)
    marks = typing.get_type_hints(kind, include_extras=True)
    for name in inspect.signature(kind).parameters:
        if tyro.conf.OmitArgPrefixes in typing.get_args(marks[name]):
            yield from _option_names(hints[name], prefix)
            continue
        # tyro.conf.arg(name=...) stands among the marks.
        named = [own for mark in typing.get_args(marks[name]) if isinstance(own := getattr(mark, "name", None), str)]
        full = prefix + (named[0] if named else name.replace("_", "-"))
        yield full
        members = typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
        for member in members:
            if dataclasses.is_dataclass(member):
                yield from _option_names(member, f"{full}.")
            elif typing.get_origin(member) is tuple and dataclasses.is_dataclass(typing.get_args(member)[0]):
                yield from _option_names(typing.get_args(member)[0], f"{full}.0.")


def enable_compile_cache() -> None:
    """Keeps compiled programs on disk, so that a command's second run starts at once.

    JAX_COMPILATION_CACHE_DIR names the folder; else it is ``midillm_jax`` in the user's cache folder. A machine
    without jax, which serves by another engine, has nothing to keep.
    """
    if importlib.util.find_spec("jax") is None:
        return
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "midillm_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
