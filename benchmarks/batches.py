"""How fast batches are made, how full their rows are, what worker processes and resuming cost.

    python benchmarks/batches.py --midi my_midi --text my_text --json batches.json
    python benchmarks/batches.py                     # the demo's band instead of a folder of one's own

Makes its own shards (in a temporary folder, or in --work DIR, where a second run finds them), captions included, and
reads them in rows of 2,048 tokens. Tokens are counted per CPU second, of all threads and processes together, so that
other work on the machine matters little. Reads /proc, so it runs on Linux.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, LENGTH, STREAMS = 16, 2_048, 16
PAPER = {"spans": 0.1, "random": 0.4, "instruments": 0.4}
SLOW = "MIDILLM_BENCHMARK_READ_SECONDS"
TICK = 1 / os.sysconf("SC_CLK_TCK")


def make_shards(arguments: argparse.Namespace, work: Path) -> dict[str, Path]:
    """Folders by name: midi, pairs, short (the band's pieces, 34 notes on average), text; and the tokenizer."""
    from midillm_jax import prepare

    paths = {name: work / name for name in ("midi", "pairs", "short", "text")} | {"tokenizer": work / "t.model"}
    band = work / "band"
    if not band.exists():
        prepare.main(["demo", "--out", str(band), "--pieces", "800", "--profile", "small"])
    music = arguments.midi or band / "midi"
    text = arguments.text or band / "text"
    left_out = ["--exclude", *arguments.exclude] if arguments.exclude else []
    captions = band / "captions.jsonl"
    if arguments.midi:
        captions = work / "captions.jsonl"
        prepare.main(["caption", "--input", str(music), "--out", str(captions), *left_out])
    size = "8000" if arguments.text else "1000"
    prepare.main(["tokenizer", "--input", str(text), "--vocab-size", size, "--out", str(paths["tokenizer"]), *left_out])
    prepare.main(["midi", "--input", str(music), "--out", str(paths["midi"]), *left_out])
    prepare.main(["pairs", "--input", str(captions), "--out", str(paths["pairs"])])
    prepare.main(["midi", "--input", str(band / "midi"), "--out", str(paths["short"])])
    options = ["--tokenizer", str(paths["tokenizer"]), "--out", str(paths["text"]), *left_out]
    prepare.main(["text", "--input", str(text), *options])
    return paths


def configurations(paths: dict[str, Path]) -> dict[str, Any]:
    """Name -> DataConfig."""
    from midillm_jax.config import AnticipationConfig, DataConfig, Source

    def music(folder: str, **options: Any) -> DataConfig:
        source = (Source(str(paths[folder])),)
        return DataConfig(
            str(paths["tokenizer"]), LENGTH, ROWS, 0, music=source, streams=STREAMS, prefetch=0, **options
        )

    paper = AnticipationConfig(**PAPER)
    every = {"anticipation": paper, "transpose": 5, "tempo_stretch": 0.1}
    text = (Source(str(paths["text"])),)
    return {
        "plain": music("midi"),
        "anticipation": music("midi", anticipation=paper),
        "anticipation, transposition, stretch": music("midi", **every),
        "captions, all of these": music("pairs", caption_dropout=0.1, alter_captioned=True, **every),
        "short pieces, all of these": music("short", **every),
        "text": DataConfig(str(paths["tokenizer"]), LENGTH, 0, ROWS, text=text, streams=STREAMS, prefetch=0),
    }


def open_batches(config: Any) -> Any:
    from midillm_jax.data.batches import Batches
    from midillm_jax.text.tokenizer import load_tokenizer

    size = load_tokenizer(config.tokenizer).vocab_size
    return Batches(config, split="train", text_vocab_size=size, seed=0)


def slow_reads() -> None:
    """Lets every read of a record wait, as from storage far away; in the workers as well, which import this file."""
    from midillm_jax.data.shards import SplitReader

    seconds, read = float(os.environ[SLOW]), SplitReader.__getitem__

    def slowly(self: SplitReader, record: int) -> bytes:
        time.sleep(seconds)
        return read(self, record)

    SplitReader.__getitem__ = slowly  # type: ignore[method-assign]


def one_process(config: Any, count: int) -> dict[str, float]:
    """Rate and filling of ``count`` batches; the first, which reads 16 pieces a stream, is not counted."""
    with open_batches(config) as batches:
        next(batches)
        filled = notes = pieces = 0
        began = time.process_time()
        for _ in range(count):
            batch = next(batches)
            filled += int((batch["segment_ids"] > 0).sum())
            notes += int((batch["slot"] == 2).sum())
            pieces += int(batch["segment_ids"].max(axis=1).sum())
        seconds = time.process_time() - began
    tokens = count * ROWS * LENGTH
    return {
        "tokens_a_cpu_second": tokens / seconds,
        "filled": filled / tokens,
        "segments_a_row": pieces / count / ROWS,
        "triples_a_row": notes / count / ROWS,
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def memory_bytes(pid: int) -> dict[str, int]:
    """Peak resident memory, and present memory with what is shared counted by its part."""
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    part = next(line for line in rollup if line.startswith("Pss:"))
    return {"peak": int(peak.split()[1]) * 1024, "part": int(part.split()[1]) * 1024}


def several_processes(config: Any, workers: int, count: int) -> dict[str, Any]:
    """What ``workers`` processes make; 0 is the thread alone."""
    import dataclasses

    with open_batches(dataclasses.replace(config, workers=workers, prefetch=4)) as batches:
        began = time.perf_counter()
        next(batches)
        first = time.perf_counter() - began
        for _ in range(20):  # what was made ahead while nobody read
            next(batches)
        pids = [process.pid for process in multiprocessing.active_children()]
        before = {pid: cpu_seconds(pid) for pid in (os.getpid(), *pids)}
        began = time.perf_counter()
        for _ in range(count):
            next(batches)
        elapsed = time.perf_counter() - began
        used = {pid: cpu_seconds(pid) - before[pid] for pid in before}
        memory = [memory_bytes(pid) for pid in pids]
    tokens = count * ROWS * LENGTH
    return {
        "first_batch_seconds": first,
        "tokens_a_second": tokens / elapsed,
        "tokens_a_cpu_second": tokens / sum(used.values()),
        "tokens_a_cpu_second_of_the_parent": tokens / max(used[os.getpid()], TICK),
        "cores_used": sum(used.values()) / elapsed,
        "worker_peak_mb": max((each["peak"] for each in memory), default=0) / 2**20,
        "worker_part_mb": max((each["part"] for each in memory), default=0) / 2**20,
    }


def resuming(config: Any, count: int) -> dict[str, float]:
    """Seconds from a saved state to the next batch, and the state's size."""
    with open_batches(config) as batches:
        for _ in range(count):
            next(batches)
        state = json.dumps(batches.get_state())
        expected = next(batches)
    with open_batches(config) as batches:
        began = time.perf_counter()
        batches.set_state(json.loads(state))
        restored = time.perf_counter() - began
        found = next(batches)
        ready = time.perf_counter() - began
    assert all((found[name] == expected[name]).all() for name in expected)
    return {"set_state_seconds": restored, "next_batch_seconds": ready, "bytes_a_stream": len(state) / STREAMS}


def report(results: dict[str, Any]) -> None:
    """Prints the tables."""
    print(f"\nrows of {LENGTH:,} tokens, one process\n")
    print("| rows | slots filled | tokens a CPU second | segments a row |\n|---|---|---|---|")
    for name, row in results["one_process"].items():
        rate, segments = row["tokens_a_cpu_second"], row["segments_a_row"]
        print(f"| {name} | {100 * row['filled']:.2f} % | {rate:,.0f} | {segments:.1f} |")
    print("\nanticipation, transposition, stretch, by several processes\n")
    print("| workers | tokens/s | cores used | tokens a CPU second | of the parent | first batch | worker, peak MB |")
    print("|---|---|---|---|---|---|---|")
    for name, row in results["workers"].items():
        rates = f"{row['tokens_a_second']:,.0f} | {row['cores_used']:.1f} | {row['tokens_a_cpu_second']:,.0f}"
        rest = f"{row['first_batch_seconds']:.1f} s | {row['worker_peak_mb']:.0f} ({row['worker_part_mb']:.0f} its own)"
        print(f"| {name} | {rates} | {row['tokens_a_cpu_second_of_the_parent']:,.0f} | {rest} |")
    wait = results["read_seconds"]
    print(f"\nthe same where every read of a record waits {1000 * wait:.0f} ms, as from far away\n")
    print("| workers | tokens/s |\n|---|---|")
    for name, row in results["slow_reads"].items():
        print(f"| {name} | {row['tokens_a_second']:,.0f} |")
    row = results["resuming"]
    print(
        f"\nresuming: {row['set_state_seconds']:.3f} s to set the state of {STREAMS} streams "
        f"({row['bytes_a_stream']:.0f} bytes each), {row['next_batch_seconds']:.3f} s until the next batch"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--midi", type=Path, help="a folder of MIDI files; the band's if none is named")
    parser.add_argument("--text", type=Path, help="a folder of text; the band's if none is named")
    parser.add_argument("--exclude", nargs="*", default=[], help="what of these folders to leave out")
    parser.add_argument("--batches", type=int, default=100, help=f"of {ROWS} rows, to measure each figure on")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--read-seconds", type=float, default=0.02, help="what a slow read takes, for the last table")
    parser.add_argument("--work", type=Path, help="where shards are kept; a temporary folder if none is named")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):
            paths = make_shards(arguments, work)
        configs = configurations(paths)
        every = configs["anticipation, transposition, stretch"]
        results = {
            "one_process": {name: one_process(config, arguments.batches) for name, config in configs.items()},
            "workers": {count: several_processes(every, count, 10 * arguments.batches) for count in arguments.workers},
            "resuming": resuming(every, arguments.batches),
        }
        os.environ[SLOW] = str(arguments.read_seconds)
        slow_reads()
        results |= {
            "read_seconds": arguments.read_seconds,
            "slow_reads": {
                count: several_processes(every, count, arguments.batches // 2 + 1) for count in arguments.workers
            },
        }
    report(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


# Worker processes import this file anew: what is heavy is imported in functions, and nothing else runs.
if __name__ == "__main__":
    main()
elif os.environ.get(SLOW):
    slow_reads()
