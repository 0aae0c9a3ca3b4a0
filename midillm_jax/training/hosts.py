"""Several processes as one run: how they find each other, which rows each reads, and how they end together.

On TPU VMs, on GKE, under SLURM and under Open MPI, jax.distributed finds the processes by itself. Elsewhere three
environment variables tell each process: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
JAX_PROCESS_ID; launch/local.sh sets them. JAX_NUM_PROCESSES=1 keeps a process to itself wherever it runs. On a machine
that is no part of a cluster nothing is asked over the network.

They are variables and not fields of the config because they say where a run is, not what it is.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from midillm_jax.errors import TryAgain, UserError
from midillm_jax.model import sharding

ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT = "MIDILLM_HEARTBEAT_SECONDS"
"""A process that was not heard of for so long is taken for dead, and the others end (DEFAULT_HEARTBEAT)."""
DEFAULT_HEARTBEAT = 40
WAIT_SECONDS = 1800
"""Longest that a process waits for the others to have compiled."""
SHUTDOWN_SECONDS = 60
"""Longest that a process which is done waits for the others to be."""
GRACE_SECONDS = 15
"""Longest that a process which failed waits for the others to fail likewise, and they go on; half the heartbeat if
that is less, so that they have said why before the end of this one is taken for a death."""
FAILURES = "midillm_jax/failed/"
"""Keys of the processes' shared table: what ended each of them."""
GONE = "midillm_jax/gone/"
"""Keys of those that did not wait for the others any longer."""


