"""Reads the optimised program that XLA for TPU gives as text: what it moves over the network and through memory.

XLA's own cost_analysis() counts a loop's body once; here each computation counts as often as it runs. The text is not a
stable format: what is read is named below, and tests/training/test_hlo.py compiles programs whose traffic is known.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_TRANSFERS = {kind.upper().replace("-", "_"): kind for kind in COLLECTIVES}
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}
_ARRAY = re.compile(r"\b([a-z]+\d+\w*|pred)\[([\d,]*)\](?:\{([^{}]*)\})?")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.\-]+) = ")
_HEADER = re.compile(r"(ENTRY )?%([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"\b(?:calls|body|condition|to_apply)=%([\w.\-]+)|branch_computations=\{([^}]*)\}")
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "after-all",
    "iota",
} | {
    "partition-id",
    "opt-barrier",
    "call",
    "copy-done",
}
"""Instructions that move nothing themselves."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    opcode: str
    type: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective operation, ``times`` a step."""

    kind: str
    times: int
    bytes: int
    """Of its whole value on one device: gathered, or before it is scattered."""
    group: tuple[int, ...]
    """Devices of one group, by their place in the mesh."""
    between_slices: bool = False
    """Whether it goes over the data-centre network, between the devices of equal place in each slice."""


@dataclasses.dataclass(frozen=True)
class Program:
    computations: dict[str, dict[str, Instruction]]
    times: Counter[str]
    """How often each computation runs in a step."""
    unknown_loops: int
    """Loops whose number of turns the text does not show; they count once."""


def array_bytes(text: str, *, hbm_only: bool = False) -> int:
    """Bytes of all arrays in a type; with ``hbm_only``, of those that lie in the main memory (space 0)."""
    total = 0
    for dtype, dimensions, layout in _ARRAY.findall(text):
        if hbm_only and re.search(r"S\([1-9]", layout):
            continue
        bits = _BITS.get(dtype) or int(re.findall(r"\d+", dtype)[0])
        total += math.prod(int(size) for size in dimensions.split(",") if size) * bits // 8
    return total


def _balanced(text: str, start: int) -> int:
    """Index after the bracket that closes the one at ``start``."""
    depth = 0
    for index in range(start, len(text)):
        depth += (text[index] == "(") - (text[index] == ")")
        if not depth:
            return index + 1
    raise ValueError(f"unbalanced brackets in {text[:200]}")


def _instruction(line: str) -> Instruction | None:
    begin = _INSTRUCTION.match(line)
    if begin is None:
        return None
    rest = line[begin.end() :]
    end = _balanced(rest, 0) if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    bracket = rest.index("(")
    close = _balanced(rest, bracket)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[bracket:close]))
    if rest[:bracket] in ("constant", "parameter"):
        operands = (rest[bracket + 1 : close - 1],)
    return Instruction(begin[2], rest[:bracket], kind, operands, rest[close:], bool(begin[1]))


def parse(text: str) -> Program:
    """Takes the text of a compiled program apart and counts how often each computation runs."""
    computations: dict[str, dict[str, Instruction]] = {}
    current: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif line.startswith(" ") and (found := _instruction(line)):
            current[found.name] = found
    times: Counter[str] = Counter({entry: 1})
    unknown = 0
    # A computation stands before those that call it.
    for name in reversed(computations):
        for each in computations[name].values():
            turns = 1
            if each.opcode == "while":
                known = _turns(computations, each)
                unknown += known is None
                turns = known or 1
            for called in _called(each):
                times[called] += times[name] * turns
    return Program(computations, times, unknown)


def _called(instruction: Instruction) -> Iterator[str]:
    for name, branches in _CALLED.findall(instruction.attributes):
        yield from [name] if name else re.findall(r"%([\w.\-]+)", branches)


def _turns(computations: dict[str, dict[str, Instruction]], loop: Instruction) -> int | None:
    """Turns of a loop: from the compiler's note, else the bound that its condition compares a counter with."""
    noted = re.search(r"known_trip_count\W+n\W+(\d+)", loop.attributes)
    if noted:
        return int(noted[1])
    condition = re.search(r"condition=%([\w.\-]+)", loop.attributes)
    if condition is None:
        return None
    bounds: list[int] = []
    waiting = [condition[1]]
    while waiting:
        for each in computations[waiting.pop()].values():
            waiting.extend(_called(each))
            if each.opcode == "constant" and re.match(r"[su]\d+\[\]", each.type):
                bounds.append(int(each.operands[0]))
    return max(bounds) if bounds else None


def _group(attributes: str) -> tuple[int, ...]:
    """Devices of the first group (or pair), in any of the three ways that XLA writes groups."""
    explicit = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", attributes)
    if explicit:
        return tuple(map(int, explicit[1].split(",")))
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        groups, dims = ([int(n) for n in iota[place].split(",")] for place in (1, 2))
        order = [int(n) for n in iota[3].split(",")] if iota[3] else range(len(dims))
        ids = np.arange(math.prod(dims)).reshape(dims).transpose(list(order)).reshape(groups)
        return tuple(map(int, ids[0]))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    if named:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        inside = re.findall(r"'(\w+)'", named[2])
        ids = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        return tuple(map(int, ids[tuple(slice(None) if axis in inside else 0 for axis in sizes)].ravel()))
    return ()


