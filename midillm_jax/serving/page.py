"""The page for people: Gradio's components around a desk (desk.py), which knows what happens.

Everything on it comes from this machine: no font, script or count of visits is asked of another. The roll is a picture
and a player in one component, drawn by assets/page/roll.js.
"""

import os
import re
import secrets
from collections.abc import AsyncIterator, Callable
from html import escape
from pathlib import Path
from typing import Any, cast, get_args

# Read by Gradio as it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import fastapi
import gradio as gr

from midillm_jax.inference.request import MAX_SEEDS, MAX_TEMPERATURE
from midillm_jax.serving import roll_view, versions, wishes
from midillm_jax.serving.desk import Desk, Shown, facts

_ASSETS = Path(__file__).parent.parent / "assets" / "page"
_CLEAN = (600, 3600)
"""Seconds between looks for uploads to delete, and their age then."""
_HANDLERS = 100
"""Tabs that may wait for the engine and be told of it; the writer's own line says who is next."""
_EXAMPLES = [
    "A calm waltz for flute and piano.",
    "A cheerful folk dance for fiddle and guitar.",
    "Slow, sad strings with a solo cello.",
    "An energetic rock song with bass and drums.",
]
_KINDS = [
    ("New", "new"),
    ("Continue", "continue"),
    ("Fill in", "infill"),
    ("Accompany", "accompany"),
    ("Replace", "replace"),
]
_INSTRUMENTS = {
    "new": ("Instruments", "all, if empty; such as piano, strings"),
    "continue": ("May play besides those of the piece", "none, if empty; such as bass, drums"),
    "infill": ("May play besides those of the piece", "none, if empty; such as bass, drums"),
    "accompany": ("Instruments to add", "such as bass, drums"),
}
_WHERE = {
    "continue": ("From", "the end, if empty; such as bar 17, or 30s"),
    "infill": ("Which bars", "drag in the roll, or write 9-16, or 20s-35s"),
    "accompany": ("Which bars", "all, if empty; drag in the roll, or write 9-16"),
    "replace": ("Which bars", "all, if empty; drag in the roll, or write 9-16"),
}
_TRACKS = {"accompany": "Tracks to keep (all, if none is chosen)", "replace": "Tracks to write anew"}
_HIDDEN: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_EACH = _HIDDEN | {"trigger_mode": "multiple"}
"""For what may be asked for again before it is answered."""
_QUEUED: dict[str, Any] = {"concurrency_limit": _HANDLERS, "show_progress": "hidden", "api_visibility": "private"}


