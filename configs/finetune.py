"""One's own captioned pieces on one GPU or a Colab: LoRA beside a base that knows music, and the base's music rows.

    python -m midillm_jax.prepare caption --input my_midi --out my/captions.jsonl
    python -m midillm_jax.prepare pairs --input my/captions.jsonl --out my/pairs
    hf download slseanwu/MIDI-LLM_Llama-3.2-1B --local-dir models/MIDI-LLM
    python -m midillm_jax.train --config finetune.py

docs/finetuning.md walks through it, to the finished model. What to change for another base, in a copy of this file:
``init_from`` and ``data.tokenizer``, its folder; ``model``, its shape (presets.py has some). A text model, such as
SmolLM2-135M, knows no music: it wants far more pieces and steps. ``--finetune.no-music-rows`` trains adapters alone,
which can be exported for the PEFT library; ``--finetune.lora-rank 0`` the music rows alone. ``steps``: a few passes
over your music, at 16,384 tokens a step and 3 tokens a note; the best checkpoint by validation loss is kept.

One chip of 16 GB; docs/finetuning.md has what the compiler says for a TPU v5e. A batch of 8 rows goes through in 4
parts; a GPU that runs out of memory takes ``--optimizer.accumulation-steps 8``. A GPU without bfloat16 arithmetic
(Colab's T4) may be faster with ``--compute-dtype float32``, in which this base takes 5 GB instead of 2.5. Not run on
a GPU, nor with this base, which was not at hand: rank, learning rate and number of steps are our own guess, after the
LoRA paper (arXiv 2106.09685) and common use.

``slot`` loss: a model trained so must be sampled with the grammar (training/loss.py), as ``generate`` does;
``--loss.kind full`` trains for engines that have none.
"""

from midillm_jax.config import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    FinetuneConfig,
    LossConfig,
    OptimizerConfig,
    Source,
)
from midillm_jax.presets import LLAMA_3_2_1B


def get_config() -> Config:
    return Config(
        name="finetune",
        init_from="models/MIDI-LLM",
        steps=500,
        model=LLAMA_3_2_1B,
        finetune=FinetuneConfig(lora_rank=16, lora_alpha=32.0),
        data=DataConfig(
            tokenizer="models/MIDI-LLM",
            row_length=2048,
            music_rows=8,
            text_rows=0,
            music=(Source("my/pairs"),),
            streams=1,
            caption_dropout=0.1,
            transpose=5,  # where no caption is shown: what a caption says of the key stays true
        ),
        loss=LossConfig(kind="slot"),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_steps=20, weight_decay=0.01, accumulation_steps=4),
        checkpoint=CheckpointConfig(every_steps=100),
        eval=EvalConfig(every_steps=50, batches=8),
    )
