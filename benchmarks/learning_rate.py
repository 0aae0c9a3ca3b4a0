"""Which learning rate and batch suit two small widths, on pieces of one's own: what the 1B recipes' choice rests on.

    python benchmarks/learning_rate.py --out sweep            # reads corpus/, made as in docs/results.md

Every run is ``python -m midillm_jax.train --config corpus_stage1.py`` (or ``corpus_stage2.py``, from the best stage 1
of its width) with a few fields changed: the same number of tokens, warm-up over a twelfth of the steps, cosine to a
tenth. Runs that ended are not repeated. Writes ``curves.csv`` (losses on held-out pieces along every run), ``best.csv``
and ``curves.png``.
"""

import argparse
import csv
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

STAGE_1_RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
STAGE_2_RATES = (5e-4, 1e-3, 2e-3)
WIDTHS = (64, 128)
HEAD_DIM = 32
INIT_STD_AT_128 = 0.07
"""Falls with the square root of the width."""
ROW_LENGTH = 512


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run."""

    stage: int
    width: int
    rate: float
    rows: int
    """A step; in stage 1 a fifth of them are text."""
    schedule: str = "cosine"

    @property
    def name(self) -> str:
        return f"stage{self.stage}-d{self.width}-rows{self.rows}-{self.schedule}-lr{self.rate:g}"


@dataclasses.dataclass(frozen=True)
class Point:
    """Figures on held-out pieces after some steps of a run."""

    run: Run
    step: int
    tokens: int
    bits_per_note: float
    text_loss: float | None


def runs(rows: int) -> Iterator[Run]:
    """Both stages at both widths, then stage 1's batch and schedule at the smaller width."""
    for width in WIDTHS:
        for rate in STAGE_1_RATES:
            yield Run(1, width, rate, rows)
    for width in WIDTHS:
        for rate in STAGE_2_RATES:
            yield Run(2, width, rate, rows)
    for rate in STAGE_1_RATES[2:4]:
        yield Run(1, WIDTHS[0], rate, 4 * rows)
        yield Run(1, WIDTHS[0], rate, rows, schedule="constant")


def command(run: Run, folder: Path, corpus: Path, tokens: int, init_from: Path | None) -> list[str]:
    steps = tokens // (run.rows * ROW_LENGTH)
    text = run.rows // 5 if run.stage == 1 else 0
    fields = {
        "run-dir": folder,
        "steps": steps,
        "data.tokenizer": corpus / "text8000.model",
        "data.row-length": ROW_LENGTH,
        "data.music-rows": run.rows - text,
        "data.text-rows": text,
        "data.music.0.path": corpus / "pairs",
        "model.d-model": run.width,
        "model.num-heads": run.width // HEAD_DIM,
        "model.num-kv-heads": run.width // HEAD_DIM // 2,
        "model.head-dim": HEAD_DIM,
        "model.d-ff": 3 * run.width,
        "model.init-std": round(INIT_STD_AT_128 * (128 / run.width) ** 0.5, 4),
        "optimizer.learning-rate": run.rate,
        "optimizer.warmup-steps": max(1, steps // 12),
        "optimizer.final-learning-rate-share": 0.1 if run.schedule == "cosine" else 1.0,
        "checkpoint.every-steps": steps,
        "eval.every-steps": max(1, steps // 3),
        "eval.batches": 40 // run.rows,
    }
    if run.stage == 1:
        fields["data.text.0.path"] = corpus / "text"
    else:
        fields["init-from"] = init_from
        # Music rows alone are rows of every stream; stage 1 keeps the config's two streams.
        fields["data.streams"] = 1
    start = [sys.executable, "-m", "midillm_jax.train", "--config", f"corpus_stage{run.stage}.py"]
    return start + [f"--{name}={value}" for name, value in fields.items()]


def points(run: Run, folder: Path) -> list[Point]:
    with (folder / "log.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "validation"]
    return [
        Point(
            run,
            int(row["step"]),
            int(row["step"]) * run.rows * ROW_LENGTH,
            float(row["bits_per_note"]),
            float(row["text_loss"]) if row["text_loss"] else None,
        )
        for row in rows
    ]


def score(found: list[Point]) -> float:
    return found[-1].bits_per_note


def sweep(arguments: argparse.Namespace) -> dict[Run, list[Point]]:
    """Runs what has not run yet; stage 2 begins with the best stage 1 of its width."""
    results: dict[Run, list[Point]] = {}
    for run in runs(arguments.rows):
        first = [other for other in results if (other.stage, other.width, other.rows) == (1, run.width, run.rows)]
        best = min(first, key=lambda other: score(results[other]), default=None)
        folder = arguments.out / run.name
        if not (folder / "done").is_file():
            asked = command(
                run, folder, arguments.corpus, arguments.tokens, arguments.out / best.name if best else None
            )
            with (arguments.out / f"{run.name}.txt").open("w") as output:
                ended = subprocess.run(asked, stdout=output, stderr=subprocess.STDOUT, check=False)
            if ended.returncode:
                sys.exit(f"{run.name} ended with code {ended.returncode}; see {output.name}")
            (folder / "done").touch()
        results[run] = points(run, folder)
        print(f"{run.name:44} {score(results[run]):6.2f} bits a note", flush=True)
    return results


def write(results: dict[Run, list[Point]], out: Path) -> None:
    columns = ["stage", "width", "rows", "schedule", "learning_rate", "step", "tokens", "bits_per_note", "text_loss"]
    for name, chosen in (("curves", slice(None)), ("best", slice(-1, None))):
        with (out / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for run, found in results.items():
                key = (run.stage, run.width, run.rows, run.schedule, run.rate)
                for p in found[chosen]:
                    writer.writerow(
                        (*key, p.step, p.tokens, p.bits_per_note, "" if p.text_loss is None else p.text_loss)
                    )


def draw(results: dict[Run, list[Point]], path: Path) -> None:
    """Held-out bits a note against the learning rate, one panel a stage."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for stage, panel in zip((1, 2), panels, strict=True):
        lines: dict[str, list[Run]] = {}
        for run in results:
            if run.stage == stage:
                label = f"width {run.width}, {run.rows} rows"
                lines.setdefault(label + (", constant" if run.schedule == "constant" else ""), []).append(run)
        for label, members in lines.items():
            panel.plot([run.rate for run in members], [score(results[run]) for run in members], "o-", label=label)
        panel.set(xscale="log", xlabel="peak learning rate", title=f"stage {stage}")
        panel.set_ylabel("bits a note, held-out pieces")
        panel.legend(frameon=False, fontsize="small")
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=245_760, help="of every run")
    parser.add_argument(
        "--rows", type=int, default=5, help="rows of 512 tokens a step; four times as many for the batch"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = sweep(arguments)
    write(results, arguments.out)
    draw(results, arguments.out / "curves.png")


if __name__ == "__main__":
    main()
