"""What all commands share: how an error reaches the person, and with which exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from midillm_jax.errors import UserError


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


def enable_compile_cache() -> None:
    """Keeps compiled programs on disk, so that a command's second run starts at once.

    JAX_COMPILATION_CACHE_DIR names the folder; else it is ``midillm_jax`` in the user's cache folder.
    """
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "midillm_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
