"""Stage 1 of MIDI-LLM (arXiv 2511.03942): Llama-3.2-1B learns music text and stand-alone MIDI.

    python -m midillm_jax.train --config stage1.py --init-from models/Llama-3.2-1B

The data of both stages, from what is published to shards, with the reference's filters and without the pieces of
stage 2 (GigaMIDI is gated; without ``--gigamidi`` Lakh takes its place)::

    launch/data.sh --tokenizer models/Llama-3.2-1B --gigamidi raw/gigamidi

A TPU v5e-8 or more: compiled, not run, this batch takes 13.0 of the 15.75 GiB that a program can use of its chips, in
two accumulation steps 10.7; docs/scaling.md has slices, hours and the commands. 3.1 B tokens in all, as in the paper:
11,826 steps of 128 rows x 2,048 tokens. What loss to expect is not known yet.

From the paper: the base model, 3.1 B tokens of which 1.7 B are text and 1.4 B MIDI, length 2,048, causal language
modelling. Not published, hence our own choice: learning rate, schedule, batch, optimiser, initial music rows. The
rate is extrapolated: from scratch at width 128 the best of five was 4e-3, at 64 a higher one; one over the width
gives 2.5e-4 at 2,048, supposed that what the slot loss liked there the full loss likes here (docs/training.md has the
curves, and how little they prove). 128 rows and the cosine are conventions. We read both kinds in equal shares
(64 + 64 rows divide over any power of two of chips; the paper's are 70 : 58).

Workers are reasoned, not measured on a TPU host: each of the 16 hosts of a v5e-64 makes 8 rows a step from 4 streams. A
core makes more than a million tokens a second (docs/data.md), far above what four chips train on, so that one would
do; four, one a stream, are for a bucket's slow reads (80,000 tokens a second and worker at 20 ms each) and beside the
host's other work. Eight batches ahead are 3 MB.
"""

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    MeshConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.presets import LLAMA_3_2_1B


def get_config() -> Config:
    return Config(
        name="stage1",
        init_from="models/Llama-3.2-1B",
        steps=11_826,
        model=LLAMA_3_2_1B,
        data=DataConfig(
            tokenizer="models/Llama-3.2-1B",
            row_length=2048,
            music_rows=64,
            text_rows=64,
            music=(Source("data/midi"),),
            text=(Source("data/musicpile"),),
            streams=64,
            caption_dropout=1.0,
            prefetch=8,
            workers=4,
        ),
        loss=LossConfig(kind="full", z_loss=1e-5),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=500),
        checkpoint=CheckpointConfig(every_steps=1000),
        eval=EvalConfig(every_steps=500, batches=16),
        mesh=MeshConfig(data=1, fsdp=-1, tensor=1),
    )
