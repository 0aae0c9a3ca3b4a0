"""Reading one checkpoint: what it holds is held to the digests that were saved with it."""

import errno
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from midillm_jax.training import digest

FOLDER = "checkpoints"
"""Of a run, with a folder for each step."""


class Damaged(Exception):
    """A checkpoint does not hold what was saved."""


def first_line(error: BaseException) -> str:
    """What an exception says, without TensorStore's pages and its stack of quoted paths: kind and innermost cause."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].partition(" See full TensorStore details")[0]
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
