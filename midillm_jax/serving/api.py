"""The HTTP API over a service: music as JSON or as server-sent events, health, metrics, the model's name."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

import midillm_jax
from midillm_jax.errors import UserError
from midillm_jax.music.vocab import PITCHES, TICKS_PER_SECOND
from midillm_jax.serving.metrics import Metrics
from midillm_jax.serving.schema import Answer, Bounds, Music, PieceOut, Problem, TimingsOut
from midillm_jax.serving.service import Busy, EngineFailed, Service, Unavailable
from midillm_jax.serving.session import Notes, Piece, Session, TimedOut

RETRY_SECONDS = 5
"""When a client that found the queue full should come back."""
CLIENT_GONE = 499
"""As nginx logs it; nobody reads it."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Result = TypeVar("_Result")


class Invalid(UserError):
    """A field of the request has a value that it cannot have."""


class _ClientGone(Exception):
    pass


_STATUS: dict[type[Exception], int] = {
    Busy: 429,
    EngineFailed: 500,
    Invalid: 422,
    TimedOut: 504,
    Unavailable: 503,
    UserError: 400,  # of what remains: the engine or the model cannot take this request
}
_REASONS = {400: "unfit", 413: "too_large", 422: "invalid", 429: "busy", 503: "unavailable"}
"""Labels of midillm_rejects_total."""
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The prompt leaves no room for music, or the engine cannot take it."},
    413: {"model": Problem, "description": "The body is too long."},
    422: {"model": Problem, "description": "A field is unknown, or its value out of range."},
    429: {"model": Problem, "description": "Too many pieces wait; Retry-After says when to come back."},
    500: {"model": Problem, "description": "The engine failed."},
    503: {"model": Problem, "description": "The engine has failed before, or the server is stopping."},
    504: {"model": Problem, "description": "Not done in time; what was written is dropped."},
}
_STREAM = {
    "description": "With `stream`: events `notes` (output; notes, each [onset s, duration s, program, pitch]), `piece` "
    "(output, and the fields of a piece), `done` (timings, model, engine), or `error` (status, detail) at the end.",
    "content": {"text/event-stream": {}},
}


