"""``python -m midillm_jax.train --config stage1.py [--field value ...]``: runs or resumes a training run.

Started on every host of a TPU slice, it finds the others by itself (training/hosts.py). With ``--compile-only v5e:8x8``
nothing is trained: the run's step is compiled for that TPU slice, which need not be there, and what it takes is printed
(docs/scaling.md).
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

import tyro

from midillm_jax import commands, config
from midillm_jax.errors import UserError
from midillm_jax.files import write_whole


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m midillm_jax.train",
        description=__doc__,
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE")
    only = parser.add_argument_group("compiling for a slice that is not here (pip install 'midillm_jax[train,tpu]')")
    only.add_argument(
        "--compile-only",
        metavar="SLICE",
        help="chip and shape: v4:2x2x2, v5e:1x1, v5e:8x8, v5p:2x2x2, v6e:16x16, tpu7x:2x2x1; 2xv5e:4x4 for two slices. "
        "Exit code 2, with the biggest buffers, if the step does not fit",
    )
    only.add_argument("--json", metavar="FILE", help="write all figures there, or to the standard output for -")
    only.add_argument("--price-per-chip-hour", metavar="PRICE", type=float, help="adds what the run would cost")
    return parser


def main(arguments: list[str]) -> None:
    """Loads the config, applies the overrides of the command line, trains (or only compiles)."""
    parser = _parser()
    chosen, overrides = parser.parse_known_args(arguments)
    if chosen.config is None:
        if "--help" in arguments or "-h" in arguments:
            parser.add_argument("--help", help="with --config: every field, its meaning and its value in that file")
            parser.print_help()
            return
        raise UserError("--config is missing; expected a config file, such as --config demo_stage1.py.")
    if chosen.compile_only is None and (chosen.json or chosen.price_per_chip_hour is not None):
        raise UserError("--json and --price-per-chip-hour go with --compile-only SLICE, which is missing.")
    if chosen.compile_only is not None:
        run = resolve(chosen.config, overrides)
        compile_only(run, chosen.compile_only, chosen.json, chosen.price_per_chip_hour)
        return
    from midillm_jax.training import hosts

    with hosts.joined():
        run = resolve(chosen.config, overrides)
        commands.enable_compile_cache()
        from midillm_jax.training.loop import train

        folder = train(run)
        if hosts.is_first():
            print(f"done: {folder}")


def resolve(name: str, overrides: list[str]) -> config.Config:
    """The config of a file with the fields that the command line changes."""
    return commands.parse(
        config.Config,
        overrides,
        prog=f"python -m midillm_jax.train --config {name}",
        description=__doc__,
        default=config.load(name),
        config=(tyro.conf.AvoidSubcommands,),
    )


def compile_only(run: config.Config, slice_name: str, json_file: str | None, price: float | None) -> None:
    """Compiles the run's step for a slice and prints what it takes.

    Raises:
        UserError: an unknown slice, a mesh or batch that does not divide over it, or a step that does not fit.
    """
    from midillm_jax import config_check
    from midillm_jax.training import chips

    topology = chips.parse_topology(slice_name)
    if price is not None and price < 0:
        raise UserError(f"--price-per-chip-hour is {price}; expected 0 or more.")
    if topology.slices > 1:
        run = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, slice=topology.slices))
    config_check.check(run)
    # This process compiles and ends; jax and libtpu read these when they are first imported, which is below.
    os.environ.update(chips.environment(topology))
    from midillm_jax.training.compile import compile_step
    from midillm_jax.training.estimate import as_dict, does_not_fit, estimate, show

    print(f"compiling {run.name} for {topology.name} ...", file=sys.stderr, flush=True)
    found = estimate(run, topology, compile_step(run, topology))
    if json_file != "-":
        show(found, price)
    if json_file is not None:
        text = json.dumps(as_dict(found, price), indent=1) + "\n"
        if json_file == "-":
            sys.stdout.write(text)
        else:
            write_whole(Path(json_file), text)
    if not found.fits:
        raise UserError(does_not_fit(found))


if __name__ == "__main__":
    commands.run(main, resumes=True)
