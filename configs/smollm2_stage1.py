"""Stage 1 on one GPU or a Colab: SmolLM2-135M learns music text and stand-alone MIDI.

    python -m midillm_jax.train --config smollm2_stage1.py

The base is not gated: ``hf download HuggingFaceTB/SmolLM2-135M --local-dir models/SmolLM2-135M``, or without the
Hub ``python launch/smollm2.py`` (instruction-tuned, 4 bits widened). The data of both stages, with its tokenizer::

    launch/data.sh --tokenizer models/SmolLM2-135M --out smollm2

One GPU of 16 GB or more; a batch of 16 rows goes through in 4 parts. By count, not measured: weights, gradient and
Adam's moments of 166.2 M parameters are 2.7 GB, a part's attention scores and logits some 4 GB more. A GPU without
bfloat16 arithmetic (Colab's T4) may be faster with ``--compute-dtype float32``. Not run on a GPU: none
was at hand; time, loss to expect, learning rate and length of training are our own guess. 10,000 steps of 32,768
tokens are 0.33 B, a tenth of the paper's.

``slot`` loss: with 49,152 text and 55,030 music rows on a body of 106 M parameters the full head would be a third of
the FLOPs. What it loses: a model trained so must be sampled with the grammar (training/loss.py), which an engine that
has none cannot do; ``--loss.kind full`` trains for those.
"""

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    LossConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.presets import SMOLLM2_135M


def get_config() -> Config:
    return Config(
        name="smollm2_stage1",
        init_from="models/SmolLM2-135M",
        steps=10_000,
        model=SMOLLM2_135M,
        data=DataConfig(
            tokenizer="models/SmolLM2-135M",
            row_length=2048,
            music_rows=8,
            text_rows=8,
            music=(Source("smollm2/midi"),),
            text=(Source("smollm2/musicpile"),),
            streams=8,
            caption_dropout=1.0,
            transpose=5,
        ),
        loss=LossConfig(kind="slot", z_loss=1e-5),
        optimizer=OptimizerConfig(learning_rate=5e-4, warmup_steps=500, accumulation_steps=4),
        checkpoint=CheckpointConfig(every_steps=500),
        eval=EvalConfig(every_steps=500, batches=16),
    )
