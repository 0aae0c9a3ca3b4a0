"""What the experiments at 1B share: the recipes of configs/stage1.py and stage2.py, with the fields under test changed.

Each training runs on whatever TPU slice or GPUs it is started on (launch/tpu_vm.sh, launch/gke.sh); the data are those
that launch/data.sh made in ``data``.
"""

from midillm_jax.experiments.plan import Step
from midillm_jax.experiments.small import Fields, train

PAIRS = "data/lakh_midicaps"
STAGE_1_STEPS = 11_826
STAGE_2_STEPS = 19_073


def stage1(run: str, *, steps: int = STAGE_1_STEPS, fields: Fields | None = None) -> Step:
    """configs/stage1.py from Llama-3.2-1B."""
    own: Fields = {"init-from": "{base}", "data.tokenizer": "{base}", "steps": steps, "seed": "{seed}"}
    return train("stage1.py", run, {**own, **(fields or {})})


def stage2(run: str, init_from: str = "{base}", *, steps: int = STAGE_2_STEPS, fields: Fields | None = None) -> Step:
    """configs/stage2.py; from the base itself if no stage 1 is named."""
    own: Fields = {"init-from": init_from, "data.tokenizer": "{base}", "steps": steps, "seed": "{seed}"}
    return train("stage2.py", run, {**own, **(fields or {})})
