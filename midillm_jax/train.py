"""``python -m midillm_jax.train --config stage1.py [--field value ...]``: runs or resumes a training run.

Started on every host of a TPU slice, it finds the others by itself (training/hosts.py).
"""

import argparse

import tyro

from midillm_jax import commands, config
from midillm_jax.errors import UserError


def main(arguments: list[str]) -> None:
    """Loads the config, applies the overrides of the command line, trains."""
    parser = argparse.ArgumentParser(prog="python -m midillm_jax.train", description=__doc__, add_help=False)
    parser.add_argument("--config", metavar="FILE")
    chosen, overrides = parser.parse_known_args(arguments)
    if chosen.config is None:
        if "--help" in arguments or "-h" in arguments:
            parser.add_argument("--help", help="with --config: every field, its meaning and its value in that file")
            parser.print_help()
            return
        raise UserError("--config is missing; expected a config file, such as --config demo_stage1.py.")
    from midillm_jax.training import hosts

    with hosts.joined():
        run = commands.parse(
            config.Config,
            overrides,
            prog=f"python -m midillm_jax.train --config {chosen.config}",
            description=__doc__,
            default=config.load(chosen.config),
            config=(tyro.conf.AvoidSubcommands,),
        )
        commands.enable_compile_cache()
        from midillm_jax.training.loop import train

        folder = train(run)
        if hosts.is_first():
            print(f"done: {folder}")


if __name__ == "__main__":
    commands.run(main, resumes=True)