def create_app(desk: Desk, name: str) -> tuple[fastapi.FastAPI, Callable[[], None]]:
    """The page as an ASGI application, which needs its lifespan, and what ends the streams that open tabs hold.

    Args:
        desk: what happens.
        name: the model's, for the head of the page.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(desk.visits.folder / "uploads")
    blocks = _Page(desk, name).blocks
    blocks.queue(max_size=2 * _HANDLERS, api_open=False)
    theme = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        path="/",
        allowed_paths=[str(desk.visits.folder)],
        max_file_size=versions.MAX_FILE_BYTES,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        theme=theme,
        css=(_ASSETS / "page.css").read_text(encoding="utf-8"),
    )
    # Mounted blocks do not count as launched, and before that Gradio takes any path of this machine for an upload.
    blocks.has_launched = True

    def close() -> None:
        # Not Blocks.close, which looks for a server of Gradio's own.
        blocks.is_running = False
        blocks._queue.close()
        blocks.app.stop_event.set()

    return app, close


class _Page:
    """The components, and what each does."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        with gr.Blocks(title="midillm", analytics_enabled=False, fill_width=True, delete_cache=_CLEAN) as self.blocks:
            gr.HTML(f"<h1>midillm</h1><p>Music from words \u00b7 {escape(name)}</p>", elem_id="head")
            with gr.Row(elem_id="desk", equal_height=False):
                with gr.Column(scale=4, min_width=320, elem_id="wishes"):
                    self._wishes()
                with gr.Column(scale=9, min_width=480, elem_id="piece"):
                    self._piece()
        self.buttons = [self.write, self.stop, self.undo, self.open]
        self.fields = [
            self.kind,
            self.prompt,
            self.seconds,
            self.where,
            self.instruments,
            self.tracks,
            self.outputs,
            self.seed,
            self.temperature,
            self.top_p,
        ]
        self.shown = [self.status, self.roll, self.versions, self.tracks, *self.buttons]
        with self.blocks:
            self._events()

    def _wishes(self) -> None:
        model = self.desk.writer.model
        self.kind = gr.Radio(_KINDS, value="new", show_label=False, elem_id="kind", container=False)
        self.prompt = gr.Textbox(
            label="What should it be like?",
            placeholder="A calm waltz for flute and piano.",
            lines=3,
            max_lines=6,
            max_length=self.desk.bounds.prompt_letters,
            elem_id="prompt",
        )
        self.where = gr.Textbox(visible=False, elem_id="where", max_length=80)
        self.tracks = gr.Dropdown([], multiselect=True, visible=False, elem_id="tracks")
        self.instruments = gr.Textbox(elem_id="instruments", max_length=300, **_labelled(_INSTRUMENTS["new"]))
        self.seconds = gr.Slider(
            wishes.MIN_SECONDS, wishes.MAX_SECONDS, value=30, step=5, label="Seconds at most", elem_id="seconds"
        )
        with gr.Row(elem_id="actions"):
            self.write = gr.Button("Write", variant="primary", elem_id="write")
            self.stop = gr.Button("Stop", elem_id="stop", interactive=False)
        gr.Examples([[each] for each in _EXAMPLES], self.prompt, label="Examples", elem_id="examples")
        with gr.Accordion("More", open=False, elem_id="more"):
            self.outputs = gr.Slider(
                1, self.desk.bounds.outputs, value=1, step=1, label="Takes", info="Each becomes a version."
            )
            self.seed = gr.Number(
                None,
                label="Seed",
                info="The same seed gives the same notes; empty for new ones.",
                precision=0,
                elem_id="seed",
            )
            self.temperature = gr.Slider(
                0, 2, value=model.temperature, step=0.05, label="Temperature", info="Above 1 is wilder, below tamer."
            )
            self.top_p = gr.Slider(
                0.5, 1, value=model.top_p, step=0.01, label="Top-p", info="Lower leaves out what is unlikely."
            )

    def _piece(self) -> None:
        self.status = gr.HTML(_status(Shown("", {})), elem_id="status")
        self.roll = gr.HTML(
            roll_view.nothing(),
            html_template=(_ASSETS / "roll.html").read_text(encoding="utf-8"),
            js_on_load=(_ASSETS / "roll.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id="roll",
        )
        with gr.Row(elem_id="history"):
            self.undo = gr.Button("Undo", elem_id="undo", interactive=False, size="md", scale=0, min_width=96)
            self.open = gr.UploadButton(
                "Open a .mid",
                file_types=[".mid", ".midi"],
                type="filepath",
                elem_id="open",
                size="md",
                scale=0,
                min_width=140,
            )
        self.versions = gr.Radio([], label="Versions", elem_id="versions", visible=False)

    def _events(self) -> None:
        self.blocks.load(self._arrive, None, self.shown, **_HIDDEN)
        self.blocks.unload(self._leave)
        wish = [self.write.click, self.prompt.submit]
        gr.on(wish, self._write, self.fields, self.shown, **_QUEUED)
        self.stop.click(self._stop, None, None, **_HIDDEN)
        self.open.upload(self._open, self.open, self.shown, **_QUEUED)
        self.undo.click(self._undo, None, self.shown, **_QUEUED)
        self.versions.input(self._go_to, self.versions, self.shown, **_QUEUED)
        self.kind.change(self._kind, self.kind, [self.where, self.tracks, self.instruments, self.seconds], **_HIDDEN)
        self.roll.select(self._select, self.kind, [self.kind, self.where], **_EACH)
        gr.on(
            [self.where.blur, self.where.submit],
            self._mark,
            [self.kind, self.where],
            [self.status, self.roll],
            **_EACH,
        )

    async def _write(  # Gradio hands fields on by place
        self,
        kind: str,
        prompt: str,
        seconds: float,
        where: str,
        instruments: str,
        tracks: list[str],
        outputs: float,
        seed: float | None,
        temperature: float,
        top_p: float,
        request: gr.Request,
    ) -> AsyncIterator[list[Any]]:
        # Gradio checks choices and ranges in the browser, and not all of them again here.
        wish = wishes.Wish(
            kind=cast(wishes.Kind, kind) if kind in get_args(wishes.Kind) else "new",
            prompt=str(prompt or ""),
            seconds=float(seconds or 0),
            where=str(where or "") if kind in _WHERE else "",
            instruments=str(instruments or "") if kind in _INSTRUMENTS else "",
            tracks=tuple(map(str, tracks or ())) if kind in _TRACKS else (),
            outputs=int(outputs or 0),
            seed=secrets.randbelow(MAX_SEEDS) if seed is None else int(seed),
            temperature=min(float(temperature or 0), MAX_TEMPERATURE),
            top_p=float(top_p or 0),
        )
        async for shown in self.desk.write(_visitor(request), wish):
            yield self._update(request, shown)

    async def _open(self, path: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        async for shown in self.desk.open(_visitor(request), Path(path).name, Path(path).read_bytes()):
            yield self._update(request, shown)

    async def _undo(self, request: gr.Request) -> AsyncIterator[list[Any]]:
        async for shown in self.desk.undo(_visitor(request)):
            yield self._update(request, shown)

    async def _go_to(self, number: int, request: gr.Request) -> AsyncIterator[list[Any]]:
        async for shown in self.desk.go_to(_visitor(request), int(number)):
            yield self._update(request, shown)

    async def _arrive(self, request: gr.Request) -> list[Any]:
        return self._update(request, self.desk.arrive(_visitor(request)))

    async def _stop(self, request: gr.Request) -> None:
        self.desk.stop(_visitor(request))

    def _leave(self, request: gr.Request) -> None:
        self.desk.leave(_visitor(request))

    async def _mark(self, kind: wishes.Kind, where: str, request: gr.Request) -> list[Any]:
        shown = self.desk.mark(_visitor(request), kind, str(where or ""))
        return [_status(shown), shown.view]

    @staticmethod
    async def _select(kind: str, event: gr.EventData) -> list[Any]:
        """Bars were chosen in the roll; for a new piece that means: fill them in."""
        first, last = event._data.get("first"), event._data.get("last")
        if not isinstance(first, int) or not isinstance(last, int):
            return [gr.skip(), ""]
        where = f"bar {first}" if kind == "continue" else str(first) if first == last else f"{first}-{last}"
        return ["infill" if kind == "new" else kind, where]

    @staticmethod
    async def _kind(kind: str) -> list[Any]:
        """Only the fields that a kind has are there."""
        return [
            gr.update(visible=kind in _WHERE, **_labelled(_WHERE.get(kind, ("", "")))),
            gr.update(visible=kind in _TRACKS, label=_TRACKS.get(kind, "")),
            gr.update(visible=kind in _INSTRUMENTS, **_labelled(_INSTRUMENTS.get(kind, ("", "")))),
            gr.update(visible=kind in ("new", "continue")),
        ]

    def _update(self, request: gr.Request, shown: Shown) -> list[Any]:
        """Values for ``self.shown``. While notes come, only the roll and the status change."""
        if shown.busy:
            still = [gr.update(interactive=False), gr.skip()]
            return [_status(shown), shown.view, *still, *_buttons(False, True, False, False)]
        visit = self.desk.visits.of(_visitor(request))
        listed = [(facts(version), version.number) for version in reversed(visit.versions)]
        choices = [] if visit.version is None else wishes.track_choices(visit.version.score)
        can_undo = visit.version is not None and visit.version.before is not None
        return [
            _status(shown),
            shown.view,
            gr.update(choices=listed, value=visit.current, visible=bool(listed), interactive=True),
            gr.update(choices=choices, value=[]),
            *_buttons(True, False, can_undo, True),
        ]


def _buttons(*interactive: bool) -> list[Any]:
    """For Write, Stop, Undo and Open."""
    return [gr.update(interactive=each) for each in interactive]


def _labelled(words: tuple[str, str]) -> dict[str, Any]:
    return {"label": words[0], "placeholder": words[1]}


def _visitor(request: gr.Request) -> str:
    """Whose tab it is. A caller of the API that names none has one of its own."""
    return str(request.session_hash or secrets.token_hex(8))


def _status(shown: Shown) -> str:
    """The status as HTML; it may quote what somebody typed."""
    kind = "problem" if shown.problem else "busy" if shown.busy else "calm"
    words = shown.status
    if re.match(r"[a-z]+[ ,]", words):  # not a file's name
        words = words[0].upper() + words[1:]
    words += "" if not words or shown.busy or words.endswith((".", "?")) else "."
    return f'<p class="{kind}" role="status" aria-live="polite">{escape(words)}</p>'
