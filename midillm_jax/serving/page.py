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
from typing import Any

# Read by Gradio as it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import fastapi
import gradio as gr

from midillm_jax.errors import UserError
from midillm_jax.serving import roll_view, versions, wishes
from midillm_jax.serving.desk import Desk, Shown, facts
from midillm_jax.serving.fields import Fields, Values
from midillm_jax.serving.places import track_choices

_ASSETS = Path(__file__).parent.parent / "assets" / "page"
_CLEAN = (600, 3600)
"""Seconds between looks for uploads to delete, and their age then."""
_HANDLERS = 100
"""Tabs that may wait for the engine and be told of it; the writer's own line says who is next."""
_HEAD = re.compile(r"^in bars? [\d-]+,\s*")
"""What a stretch that was chosen before has put before the words of an edit."""
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
                    self.fields = Fields(desk.bounds, desk.writer.model)
                with gr.Column(scale=9, min_width=480, elem_id="piece"):
                    self._piece()
        self.buttons = [self.fields.write, self.fields.show_plan, self.fields.stop, self.undo, self.open]
        self.shown = [self.status, self.roll, self.versions, self.fields.tracks, self.fields.plan, *self.buttons]
        with self.blocks:
            self._events()

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
        fields = self.fields
        self.blocks.load(self._arrive, None, self.shown, **_HIDDEN)
        self.blocks.unload(self._leave)
        gr.on([fields.write.click, fields.prompt.submit], self._write, fields.all, self.shown, **_QUEUED)
        asked = [self.status, self.roll, fields.plan]
        gr.on([fields.show_plan.click, fields.words.submit], self._read_words, fields.words, asked, **_QUEUED)
        # Other words mean another plan; in the browser, so that no answer comes behind one of the plan's.
        fields.words.change(None, None, fields.plan, js="() => ''", **_HIDDEN)
        fields.stop.click(self._stop, None, None, **_HIDDEN)
        self.open.upload(self._open, self.open, self.shown, **_QUEUED)
        self.undo.click(self._undo, None, self.shown, **_QUEUED)
        self.versions.input(self._go_to, self.versions, self.shown, **_QUEUED)
        fields.kind.change(self._kind, fields.kind, [self.roll, *fields.by_kind], **_HIDDEN)
        self.roll.select(self._select, [fields.kind, fields.words], [fields.kind, fields.where, fields.words], **_EACH)
        gr.on(
            [fields.where.blur, fields.where.submit],
            self._mark,
            [fields.kind, fields.where],
            [self.status, self.roll],
            **_EACH,
        )

    async def _write(self, values: Values, request: gr.Request) -> AsyncIterator[list[Any]]:
        visitor = _visitor(request)
        try:
            wish = self.fields.wish(values)
        except UserError as error:
            yield self._update(request, self.desk.refuse(visitor, error))
            return
        async for shown in self.desk.write(visitor, wish):
            yield self._update(request, shown)

    async def _read_words(self, words: str, request: gr.Request) -> list[Any]:
        shown = await self.desk.read_words(_visitor(request), str(words or ""))
        return [_status(shown), shown.view, gr.skip() if shown.plan is None else shown.plan]

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
    async def _select(kind: str, words: str, event: gr.EventData) -> list[Any]:
        """Bars were chosen in the roll; for a new piece that means: fill them in. An edit has them in its words."""
        first, last = event._data.get("first"), event._data.get("last")
        chosen = isinstance(first, int) and isinstance(last, int)
        bars = "" if not chosen else str(first) if first == last else f"{first}-{last}"
        if kind == "edit":
            head = "" if not chosen else f"in bar{'' if first == last else 's'} {bars}, "
            return [gr.skip(), gr.skip(), head + _HEAD.sub("", str(words or ""))]
        if not chosen:
            return [gr.skip(), "", gr.skip()]
        return ["infill" if kind == "new" else kind, f"bar {first}" if kind == "continue" else bars, gr.skip()]

    async def _kind(self, kind: str, request: gr.Request) -> list[Any]:
        # What was marked for another kind is not meant by the words of an edit.
        view = self.desk.unmark(_visitor(request)) if kind == "edit" else None
        return [gr.skip() if view is None else view, *self.fields.shown_for(kind)]

    def _update(self, request: gr.Request, shown: Shown) -> list[Any]:
        """Values for ``self.shown``. While notes come, only the roll and the status change."""
        plan = gr.skip() if shown.plan is None else shown.plan
        if shown.busy:
            still = [gr.update(interactive=False), gr.skip()]
            return [_status(shown), shown.view, *still, plan, *_buttons(False, False, True, False, False)]
        visit = self.desk.visits.of(_visitor(request))
        listed = [(facts(version), version.number) for version in reversed(visit.versions)]
        now = visit.version
        choices = [] if now is None else track_choices(now.score, now.music)
        can_undo = now is not None and now.before is not None
        return [
            _status(shown),
            shown.view,
            gr.update(choices=listed, value=visit.current, visible=bool(listed), interactive=True),
            gr.update(choices=choices, value=[]),
            plan,
            *_buttons(True, True, False, can_undo, True),
        ]


def _buttons(*interactive: bool) -> list[Any]:
    """For Write, Show plan, Stop, Undo and Open."""
    return [gr.update(interactive=each) for each in interactive]


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
