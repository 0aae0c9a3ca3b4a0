"""The left side of the page: what is asked for. Each kind of wish has fields of its own; all others are out of sight.

Numbers have no bounds here: Gradio would answer one beyond them in words of its own. Those that may be left out are
texts: gr.Number turns an empty one into 0 as its accordion is opened (Gradio 6.31).
"""

import secrets
from typing import Any, cast, get_args

import gradio as gr

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import MusicModel
from midillm_jax.inference.request import MAX_SEEDS, MAX_TEMPERATURE
from midillm_jax.serving import wishes

_KINDS = [
    ("New", "new"),
    ("Continue", "continue"),
    ("Fill in", "infill"),
    ("Accompany", "accompany"),
    ("Replace", "replace"),
    ("Edit", "edit"),
]
_PROMPTS = [
    "A calm waltz for flute and piano.",
    "A cheerful folk dance for fiddle and guitar.",
    "Slow, sad strings with a solo cello.",
    "An energetic rock song with bass and drums.",
]
_EDITS = [
    "make bars 5 to 8 sparser",
    "the bass an octave up",
    "10% slower and a bit quieter",
    "swap the piano for strings",
]
_INSTRUMENTS = {
    "new": ("Instruments", "all, if empty; such as piano, strings"),
    "continue": ("May play besides those of the piece", "none, if empty; such as bass, drums"),
    "infill": ("May play besides those of the piece", "none, if empty; such as bass, drums"),
    "accompany": ("Instruments to add", "such as bass, drums"),
}
WHERE = {
    "continue": ("From", "the end, if empty; such as bar 17, or 30s"),
    "infill": ("Which bars", "drag in the roll, or write 9-16, or 20s-35s"),
    "accompany": ("Which bars", "all, if empty; drag in the roll, or write 9-16"),
    "replace": ("Which bars", "all, if empty; drag in the roll, or write 9-16"),
}
_TRACKS = {"accompany": "Tracks to keep (all, if none is chosen)", "replace": "Tracks to write anew"}
_TIMED = ("new", "continue")
_GRIDS = ["auto", "off", "1/4", "1/8", "1/16", "1/32", "1/8t", "1/16t", "1/8+1/8t", "1/16+1/8t"]
_TONICS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_KEYS = [("as it comes", ""), *((key, key) for tonic in _TONICS for key in (f"{tonic} major", f"{tonic} minor"))]

Values = dict[Any, Any]
"""What components hold, as Gradio hands a set of them on."""


