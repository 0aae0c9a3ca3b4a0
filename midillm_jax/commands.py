"""What all commands share: how an error reaches the person, and with which exit code."""

import dataclasses
import difflib
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from midillm_jax.errors import UserError

Parsed = TypeVar("Parsed")


def run(command: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> None:
    """Runs ``command(arguments)`` and ends the process as a command should.

    ``command`` parses the arguments itself (with tyro) and does the work. A :class:`UserError` becomes one
    sentence on stderr and exit code 2, Ctrl-C exit code 130. ``--traceback`` anywhere among the arguments is
    taken out here and shows where an error came from.

    Args:
        command: what to call with the remaining arguments.
        arguments: without the program's name; the process's own when None.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    traceback = "--traceback" in arguments
    try:
        command([argument for argument in arguments if argument != "--traceback"])
    except UserError as error:
        if traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one was", file=sys.stderr)
        sys.exit(130)


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
        plain = ".".join(part.removeprefix("no-") for part in name.split("."))
        if argument.startswith("--") and not {name, plain} & known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"`{prog} --help` lists them."
            raise UserError(f"{prog}: there is no option --{name}; {hint}")
    return tyro.cli(kind, args=arguments, prog=prog, description=description, **options)


def _option_names(kind: Any, prefix: str = "") -> Iterator[str]:
    """Names that tyro gives the fields of a dataclass or the parameters of a function, nested ones with dots."""
    hints = typing.get_type_hints(kind)
    for name in inspect.signature(kind).parameters:
        full = prefix + name.replace("_", "-")
        yield full
        members = typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
        for member in members:
            if dataclasses.is_dataclass(member):
                yield from _option_names(member, f"{full}.")


def enable_compile_cache() -> None:
    """Keeps compiled programs on disk, so that a command's second run starts at once.

    JAX_COMPILATION_CACHE_DIR names the folder; else it is ``midillm_jax`` in the user's cache folder.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "midillm_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
