"""Frechet distance between two sets of embeddings, such as those that an audio network gives of real and made music.

Each set is taken for a Gaussian; the distance (squared, as the literature gives it) is

    |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

(Dowson and Landau 1982; of audio: Kilgour et al. 2019, arXiv 1812.08466). The last trace is the sum of the singular
values of A1 A2^T, where S = A^T A and A is a set's centred rows over sqrt(n - 1). No root of a matrix is taken and
nothing is added to a diagonal, so that it is exact however few rows a set has.

With few rows the distance is too large, by about a term in 1/n. Two remedies stand beside it: the distance
extrapolated to endlessly many rows of the second set (Gui et al. 2024, "Adapting Frechet Audio Distance for generative
music evaluation", arXiv 2311.01616), which leaves what the reference's size adds, and the jackknife, which corrects for
both sets' sizes and gives an interval.
"""

import dataclasses

import numpy as np

from midillm_jax.errors import UserError
from midillm_jax.evaluation.intervals import Interval

BLOCKS = 20
"""Parts of each set that the jackknife leaves out in turn."""
LEAST_ROWS = 2 * BLOCKS
"""Of a set that is scored with an interval."""
SIZES = 10
"""Sizes of subsets that the distance is extrapolated from, half of the second set to all of it."""
DRAWS = 4
"""Subsets of each size."""
_NORMAL_95 = 1.96


@dataclasses.dataclass(frozen=True)
class Extrapolation:
    """The distance that endlessly many rows of the second set would have."""

    value: float
    """May be below 0 where two sets are alike."""
    slope: float
    """What 1/n is multiplied by in the distance of n rows."""
    r2: float
    """Share of the distances' variance that the line explains; near 1, or the extrapolation means little."""


@dataclasses.dataclass(frozen=True)
class Frechet:
    """The distance of two sets, as it is and without what it owes to their sizes."""

    reference_rows: int
    rows: int
    distance: float
    """As other programs give it; compare it only between sets of the same size."""
    infinity: Extrapolation
    corrected: Interval
    """By the jackknife, over both sets; the interval holds the truth of 95 % of samples if they are near normal."""


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The squared Frechet distance of two sets of embeddings, float [n, D] and [m, D], at least two rows each.

    Raises:
        UserError: a set is too small, is no matrix of finite numbers, or their widths differ.
    """
    first, second = _checked(one, 2), _checked(other, 2)
    if first.shape[1] != second.shape[1]:
        raise UserError(
            f"one set has embeddings of {first.shape[1]} numbers, the other of {second.shape[1]}; expected the same; "
            "make both with one network"
        )
    return _distance(first, second)


def score(reference: np.ndarray, rows: np.ndarray, seed: int) -> Frechet:
    """The distance of embeddings from those of a reference, float [n, D] and [m, D], with what corrects its bias.

    Args:
        reference: of music that is as it should be, at least LEAST_ROWS rows. Rows are taken for independent: of the
            clips of a piece give the mean.
        rows: of the music that is judged, likewise.
        seed: of the subsets and blocks.

    Raises:
        UserError: as :func:`distance`.
    """
    first, second = _checked(reference, LEAST_ROWS), _checked(rows, LEAST_ROWS)
    whole = distance(first, second)
    rng = np.random.default_rng(seed)
    return Frechet(len(first), len(second), whole, extrapolate(first, second, rng), _jackknife(first, second, rng))


def extrapolate(reference: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> Extrapolation:
    """Fits a line to the distances of subsets over 1/n, and reads it at 0; sets as in :func:`score`.

    Subsets are drawn without replacement, as a row that is drawn twice makes a set look narrower than it is.
    """
    sizes = np.repeat(np.linspace(len(rows) / 2, len(rows), SIZES).astype(int), DRAWS)
    found = np.array([_distance(reference, rows[rng.choice(len(rows), size, replace=False)]) for size in sizes])
    slope, value = np.polyfit(1 / sizes, found, 1)
    left = np.sum((found - value - slope / sizes) ** 2)
    spread = np.sum((found - found.mean()) ** 2)
    return Extrapolation(float(value), float(slope), float(1 - left / spread) if spread else 0.0)


def _jackknife(reference: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> Interval:
    """The grouped jackknife of two samples (Shao and Tu 1995, "The jackknife and bootstrap")."""
    value = whole = _distance(reference, rows)
    variance = 0.0
    for sets, number in (((reference, rows), 0), ((reference, rows), 1)):
        without = []
        for block in np.array_split(rng.permutation(len(sets[number])), BLOCKS):
            left = [*sets]
            left[number] = np.delete(sets[number], block, axis=0)
            without.append(_distance(*left))
        value += (BLOCKS - 1) * (whole - float(np.mean(without)))
        variance += (BLOCKS - 1) * float(np.var(without))
    reach = _NORMAL_95 * variance**0.5
    return Interval(value, value - reach, value + reach)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    first, second = _scaled(one), _scaled(other)
    shift = one.mean(0) - other.mean(0)
    shared = np.linalg.svd(_square(first) @ _square(second).T, compute_uv=False).sum()
    # Rounding may leave a little less than nothing.
    return max(0.0, float(shift @ shift + np.sum(first**2) + np.sum(second**2) - 2 * shared))


def _scaled(rows: np.ndarray) -> np.ndarray:
    """A, whose A^T A is the covariance."""
    return (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)


def _square(scaled: np.ndarray) -> np.ndarray:
    """At most D rows with the same A^T A, which leaves the singular values of products as they are."""
    if len(scaled) <= scaled.shape[1]:
        return scaled
    return np.asarray(np.linalg.qr(scaled, mode="r"))


def _checked(rows: np.ndarray, least: int) -> np.ndarray:
    found = np.asarray(rows, np.float64)
    if found.ndim != 2 or len(found) < least or not np.isfinite(found).all():
        raise UserError(
            f"a set of embeddings of shape {found.shape}, {'all' if np.isfinite(found).all() else 'not all'} of them "
            f"finite; expected finite numbers, at least {least} rows of one width; use more pieces, or mend what made "
            "them"
        )
    return found