class Fields:
    """The fields, made where the column is, and the wish that they are."""

    def __init__(self, bounds: wishes.Bounds, model: MusicModel) -> None:
        self.kind = gr.Radio(_KINDS, value="new", show_label=False, elem_id="kind", container=False)
        self.prompt = gr.Textbox(
            label="What should it be like?",
            placeholder=_PROMPTS[0],
            lines=3,
            max_lines=6,
            max_length=bounds.prompt_letters,
            elem_id="prompt",
        )
        self.words = gr.Textbox(
            label="What should be changed?",
            placeholder="make bars 9 to 16 sparser and swap the piano for strings",
            lines=2,
            max_lines=4,
            max_length=wishes.WORDS_LETTERS,
            visible=False,
            elem_id="words",
        )
        self.plan = gr.Textbox(
            label="The plan",
            placeholder="Show plan fills this in; you can change it, and Edit does what it says.",
            lines=3,
            max_lines=12,
            max_length=wishes.PLAN_LETTERS,
            visible=False,
            elem_id="plan",
        )
        self.where = gr.Textbox(visible=False, elem_id="where", max_length=80)
        self.tracks = gr.Dropdown([], multiselect=True, visible=False, elem_id="tracks")
        self.instruments = gr.Textbox(elem_id="instruments", max_length=300, **_labelled(_INSTRUMENTS["new"]))
        self.seconds = gr.Slider(
            wishes.MIN_SECONDS, wishes.MAX_SECONDS, value=30, step=5, label="Seconds at most", elem_id="seconds"
        )
        with gr.Row(elem_id="actions"):
            self.write = gr.Button("Write", variant="primary", elem_id="write", min_width=90)
            self.show_plan = gr.Button("Show plan", visible=False, elem_id="show-plan", min_width=90)
            self.stop = gr.Button("Stop", elem_id="stop", min_width=90, interactive=False)
        self.prompts = gr.Examples([[each] for each in _PROMPTS], self.prompt, label="Examples", elem_id="examples")
        self.edits = gr.Examples(
            [[each] for each in _EDITS], self.words, label="Examples", elem_id="edit-examples", visible=False
        )
        with gr.Accordion("More", open=False, elem_id="more"):
            self._more(model)
        self.all = {
            *(self.kind, self.prompt, self.words, self.plan, self.where, self.tracks, self.instruments, self.seconds),
            *(self.outputs, self.candidates, self.tempo, self.key, self.quantize, self.velocity, self.strength),
            *(self.seed, self.temperature, self.top_p),
        }
        self.by_kind = [
            *(self.prompt, self.words, self.plan, self.where, self.tracks, self.instruments, self.seconds),
            *(self.write, self.show_plan, self.prompts.dataset, self.edits.dataset),
            *(self.several, self.fitting, self.placing, self.strength),
        ]
        """What a kind shows or hides, as :meth:`shown_for` updates it."""

    def _more(self, model: MusicModel) -> None:
        with gr.Row(elem_classes="pair") as self.several:
            self.outputs = gr.Number(1, precision=0, label="Takes", info="Each becomes a version.", elem_id="takes")
            self.candidates = gr.Number(
                1,
                precision=0,
                label="Candidates",
                info="Written, to keep the best takes of.",
                elem_id="candidates",
            )
        with gr.Row(elem_classes="pair") as self.fitting:
            self.tempo = _number("Tempo", "Quarters a minute; empty: as it comes.", "tempo")
            self.key = gr.Dropdown(_KEYS, value="", label="Key", info="The piece is moved there.", elem_id="key")
        with gr.Row(elem_classes="pair", visible=False) as self.placing:
            self.quantize = gr.Dropdown(
                _GRIDS, value="auto", label="Grid", info="Of new notes; auto: the piece's.", elem_id="quantize"
            )
            self.velocity = _number("Velocity", "Of new notes; empty: by rules.", "velocity")
        self.strength = gr.Slider(
            0,
            1,
            value=1,
            step=0.05,
            label="Strength",
            info="How far new notes are moved onto the grid.",
            visible=False,
            elem_id="strength",
        )
        self.seed = _number("Seed", "The same seed gives the same notes; empty for new ones.", "seed")
        self.temperature = gr.Slider(
            0,
            2,
            value=model.temperature,
            step=0.05,
            label="Temperature",
            info="Above 1 is wilder, below tamer.",
            elem_id="temperature",
        )
        self.top_p = gr.Slider(
            0.5,
            1,
            value=model.top_p,
            step=0.01,
            label="Top-p",
            info="Lower leaves out what is unlikely.",
            elem_id="top-p",
        )

    def wish(self, values: Values) -> wishes.Wish:
        """The wish that the components say. Fields that its kind does not show count as empty.

        Gradio checks choices and ranges in the browser, and not all of them again here.

        Raises:
            UserError: what should be a number is none.
        """
        given = values[self.kind]
        kind = cast(wishes.Kind, given) if given in get_args(wishes.Kind) else "new"
        new, takes = kind == "new", kind != "edit"
        seed = _whole("seed", values[self.seed])
        return wishes.Wish(
            kind=kind,
            prompt=_text(values[self.prompt]) if takes else "",
            seconds=float(values[self.seconds] or 0) if kind in _TIMED else wishes.Wish.seconds,
            where=_text(values[self.where]) if kind in WHERE else "",
            instruments=_text(values[self.instruments]) if kind in _INSTRUMENTS else "",
            tracks=tuple(map(str, values[self.tracks] or ())) if kind in _TRACKS else (),
            words="" if takes else _text(values[self.words]),
            plan="" if takes else _text(values[self.plan]),
            outputs=int(values[self.outputs] or 0) if takes else 1,
            candidates=int(values[self.candidates] or 0) if takes else 1,
            tempo=_read("tempo", values[self.tempo]) if new else None,
            key=_text(values[self.key]) if new else "",
            quantize=wishes.Wish.quantize if new else _text(values[self.quantize]),
            strength=wishes.Wish.strength if new else float(values[self.strength] or 0),
            velocity=None if new else _whole("velocity", values[self.velocity]),
            seed=secrets.randbelow(MAX_SEEDS) if seed is None else seed,
            temperature=min(float(values[self.temperature] or 0), MAX_TEMPERATURE),
            top_p=float(values[self.top_p] or 0),
        )

    @staticmethod
    def shown_for(kind: str) -> list[Any]:
        """Values for ``self.by_kind``: only the fields that a kind has are there."""
        new, edit = kind == "new", kind == "edit"
        return [
            gr.update(visible=not edit),
            gr.update(visible=edit),
            gr.update(visible=edit),
            gr.update(visible=kind in WHERE, **_labelled(WHERE.get(kind, ("", "")))),
            gr.update(visible=kind in _TRACKS, label=_TRACKS.get(kind, "")),
            gr.update(visible=kind in _INSTRUMENTS, **_labelled(_INSTRUMENTS.get(kind, ("", "")))),
            gr.update(visible=kind in _TIMED),
            gr.update(value="Edit" if edit else "Write"),
            gr.update(visible=edit),
            gr.update(visible=not edit),
            gr.update(visible=edit),
            gr.update(visible=not edit),
            gr.update(visible=new),
            gr.update(visible=not new),
            gr.update(visible=not new),
        ]


def _number(label: str, info: str, elem_id: str) -> gr.Textbox:
    """A field for a number that may be left out."""
    return gr.Textbox(label=label, info=info, max_length=20, elem_id=elem_id)


def _read(name: str, value: Any) -> float | None:
    """The number of such a field.

    Raises:
        UserError: it is none.
    """
    if not (words := _text(value).strip()):
        return None
    try:
        return float(words)
    except ValueError:
        raise UserError(f"{name} {words[:20]!r}: expected a number, or nothing") from None


def _whole(name: str, value: Any) -> int | None:
    """As ``_read``, for a whole number."""
    if (number := _read(name, value)) is None:
        return None
    if not number.is_integer():
        raise UserError(f"{name} {number:g}: expected a whole number, or nothing")
    return int(number)


def _text(value: Any) -> str:
    return str(value or "")


def _labelled(words: tuple[str, str]) -> dict[str, Any]:
    return {"label": words[0], "placeholder": words[1]}
