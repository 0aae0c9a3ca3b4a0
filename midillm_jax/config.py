"""Every knob of a training run, once.

A config file is Python whose ``get_config()`` returns a :class:`Config`; fields are overridden on the command
line (``--optimizer.learning-rate 3e-4``), and config_check.py says which values no run can have. Nothing that trains
sets a value of its own beside these. The resolved config is saved as JSON beside every checkpoint and export, and
:func:`from_json` reads it back exactly.
"""

import dataclasses
import difflib
import json
import re
import runpy
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from midillm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretching of rotary frequencies (``rope_type: llama3`` of Hugging Face)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context_length: int


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the decoder. Einsum letters in brackets are those of model/llama.py."""

    text_vocab_size: int
    """Rows of the text vocabulary; must equal the tokenizer's size."""
    d_model: int
    """Width of the residual stream [D]."""
    num_layers: int
    num_heads: int
    """Query heads [N]."""
    num_kv_heads: int
    """Key and value heads [K]; divides num_heads."""
    head_dim: int
    """Width of one head [H]; even."""
    d_ff: int
    """Width of the gated feed-forward layer [F]."""
    context_length: int
    """Longest sequence the model is meant for (``max_position_embeddings``)."""
    rope_theta: float
    rms_norm_eps: float
    tie_embeddings: bool
    """Whether the output head is the embedding table itself."""
    rope_scaling: RopeScaling | None = None
    music_vocab_size: int = 55_030
    """Rows the table grows by: the AMT vocabulary."""
    vocab_multiple: int = 128
    """The table is padded with unused rows to a multiple of this, for TPU tiles and sharding."""
    init_std: float = 0.02
    """Standard deviation of freshly initialised weights."""

    @property
    def vocab_size(self) -> int:
        """Text and music rows, without padding rows."""
        return self.text_vocab_size + self.music_vocab_size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the table in memory [V]."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each named mesh axis; one of the last three may be -1, which takes all the devices left over."""

    slice: int = 1
    """TPU slices, joined by the data centre's network: batch rows are split, weights are copied."""
    data: int = 1
    """Batch rows are split, weights are copied."""
    fsdp: int = -1
    """Batch rows and weights are split."""
    tensor: int = 1
    """Heads, feed-forward width and vocabulary are split."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder of shards and its share of the rows of its kind."""

    path: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class AnticipationConfig:
    """Which notes become controls, as shares of the windows drawn (AMT section 3; the rest stay plain).

    The reference's proportions are .1 / .4 / .4 with a tenth left plain.
    """

    spans: float = 0.0
    """Share of windows in which stretches of time become controls."""
    random: float = 0.0
    """Share of windows in which single notes become controls, each at a rate drawn from .1 to .9."""
    instruments: float = 0.0
    """Share of windows in which whole instruments become controls."""
    span_rate: float = 0.05
    """Spans begun a second."""
    span_seconds: float = 5.0
    """Length of a span, 0.01 or more."""


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read and how a batch is laid out (formats: data/shards.py, text/prompt.py)."""

    tokenizer: str
    """A sentencepiece .model, a Hugging Face tokenizer.json, or a folder that holds one."""
    row_length: int
    """Tokens a row [T]."""
    music_rows: int
    """Rows of music in the global batch; a prompt counts as music."""
    text_rows: int
    """Rows of text in the global batch; shares of rows are shares of tokens."""
    music: tuple[Source, ...] = ()
    """Folders made by ``prepare midi`` or ``prepare pairs``."""
    text: tuple[Source, ...] = ()
    """Folders made by ``prepare text``."""
    streams: int = 64
    """Logical streams, each with its own order and state; a multiple of the number of hosts."""
    caption_dropout: float = 0.0
    """Share of captioned pieces that are shown without their caption; 1 trains on music alone."""
    anticipation: AnticipationConfig = AnticipationConfig()
    transpose: int = 0
    """Largest shift in semitones drawn for pitched notes, up or down; 0 for none. Drums never shift."""
    tempo_stretch: float = 0.0
    """Largest relative change of tempo drawn, up or down: at 0.1 a piece takes 1/1.1 to 1.1 of its time."""
    alter_captioned: bool = False
    """Whether these two also reach a piece shown with its caption, which may name key and tempo."""
    window_start: Literal["random", "piece"] = "random"
    """Where a window of a long piece begins: at a drawn note, or always at the piece's start."""
    compat_flag: bool = False
    """Always put AUTOREGRESS in front, as the published checkpoint's prompts do."""
    prompt_weight: float = 0.0
    """Weight of a prompt's tokens as targets beside the music's 1; above 0 only with the full loss."""
    prefetch: int = 4
    """Batches held ready ahead of the step by a thread, which makes them if there are no workers."""
    workers: int = 0
    """Processes a host that make the training batches, the same whatever their number; one a stream at most."""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Next-token cross-entropy."""

    kind: Literal["full", "slot"] = "full"
    """``full`` normalises over every row of the table; ``slot`` over the rows that a music token's slot can hold."""
    z_loss: float = 0.0
    """Weight of the squared log-normaliser."""
    chunk_tokens: int = 2048
    """Tokens whose logits exist at one time on one device."""


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: float
    """At the peak, reached after warmup_steps."""
    warmup_steps: int
    final_learning_rate_share: float = 0.1
    """The last step's learning rate as a share of the peak."""
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """Applied to matrices, not to norm scales or embedding rows."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    accumulation_steps: int = 1
    """Parts a batch is cut into; the gradient is that of the whole batch."""
    text_rows_learning_rate_share: float = 1.0
    """Learning rate of the tables' text rows as a share of the rest's; 0 freezes them to the bit."""
    master_weights: bool = True
    """Whether bfloat16 parameters have a float32 copy in the optimizer's state, in which small updates add up."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of Adam's first moment; the second has the parameters' (or the master's)."""


Projection = Literal["query", "key", "value", "output", "gate", "up", "down"]


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Training beside a frozen base: low-rank adapters (LoRA, arXiv 2106.09685), the music rows of the tables, or both.

    Every other weight of ``init_from`` stays as it is to the bit: it has no gradient and no moments, is held in
    compute_dtype, to which each use rounds it anyway, and is read again from ``init_from`` instead of being saved.
    """

    lora_rank: int
    """Rank [R] of the adapters; 0 for none."""
    lora_alpha: float
    """An adapter's product is multiplied by lora_alpha / lora_rank."""
    lora_projections: tuple[Projection, ...] = typing.get_args(Projection)
    """The projections of every layer that have an adapter."""
    music_rows: bool = True
    """Whether the music rows of embedding and head train; a text model's, which are new, have to."""

    @property
    def lora_scale(self) -> float:
        """What an adapter's product is multiplied by."""
        return self.lora_alpha / self.lora_rank


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """Steps that are not applied (training/guard.py): a loss or gradient that is not finite, a spike of its norm."""

    action: Literal["skip", "rollback", "stop"] = "skip"
    """What comes then: the next batch; the last checkpoint's weights and the next batch; the end of the run."""
    spike_factor: float = 10.0
    """A gradient norm of more than so many times the running mean is a spike; 0 for none."""
    after_steps: int = 100
    """Applied steps before spikes are looked for."""
    patience: int = 5
    """Refused steps in a row, or rollbacks to one checkpoint, that end the run."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When the run is saved, and what is kept. The checkpoint of the lowest held-out loss is saved and kept as well."""

    every_steps: int
    """Steps between checkpoints that are kept for good."""
    every_minutes: float = 10.0
    """Minutes between temporary checkpoints."""
    keep: int = 2
    """Newest checkpoints kept, of whichever kind."""
    retry_minutes: float = 1.0
    """Minutes from a save that failed to the next attempt; a second failure in a row ends the run."""


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Loss on held-out shards."""

    every_steps: int
    batches: int
    """Batches of the held-out data an evaluation reads, the same ones every time."""


@dataclasses.dataclass(frozen=True)
class SamplesConfig:
    """Music from the weights as they are, now and then during training (training/samples.py)."""

    every_steps: int = 0
    """Steps between samples, which are also taken before the first step and after the last; 0 for none."""
    prompts: tuple[str, ...] = (
        "",
        "A calm piano waltz in C major.",
        "An upbeat rock song with electric guitar, bass and drums.",
        "A slow and sad string quartet.",
    )
    """A piece is written for each, with the same noise every time; an empty one is music without a description."""
    max_seconds: float = 30.0
    """No note of a piece begins at or after this."""
    max_notes: int = 256
    """A piece ends after this many notes if not before."""
    temperature: float = 1.0
    """0 always takes the most likely id."""
    top_p: float = 0.98
    """Only the most likely ids that together hold this probability can be drawn."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run."""

    name: str
    """Names the run folder, ``runs/<name>`` unless run_dir says otherwise."""
    steps: int
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    checkpoint: CheckpointConfig
    eval: EvalConfig
    loss: LossConfig = LossConfig()
    guard: GuardConfig = GuardConfig()
    samples: SamplesConfig = SamplesConfig()
    finetune: FinetuneConfig | None = None
    """What trains if the base is frozen; None trains every weight."""
    mesh: MeshConfig = MeshConfig()
    run_dir: str = ""
    """Where checkpoints and logs go; empty for ``runs/<name>``."""
    init_from: str = ""
    """Run folder (also gs://), Hugging Face folder or OWNER/NAME on the Hub whose weights a fresh run starts from; a
    text-only model is grown."""
    music_init: Literal["normal", "mean", "mean_covariance", "zero"] = "mean_covariance"
    """How music rows begin when a text-only table grows: by the standard deviation, the mean, or mean and covariance
    of the text rows, or as zeros (model/embedding.py)."""
    seed: int = 0
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["auto", "dot", "cudnn", "splash"] = "auto"
    """``dot`` is jax.nn.dot_product_attention in plain XLA, ``cudnn`` the same by cuDNN's kernel for NVIDIA GPUs,
    ``splash`` the Pallas kernel for TPUs (model/attention.py); ``auto`` takes splash on TPUs, cudnn on GPUs of compute
    capability 8.0 or higher that compute in bfloat16, and dot elsewhere."""
    remat: Literal["none", "dots", "qkv", "attention", "full"] = "full"
    """What each layer keeps for the backward pass instead of computing it twice: everything, the matrix products,
    query, key, value and attended heads, the attended heads, nothing (sizes in model/llama.py)."""
    log_every_steps: int = 10
    profile: str = ""
    """Steps of which a trace for TensorBoard's profiler (XProf) is written, such as 20:25, both ends included."""

    @property
    def folder(self) -> str:
        """The run folder."""
        return self.run_dir or f"runs/{self.name}"