@contextmanager
def joined() -> Iterator[None]:
    """Joins the other processes of the run, if there are any, and leaves together with them.

    Comes before anything touches a device. A failure that all processes share is told by the first one alone, and all
    end with its exit code. Where only some fail, each tells its own, and the others end within GRACE_SECONDS; of one
    that is gone without a word they learn by the heartbeat.

    Raises:
        UserError: the environment is contradictory.
        TryAgain: the others were not found in time.
    """
    _join()
    if not jax.distributed.is_initialized() or jax.process_count() == 1:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(target=_end_with_others, args=(done,), daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        done.set()
        watch.join()
        _fail(error)
        raise
    done.set()
    watch.join()
    jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process writes and prints for all."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Returns when every process has come here; ``what`` is a name used once.

    Before a program's first exchange: Gloo gives up after 30 s, which on a busy machine is less than two processes may
    be apart in compiling it.
    """
    if jax.process_count() > 1:
        _state().client.wait_at_barrier(f"midillm_jax/{what}", WAIT_SECONDS * 1000)


def same_everywhere(value: int) -> int | None:
    """``value`` where all processes gave the same one, else None."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.int64(value))
    return value if (values == value).all() else None


def first_says(value: bool) -> bool:
    """What the first process passed."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.bool_(value)))


def any_says(value: bool) -> bool:
    """Whether any process passed True."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.bool_(value)).any())


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Which share of a batch's rows this process reads, and how many shares there are.

    Processes whose devices hold the same rows, as they do where the tensor axis spans processes, read the same share.

    Raises:
        UserError: the rows of two processes overlap in part.
    """
    if jax.process_count() == 1:
        return 0, 1
    axes = [mesh.axis_names.index(axis) for axis in sharding.BATCH_AXES]
    shards = np.moveaxis(mesh.devices, axes, range(len(axes))).reshape(sharding.batch_shards(mesh), -1)
    held: dict[int, set[int]] = {}
    for shard, devices in enumerate(shards):
        for device in devices:
            held.setdefault(device.process_index, set()).add(shard)
    shares = sorted({tuple(sorted(each)) for each in held.values()})
    if sum(map(len, shares)) != len(shards) or len({len(share) for share in shares}) > 1:
        raise UserError(
            f"mesh: the tensor axis of {mesh.shape['tensor']} devices splits rows unevenly over "
            f"{jax.process_count()} processes of {jax.local_device_count()} devices; choose a --mesh.tensor that "
            "divides those, or is a multiple of them."
        )
    return shares.index(tuple(sorted(held[jax.process_index()]))), len(shares)


def _join() -> None:
    """Starts jax.distributed where there are several processes; a machine alone is left as it is."""
    options: dict[str, Any] = {
        "heartbeat_timeout_seconds": _positive(HEARTBEAT) or DEFAULT_HEARTBEAT,
        "shutdown_timeout_seconds": SHUTDOWN_SECONDS,
    }
    count = _positive(COUNT)
    if count == 1 or (count is None and NUMBER not in os.environ and _lone_tpu_host()):
        return
    address = os.environ.get(ADDRESS, "")
    if count is not None or NUMBER in os.environ:
        missing = [name for name in (ADDRESS, COUNT, NUMBER) if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"{' and '.join(missing)} missing in the environment; set {ADDRESS} (host:port), {COUNT} and {NUMBER}, "
                "or none of them."
            )
        number = os.environ[NUMBER]
        if not number.isdecimal() or int(number) >= (count or 0):
            raise UserError(f"{NUMBER} is {number!r}; expected 0 to {(count or 0) - 1}, as {COUNT} is {count}.")
        options |= {"num_processes": count, "process_id": int(number), "cluster_detection_method": "deactivate"}
    if address and not address.rpartition(":")[2].isdecimal():
        raise UserError(f"{ADDRESS} is {address!r}; expected host:port, such as 10.0.0.2:8476.")
    if address.startswith(("127.", "localhost:")):
        options["coordinator_bind_address"] = address  # not to be reached from elsewhere
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    before = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(**options)
    except ValueError as error:
        # jax has no other way of saying that it found no cluster.
        if address or "coordinator_address should be defined" not in str(error):
            raise UserError(
                f"{error} Set {ADDRESS}, {COUNT} and {NUMBER}, or {COUNT}=1 for this process alone."
            ) from error
    except RuntimeError as error:
        raise TryAgain(
            f"the other processes of this run were not found ({error}); start all of them within 5 minutes, or set "
            f"{COUNT}=1 for this process alone."
        ) from error
    # jax takes SIGTERM for a notice that it only writes down; the training loop has its own answer, and before it
    # begins the signal ends the process.
    signal.signal(signal.SIGTERM, before)


def _lone_tpu_host() -> bool:
    """Whether the environment names a TPU slice of one host; jax would wait for that name to resolve."""
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES")
    return bool(hosts) and "," not in str(hosts) and os.environ.get("MEGASCALE_NUM_SLICES", "1") == "1"


def _positive(name: str) -> int | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{name} is {text!r} in the environment; expected a number of 1 or more.")
    return int(text)


def _patience() -> int:
    """Seconds from a failure to the end of the processes that do not share it."""
    grace = min(GRACE_SECONDS, (_positive(HEARTBEAT) or DEFAULT_HEARTBEAT) // 2)
    # With process 0 goes the service by which the others learn, and they are aborted: it goes last.
    return grace if jax.process_index() else grace + 5


def _state() -> Any:
    # The table that the processes share has no public name yet; Orbax reaches it in the same way.
    from jax._src.distributed import global_state

    return global_state


def _failures() -> dict[int, str]:
    """What ended each of the processes that failed."""
    found = _state().client.key_value_dir_get(FAILURES)
    return {int(key.rpartition("/")[2]): sentence for key, sentence in found}


def _fail(error: BaseException) -> None:
    """Tells the others what happened here, and waits a little for them to say the same.

    Raises:
        SystemExit: all failed alike, and the first process is the one to tell.
    """
    number, count = jax.process_index(), jax.process_count()
    sentence = f"{type(error).__name__}: {error}"
    table = _state().client
    table.key_value_set(f"{FAILURES}{number}", sentence)
    until = time.monotonic() + _patience()
    while len(failed := _failures()) < count and time.monotonic() < until:
        time.sleep(0.1)
    if len(failed) == count and not table.key_value_dir_get(GONE):
        jax.distributed.shutdown()
        if number and failed[0] == sentence and isinstance(error, UserError):
            raise SystemExit(2) from None
        return
    table.key_value_set(f"{GONE}{number}", "")
    others = "".join(f"; process {other}: {what}" for other, what in sorted(failed.items()) if other != number)
    print(f"process {number} of {count} ends without the others{others}", file=sys.stderr)
    # At the end of Python jax would wait for all processes to be done, which they will never be. What is registered
    # last is called first: after the error was told, and before jax's own.
    atexit.register(_leave, _exit_code(error))


def _exit_code(error: BaseException) -> int:
    """That of commands.run."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UserError | OSError | ModuleNotFoundError) else 1


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_others(done: threading.Event) -> None:
    """Runs beside the training: ends this process where another has failed and this one has not, in time, as well."""
    while not done.wait(2.0):
        failed = _failures()
        if failed and not done.wait(_patience()):
            told = "; ".join(f"process {number}: {what}" for number, what in sorted(failed.items()))
            print(f"error: this process ends because another one failed: {told}", file=sys.stderr, flush=True)
            os._exit(1)