def create_app(service: Service, metrics: Metrics, name: str, bounds: Bounds) -> FastAPI:
    """The application.

    Args:
        service: running.
        metrics: the same that the service has.
        name: of the model, for whoever asks.
        bounds: of a request.
    """
    app = FastAPI(title="midillm_jax", summary="Music from words, as MIDI.", version=midillm_jax.__version__)
    engine, began = service.model.engine.name, int(time.time())

    def admit(music: Music) -> Session:
        try:
            if music.n > bounds.outputs:
                raise Invalid(f"n is {music.n}; this server writes at most {bounds.outputs} pieces a request")
            if music.prompt is not None and len(music.prompt) > bounds.prompt_letters:
                raise Invalid(
                    f"the prompt has {len(music.prompt)} letters; this server reads at most {bounds.prompt_letters}"
                )
            try:
                request = music.request()
                request.limits(closes=True)
            except UserError as error:
                raise Invalid(str(error)) from None
            return Session(service, request, bounds.seconds, metrics)
        except UserError as error:
            metrics.rejects.labels(_REASONS[_status(error)]).inc()
            raise

    @app.post("/v1/music", response_model=Answer, responses={200: _STREAM, **_PROBLEMS})
    async def write_music(music: Music, request: Request) -> "Answer | _Events":
        """Writes music and answers when all of it is written, or note by note."""
        session = admit(music)
        streaming = False
        try:
            await _while_there(request, session.taken())
            if music.stream:
                streaming = True
                return _Events(session, name, engine)
            pieces = await _while_there(request, _pieces(session))
            return Answer(pieces=pieces, timings=_timings(session), model=name, engine=engine)
        finally:
            if not streaming:
                session.close()

    @app.get("/health", responses={503: {"model": Problem}})
    async def health() -> dict[str, str]:
        """200 while requests are taken in."""
        if service.trouble is not None:
            raise HTTPException(503, service.trouble)
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def read_metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model, in the form that clients of OpenAI's API read."""
        model = {"id": name, "object": "model", "created": began, "owned_by": "midillm_jax", "engine": engine}
        return {"object": "list", "data": [model]}

    @app.exception_handler(UserError)
    @app.exception_handler(EngineFailed)
    async def refuse(request: Request, error: Exception) -> Response:
        retry = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, Busy) else None
        return JSONResponse({"detail": str(error)}, _status(error), retry)

    @app.exception_handler(RequestValidationError)
    async def refuse_fields(request: Request, error: RequestValidationError) -> Response:
        metrics.rejects.labels("invalid").inc()
        return JSONResponse({"detail": "; ".join(map(_field_error, error.errors()))}, 422)

    @app.exception_handler(_ClientGone)
    async def say_nothing(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    app.add_middleware(_BodyBound, most=bounds.body_bytes, metrics=metrics)
    return app


class _BodyBound:
    """Stops reading a body that is too long, whether or not its length was told."""

    def __init__(self, app: Callable[..., Awaitable[None]], most: int, metrics: Metrics) -> None:
        self._app, self._most, self._metrics = app, most, metrics

    async def __call__(self, scope: _Message, receive: _Receive, send: Callable[[_Message], Awaitable[None]]) -> None:
        read = 0

        async def bounded() -> _Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                self._metrics.rejects.labels(_REASONS[413]).inc()
                raise HTTPException(413, f"the body has more than {self._most} bytes")
            return message

        await self._app(scope, bounded, send)


class _Events(StreamingResponse):
    """A session's events as they come; whatever ends the response closes the session."""

    def __init__(self, session: Session, model: str, engine: str) -> None:
        self._session = session
        # Proxies are asked not to wait for the end (X-Accel-Buffering is nginx's).
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_lines(session, model, engine), media_type="text/event-stream", headers=headers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._session.close()


async def _lines(session: Session, model: str, engine: str) -> AsyncIterator[str]:
    try:
        async for event in session.events():
            if isinstance(event, Notes):
                table = event.table
                programs, pitches = divmod(table.notes, PITCHES)
                columns = (table.onsets / TICKS_PER_SECOND, table.durations / TICKS_PER_SECOND, programs, pitches)
                notes = [list(note) for note in zip(*(column.tolist() for column in columns), strict=True)]
                yield _line("notes", {"output": event.output, "notes": notes})
            elif isinstance(event, Piece):
                yield _line("piece", {"output": event.output} | PieceOut.of(event.composition).model_dump())
            else:
                yield ": nothing new\n\n"
    except (UserError, EngineFailed) as error:
        yield _line("error", {"status": _status(error), "detail": str(error)})
        return
    yield _line("done", {"timings": _timings(session).model_dump(), "model": model, "engine": engine})


def _line(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


async def _pieces(session: Session) -> list[PieceOut]:
    pieces = {event.output: event.composition async for event in session.events() if isinstance(event, Piece)}
    return [PieceOut.of(pieces[output]) for output in sorted(pieces)]


def _timings(session: Session) -> TimingsOut:
    seconds = dataclasses.asdict(session.timings)
    return TimingsOut.model_validate({name: value and round(value, 4) for name, value in seconds.items()})


async def _while_there(request: Request, work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of some work, which is cancelled when the client goes.

    Raises:
        _ClientGone: it has gone.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise _ClientGone
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _status(error: Exception) -> int:
    return next(status for kind, status in _STATUS.items() if isinstance(error, kind))


def _field_error(error: dict[str, Any]) -> str:
    """One of pydantic's errors in words."""
    where = ".".join(map(str, error["loc"][1:]))
    if error["type"] == "json_invalid":
        return f"the body is not JSON: {error['ctx']['error']} (character {where})"
    if not where:
        return "the body is no JSON object; send one, with Content-Type: application/json"
    if error["type"] == "extra_forbidden":
        return f"there is no field {where}; expected {', '.join(Music.model_fields)}"
    return f"{where}: {error['msg']}"