def collectives(program: Program) -> list[Collective]:
    """Every collective that a step runs, with how often."""
    found = []
    chains: set[tuple[str, str]] = set()
    for name, computation in program.computations.items():
        if not program.times[name]:
            continue
        for each in computation.values():
            kind = each.opcode.removesuffix("-start")
            if kind == "recv":
                transfer = re.search(r'_xla_megascale_transfer_type="(\w+)"', each.attributes)
                if transfer:
                    # Between slices hosts do it: a device hands its part to its own, and receives the result.
                    kind = _TRANSFERS.get(transfer[1], "collective-permute")
                    array = next(_ARRAY.finditer(each.type)).group(0)
                    found.append(Collective(kind, program.times[name], array_bytes(array), (), between_slices=True))
                continue
            if kind not in COLLECTIVES or each.opcode.endswith("-done"):
                continue
            if "chain_id=" in each.attributes:
                # One transfer that several fusions carry on behind their own work stands in each of them.
                channel = re.search(r"channel_id=(\d+)", each.attributes)
                key = (kind, channel[1] if channel else each.name)
                if key in chains:
                    continue
                chains.add(key)
            kinds = each.type
            if each.opcode.endswith("-start") and kinds.startswith("("):
                # (operand, result, context ...)
                arrays = [m.group(0) for m in _ARRAY.finditer(kinds)]
                kinds = arrays[1] if len(arrays) > 1 else arrays[0]
            size = array_bytes(kinds)
            group = _group(each.attributes)
            if kind == "reduce-scatter":
                size *= max(1, len(group))
            if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                # So XLA for TPU writes a reduce-scatter: a fusion of an all-reduce and each device's slice of it.
                kind = "reduce-scatter"
            found.append(Collective(kind, program.times[name], size, group))
    return found


def wire_bytes(kind: str, size: int, members: int) -> float:
    """Bytes that each member of a group receives (and sends) by the best algorithm."""
    if kind == "collective-permute":
        return size
    share = (members - 1) / members
    return size * share * (2 if kind == "all-reduce" else 1)


def memory_traffic(program: Program) -> int:
    """Bytes that one device reads from and writes to its main memory in a step, by instructions that are not fused.

    A slice of a larger array counts as the slice, read or written, also inside a fusion.
    """
    total = 0
    for name in _scheduled(program):
        computation = program.computations[name]
        total += program.times[name] * sum(
            _traffic(program, computation, each) for each in computation.values() if each.opcode not in _FREE
        )
    return total


def biggest(program: Program, count: int) -> list[tuple[str, int]]:
    """The largest arrays in main memory that scheduled instructions write: where they come from, and bytes."""
    found: dict[tuple[str, int], None] = {}
    for name in _scheduled(program):
        for each in program.computations[name].values():
            if each.opcode in _FREE or each.type.startswith("("):
                continue
            origin = re.search(r'op_name="([^"]*)"', each.attributes)
            shape = each.type.split("{")[0]
            where = origin[1].removeprefix("jit(train_step)/") if origin else each.name
            found[f"{shape} {where}", array_bytes(each.type, hbm_only=True)] = None
    return sorted(found, key=lambda pair: -pair[1])[:count]


def _scheduled(program: Program) -> Iterator[str]:
    """Computations whose instructions run one by one: the entry's, loops' and branches'."""
    inner = {
        called
        for computation in program.computations.values()
        for each in computation.values()
        if each.opcode not in ("while", "conditional", "call")
        for called in _called(each)
    }
    yield from (name for name, times in program.times.items() if times and name not in inner)


def _traffic(program: Program, computation: dict[str, Instruction], each: Instruction) -> int:
    if each.opcode.endswith("-done"):
        return 0
    types = [computation[name].type if name in computation else "" for name in each.operands]
    result = array_bytes(each.type, hbm_only=True)
    if each.opcode.endswith("-start") and each.type.startswith("("):
        # (operand, result, context ...): the operand stands there a second time.
        result = max(0, result - sum(array_bytes(kind, hbm_only=True) for kind in types))
    if each.opcode in ("dynamic-slice", "gather"):
        return 2 * result
    if each.opcode == "dynamic-update-slice":
        return 2 * array_bytes(types[1], hbm_only=True)
    reads = [array_bytes(kind, hbm_only=True) for kind in types]
    body = next((program.computations[name] for name in _called(each)), {}) if each.opcode == "fusion" else {}
    for inner in body.values():
        if inner.opcode == "parameter" and int(inner.operands[0]) < len(reads):
            place = int(inner.operands[0])
            users = [user for user in body.values() if inner.name in user.operands]
            if users and all(user.opcode in ("dynamic-slice", "gather") for user in users):
                reads[place] = min(reads[place], sum(array_bytes(user.type) for user in users))
            elif users and all(
                user.opcode == "dynamic-update-slice" and user.operands[0] == inner.name for user in users
            ):
                updates = sum(array_bytes(body[user.operands[1]].type) for user in users)
                result = max(0, result - reads[place]) + min(reads[place], updates)
                reads[place] = 0
    return result + sum(reads)
