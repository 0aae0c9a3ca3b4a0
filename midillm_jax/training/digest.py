"""A number for every array of a state, by which a damaged checkpoint shows itself.

The bytes that a file system gives back need not be those that were written, and OCDBT, in which Orbax stores arrays,
has no checksum over their values. So each array's bits are added up, each element times an odd number that follows from
its place, modulo 2**32. One flipped bit changes the sum for certain (an odd number times a power of two is no multiple
of 2**32); a stretch that is lost, zeroed or moved goes unseen with a chance of about 2**-32. The sum is one of
integers, so that it is the same on every mesh, and it is computed where the array lies: what is held to it is the path
from one device's memory to another's.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp

_SPREAD = 2654435769
"""2**32 over the golden ratio: its multiples modulo 2**32 are spread evenly."""


def digests(tree: Any) -> Any:
    """The same tree with a uint32 scalar for each array; to be called under jax.jit."""
    return jax.tree.map(_digest, tree)


def named(tree: Any) -> dict[str, int]:
    """Digests that were computed, by the dotted path of their array."""
    paths = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): int(value) for path, value in paths}


def of_json(document: Any) -> str:
    """SHA-256 (hex) of a JSON document, however it is spelled."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _digest(x: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(bits * (place * jnp.uint32(_SPREAD) | jnp.uint32(1)), dtype=jnp.uint32)
