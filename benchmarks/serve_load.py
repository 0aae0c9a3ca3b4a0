"""How long clients of the HTTP API wait, when 1, 4, 16 or 64 of them ask at a time.

    python benchmarks/serve_load.py MODEL --backend jax
    python benchmarks/serve_load.py MODEL --backend vllm --clients 1 16 64 256 --notes 682

Starts a server of its own on the loopback. Each client streams its pieces one after the other, every one with a prompt
and a seed of its own. Batches of every size that the jax engine compiles for run once before, so that compiling is not
in the figures. Prints a table, and writes it with --json.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

MOODS = ("A calm", "A fast", "A slow", "A bright", "A sad", "A lively", "A simple", "A loud")
STYLES = ("waltz", "rock song", "march", "bossa nova", "ballad", "fanfare", "lullaby", "blues")
PLAYERS = ("flute and piano", "drums and bass", "strings", "guitar", "brass and drums", "organ", "piano")

BATCHES = (1, 4, 8, 16, 32)
"""ROW_BUCKETS of inference/jax_engine.py, which a machine without jax cannot import."""
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)


@contextlib.contextmanager
def serving(model: Path, backend: str, clients: int) -> Iterator[str]:
    """A server that lets all clients wait; gives its URL."""
    command = [sys.executable, "-m", "midillm_jax.serve", "--api", "--model", str(model), "--backend", backend]
    command += ["--port", "0", "--max-waiting", str(max(clients, *BATCHES)), "--timeout", "3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            sys.exit("the server did not start")
        try:
            yield line.partition(" ")[0]
        finally:
            server.terminate()


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[float, float] | str:
    """Seconds to the first note and to the end, or what went wrong."""
    began, first, name = time.perf_counter(), None, ""
    try:
        async with client.stream("POST", "/v1/music", json=body) as response:
            if response.status_code != 200:
                return f"status {response.status_code}"
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                    if name == "notes" and first is None:
                        first = time.perf_counter() - began
    except httpx.HTTPError as error:
        return repr(error)
    if name != "done" or first is None:
        return f"ended with {name or 'nothing'}"
    return first, time.perf_counter() - began


async def tokens(client: httpx.AsyncClient) -> float:
    """Music tokens that the server has written so far."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("midillm_tokens_total "))


async def warm_up(url: str, notes: int, bodies: Iterator[dict[str, Any]]) -> None:
    """Batches of each size: while one request is written, the others wait together."""

    async def one(client: httpx.AsyncClient, delay: float) -> None:
        await asyncio.sleep(delay)
        answer = await ask(client, next(bodies) | {"max_notes": notes, "stream": True})
        if isinstance(answer, str):
            sys.exit(f"while warming up: {answer}")

    async with httpx.AsyncClient(base_url=url, timeout=None, limits=UNLIMITED) as client:
        await one(client, 0)
        for size in BATCHES:
            await asyncio.gather(one(client, 0), *(one(client, 0.1) for _ in range(size)))


async def load(url: str, clients: int, pieces: int, notes: int, bodies: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table."""

    async def one(client: httpx.AsyncClient) -> list[tuple[float, float] | str]:
        return [await ask(client, next(bodies) | {"max_notes": notes, "stream": True}) for _ in range(pieces)]

    async with httpx.AsyncClient(base_url=url, timeout=None, limits=UNLIMITED) as client:
        before, began = await tokens(client), time.perf_counter()
        answers = [each for every in await asyncio.gather(*(one(client) for _ in range(clients))) for each in every]
        seconds = time.perf_counter() - began
        written = await tokens(client) - before
    good = [answer for answer in answers if not isinstance(answer, str)]
    wrong = sorted({answer for answer in answers if isinstance(answer, str)})
    if not good:
        sys.exit(f"{clients} clients: nothing was written: {', '.join(wrong)}")
    row: dict[str, Any] = {"clients": clients, "pieces": len(good), "errors": len(answers) - len(good)}
    for column, values in zip(("first", "end"), zip(*good, strict=True), strict=True):
        # Of two values and more; a single one is its own median.
        cuts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
        row |= {f"{column}_p50": round(cuts[9], 2), f"{column}_p95": round(cuts[18], 2)}
    row |= {"pieces_a_minute": round(60 * len(good) / seconds), "tokens_a_second": round(written / seconds)}
    return row | {"what_went_wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--pieces", type=int, default=4, help="of each client, one after the other")
    parser.add_argument("--notes", type=int, default=40, help="of a piece at most")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    prompts = itertools.cycle(f"{mood} {style} for {who}." for mood in MOODS for who in PLAYERS for style in STYLES)
    bodies = ({"prompt": prompt, "seed": seed} for seed, prompt in enumerate(prompts))
    rows = []
    print("| clients | pieces | first note, s: p50 | p95 | end, s: p50 | p95 | pieces/min | tokens/s | errors |")
    print("|---|---|---|---|---|---|---|---|---|")
    with serving(options.model, options.backend, max(options.clients)) as url:
        asyncio.run(warm_up(url, options.notes, bodies))
        for clients in options.clients:
            rows.append(row := asyncio.run(load(url, clients, options.pieces, options.notes, bodies)))
            columns = ("clients", "pieces", "first_p50", "first_p95", "end_p50", "end_p95")
            columns += ("pieces_a_minute", "tokens_a_second", "errors")
            print("|", " | ".join(f"{row[column]:,}" for column in columns), "|", flush=True)
            for what in row["what_went_wrong"]:
                print(f"  {what}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(any(row["errors"] for row in rows))


if __name__ == "__main__":
    main()
