"""The terminal's live view of a run as a picture, from the run's own log: docs/images/live_view.svg was made so.

python benchmarks/live_view.py demo/runs/stage1 --step 45 --width 122 --out docs/images/live_view.svg
"""

import argparse
import io
import re
from pathlib import Path

from rich.console import Console

from midillm_jax import config as configs
from midillm_jax.training import run_log
from midillm_jax.training.loop import tokens_per_step
from midillm_jax.training.view import View


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--step", type=int, required=True, help="what was seen after this step")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=110)
    arguments = parser.parse_args()

    config = configs.from_json((arguments.run / "config.json").read_text(), "config.json")
    rows = [row for row in run_log.read(arguments.run / run_log.FILE) if int(row["step"]) <= arguments.step]
    now = [0.0]
    screen = Console(file=io.StringIO(), force_terminal=True, width=arguments.width, height=20)
    view = View(config.name, config.steps, tokens_per_step(config), active=True, console=screen, clock=lambda: now[0])
    with view:
        view.begin(0)
        view.doing("")
        for row in rows:
            now[0] = float(row["seconds"])
            view.advance(int(row["step"]))
            shown = {
                name: float(value) for name, value in row.items() if value and name not in ("step", "kind", "seconds")
            }
            view.show(int(row["step"]), row["kind"], shown)
            if int(row["step"]) % config.checkpoint.every_steps == 0:
                view.saved(int(row["step"]))
        view.advance(arguments.step)
        picture = Console(record=True, file=io.StringIO(), width=arguments.width)
        picture.print(view.panel())
    svg = picture.export_svg(title=f"python -m midillm_jax.train --config {config.name}.py")
    # Fonts of this machine will do; nothing is fetched to look at a picture.
    arguments.out.write_text(re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
