"""Files a second and memory of building shards from an archive.

    python benchmarks/build.py FOLDER [--files 12000] [--workers 1 2] [--json build.json]

Makes .tar.gz archives of a quarter of --files and of --files members by going round the MIDI files below FOLDER, builds
each with ``python -m midillm_jax.prepare midi`` in a process of its own, and prints CPU seconds (of all processes,
start-up included), files per CPU second, elapsed time, the largest process's memory, and bytes a note on disk. The two
sizes show what grows with the number of files. On a shared machine trust CPU seconds; elapsed time is the machine's.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from midillm_jax.data.shards import read_manifest
from midillm_jax.data.sources import midi_files


def write_archive(path: Path, folder: str, files: int) -> int:
    """An archive named and laid out as Lakh's; returns the bytes of its members."""
    bodies = [record.read() for record in midi_files([folder], source="", exclude=()).records]
    total = 0
    with tarfile.open(path, "w:gz", compresslevel=6) as archive:
        for i in range(files):
            body = bodies[i % len(bodies)]
            name = hashlib.md5(f"{i}".encode() + body).hexdigest()
            member = tarfile.TarInfo(f"lmd_full/{name[0]}/{name}.mid")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
            total += len(body)
    return total


def measure(archive: Path, out: Path, workers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "midillm_jax.prepare", "midi", "--input", str(archive), "--out", str(out)]
    # A child that reports its own children: getrusage here would add up all earlier runs.
    script = (
        "import json, resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss]))"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    elapsed = time.monotonic() - started
    cpu, peak = json.loads(done.stdout)
    manifest = read_manifest(out)
    notes = sum(split.size for split in manifest.splits.values())
    stored = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    files = sum(split.records for split in manifest.splits.values()) + len(manifest.rejected)
    return {
        "files": files,
        "workers": workers,
        "cpu_seconds": cpu,
        "files_per_cpu_second": files / cpu,
        "elapsed_seconds": elapsed,
        "peak_mb": peak / (2**20 if sys.platform == "darwin" else 1024),
        "bytes_a_note": stored / notes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--files", type=int, default=12_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print("| files | MB of MIDI | workers | CPU s | files a CPU second | elapsed s | peak MB | bytes a note |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for files in (arguments.files // 4, arguments.files):
            archive = Path(scratch) / f"{files}.tar.gz"
            size = write_archive(archive, arguments.folder, files)
            for workers in arguments.workers:
                row = measure(archive, Path(scratch) / f"out-{files}-{workers}", workers) | {"midi_bytes": size}
                rows.append(row)
                print(
                    f"| {row['files']:,} | {size / 1e6:,.0f} | {workers} | {row['cpu_seconds']:.1f} | "
                    f"{row['files_per_cpu_second']:,.0f} | {row['elapsed_seconds']:.1f} | {row['peak_mb']:,.0f} | "
                    f"{row['bytes_a_note']:.2f} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps({"runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