def to_json(config: Config) -> str:
    """Every field of a config, indented, as saved beside checkpoints and exports."""
    return json.dumps(dataclasses.asdict(config), indent=1)


def from_json(text: str, where: str) -> Config:
    """The config that :func:`to_json` wrote.

    Raises:
        UserError: a field is unknown or missing; ``where`` names the file in the message.
    """
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error}); expected the config that a run saves.") from None
    return _build(Config, fields, where)


def _build(kind: Any, fields: Any, where: str) -> Any:
    """Turns plain JSON values into the dataclass ``kind``, following its annotations."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        names = {field.name: field for field in dataclasses.fields(kind)}
        if not isinstance(fields, dict):
            raise UserError(f"{where}: found {fields!r}, expected the fields of {kind.__name__}.")
        for name in fields:
            if name not in names:
                raise UserError(f"{where}: unknown field {name!r}{_did_you_mean(name, names)}")
        for name, field in names.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and name not in fields:
                raise UserError(f"{where}: field {name!r} of {kind.__name__} is missing.")
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], value, f"{where}: {name}") for name, value in fields.items()})
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        return tuple(_build(arguments[0], value, where) for value in fields)
    if types.NoneType in arguments:
        inner = next(argument for argument in arguments if argument is not types.NoneType)
        return None if fields is None else _build(inner, fields, where)
    return fields


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of {', '.join(sorted(names))}."


def find(name: str) -> Path:
    """The file that ``--config NAME`` means: in the current folder, else among the configs of this package.

    Raises:
        UserError: in neither place; both are named.
    """
    here = Path(name)
    # A clone keeps configs/ beside the package; a wheel carries it as midillm_jax/configs.
    package = Path(__file__).parent
    shipped = package / "configs" if (package / "configs").is_dir() else package.parent / "configs"
    for path in (here, shipped / name):
        if path.is_file():
            return path
    raise UserError(
        f"--config {name}: no such file in {here.absolute().parent} nor in {shipped}; "
        f"the configs there are {', '.join(sorted(path.name for path in shipped.glob('[!_]*.py')))}."
    )


def load(name: str) -> Config:
    """Runs a config file's ``get_config()``.

    Raises:
        UserError: no such file, no ``get_config``, a field that is unknown or missing, or something else than a
            Config.
    """
    path = find(name)
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if get_config is None:
            raise UserError(f"{path}: has no get_config(); expected a function that returns a Config.")
        config = get_config()
    except TypeError as error:
        wrong = re.match(r"(\w+)\.__init__\(\) (got an unexpected keyword|missing \d+ required)", str(error))
        if wrong is None or not dataclasses.is_dataclass(globals().get(wrong[1])):
            raise
        kind, fields = wrong[1], re.findall(r"'(\w+)'", str(error))
        if wrong[2].startswith("missing"):
            named = ", ".join(map(repr, fields))
            raise UserError(f"{path}: {kind} lacks {named}; expected a value for each.") from None
        names = [each.name for each in dataclasses.fields(globals()[kind])]
        raise UserError(f"{path}: {kind} has no field {fields[0]!r}{_did_you_mean(fields[0], names)}") from None
    if not isinstance(config, Config):
        raise UserError(f"{path}: get_config() returned {type(config).__name__}, expected a midillm_jax.config.Config.")
    return config
