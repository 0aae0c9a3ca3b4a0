"""Reading one checkpoint: what it holds is held to the digests that were saved with it."""

import contextlib
import errno
import importlib.util
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from midillm_jax import errors
from midillm_jax.errors import UserError
from midillm_jax.training import digest

FOLDER = "checkpoints"
"""Of a run, with a folder for each step."""


BUCKET = "gs://"


def path_of(where: str) -> Any:
    """A folder of this machine or in a bucket."""
    # Typed Any because epath's stubs follow none of pathlib's.
    return epath.Path(where) if where.startswith(BUCKET) else Path(where)


def has_checkpoints(where: str) -> bool:
    """Whether a folder is that of a run that has saved something."""
    folder = path_of(where) / FOLDER
    if not where.startswith(BUCKET):
        return bool(folder.is_dir())
    try:
        # is_dir() would be False as well where the bucket does not answer.
        return any(True for _ in folder.iterdir())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def bucket_told(where: str) -> Iterator[None]:
    """What goes wrong while a bucket is read, as one sentence; a folder of this machine is let be.

    Raises:
        UserError: gcsfs is not installed, or the bucket does not answer or does not let this machine in.
    """
    if not where.startswith(BUCKET):
        yield
        return
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"{where}: reading {BUCKET} needs the package gcsfs; pip install 'midillm_jax[cloud]'.")
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it would log is raised as well
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each library below has errors of its own
        raise UserError(
            f"{where}: cannot be read from the bucket ({first_line(error)}); see that this machine may read it, or "
            "copy the run here with `gcloud storage cp -r`."
        ) from error


class Damaged(Exception):
    """A checkpoint does not hold what was saved."""


def first_line(error: BaseException) -> str:
    """What an exception says, without TensorStore's pages and its stack of quoted paths: kind and innermost cause."""
    text = errors.first_line(error).partition(" See full TensorStore details")[0]
    kind = text.partition(": ")[0]
    innermost = text.rpartition('": ')[2]
    return innermost if innermost == text or not kind.isupper() else f"{kind}: {innermost}"


def read_documents(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The JSON items of a checkpoint, held to their digests."""
    names = ("run", "config", "digests")
    read = _undamaged(
        lambda: manager.restore(step, args=ocp.args.Composite(**{name: ocp.args.JsonRestore() for name in names}))
    )
    documents = {name: read[name] for name in names}
    try:
        expected = dict(documents["digests"]["documents"])
        dict(documents["digests"]["arrays"])
    except (KeyError, TypeError, ValueError):
        raise Damaged("has no digests that can be read") from None
    for name, value in expected.items():
        if digest.of_json(documents[name]) != value:
            raise Damaged(f"is damaged: {name} is not what was saved")
    return documents


def read_arrays(manager: ocp.CheckpointManager, step: int, target: dict[str, Any], digests: dict[str, Any]) -> Any:
    """The items of ``target`` (trees of ShapeDtypeStructs with shardings), held to their digests."""
    args = ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in target.items()})
    read = _undamaged(lambda: manager.restore(step, args=args))
    arrays = {name: read[name] for name in target}
    for name, value in digest.named(jax.jit(digest.digests)(arrays)).items():
        if digests["arrays"].get(name) != value:
            raise Damaged(f"is damaged: {name} is not what was saved")
    return arrays


def _undamaged(read: Callable[[], Any]) -> Any:
    """What ``read`` gives. What Orbax makes of a damaged file, which may be any exception, becomes Damaged."""
    try:
        return read()
    except Exception as error:
        if _is_of_the_machine(error):
            raise
        raise Damaged(f"cannot be read ({first_line(error)})") from error


def _is_of_the_machine(error: BaseException | None) -> bool:
    """Whether memory ran out or the disk or bucket does not answer, which says nothing of what lies there."""
    while error is not None:
        if isinstance(
            error, MemoryError | jax.errors.JaxRuntimeError | PermissionError | ConnectionError | TimeoutError
        ):
            return True
        if isinstance(error, OSError) and error.errno == errno.EIO:
            return True
        if any(word in str(error) for word in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED")):
            return True  # TensorStore's words, for which it has no exceptions of their own
        error = error.__cause__ or error.__context__
    return False


def with_shardings(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, placed: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), shapes, shardings
    )
