"""``python -m midillm_jax.serve``: a web page that writes music; with ``--api``, music over HTTP for programs."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path

from midillm_jax import commands
from midillm_jax.errors import require
from midillm_jax.inference import compose


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A web page for people (docs/page.md); or POST /v1/music, /health, /metrics, /v1/models (docs/serving.md)."""

    model: Path | None = None
    """Folder that `python -m midillm_jax.export` wrote, or OWNER/NAME of a model on the Hugging Face Hub; the small
    model that comes with the package if none is given."""
    api: bool = False
    """Serve the HTTP API instead of the page."""
    backend: compose.Backend = "auto"
    """Engine (docs/serving.md); auto takes llamacpp for a GGUF export, else jax where it is installed."""
    quantization: str | None = None
    """How vLLM quantises the weights as it loads them, such as fp8 on a GPU."""
    host: str = "127.0.0.1"
    """Address to listen on: this machine's own by default, 0.0.0.0 for all."""
    port: int = 8000
    """Port; 0 takes a free one."""
    max_waiting: int = 128
    """Pieces that may wait to be begun; requests beyond are answered 429."""
    max_outputs: int = 8
    """Pieces (n) a request may ask for; takes on the page."""
    max_prompt: int = 2000
    """Letters of a prompt."""
    max_body: int = 65_536
    """Bytes of a request's body; of the API."""
    timeout: float = 600.0
    """Seconds after which a request that is not done is given up and answered 504; of the API."""
    grace: float = 20.0
    """Seconds that requests get to end after SIGTERM or Ctrl-C, before they are answered 503; of the API."""


def main(arguments: list[str]) -> None:
    """Loads the model and serves it until told to stop."""
    chosen = commands.parse(Arguments, arguments, prog="python -m midillm_jax.serve", description=__doc__)
    _check(chosen)
    folder = compose.bundled_model() if chosen.model is None else chosen.model
    name = folder.resolve().name if folder.exists() else str(folder)

    def load() -> compose.MusicModel:
        return compose.load_model(folder, chosen.backend, chosen.quantization)

    (_serve_api if chosen.api else _serve_page)(chosen, load, name)


# The servers are imported where they are chosen: an installation without their extra still has --help, and one sentence
# for the rest.


def _serve_api(chosen: Arguments, load: Callable[[], compose.MusicModel], name: str) -> None:
    from midillm_jax.serving import api, http, schema
    from midillm_jax.serving.metrics import Metrics
    from midillm_jax.serving.service import Service

    http.exit_on_sigterm()
    commands.enable_compile_cache()
    bounds = schema.Bounds(chosen.max_outputs, chosen.max_prompt, chosen.max_body, chosen.timeout)
    metrics = Metrics()
    with http.bind(chosen.host, chosen.port) as bound, Service(load, chosen.max_waiting, metrics) as service:
        app = api.create_app(service, metrics, name, bounds)
        engine = service.model.engine.name

        def started(url: str) -> None:
            print(f"{url} serves {name} on {engine}; {url}/docs says how to ask", flush=True)

        http.run(http.Server(app, chosen.grace, service.close), bound, started)


def _serve_page(chosen: Arguments, load: Callable[[], compose.MusicModel], name: str) -> None:
    if importlib.util.find_spec("gradio") is None:  # before fastapi is missed, for which [serve] would be named
        raise ModuleNotFoundError("no module named gradio", name="gradio")
    from midillm_jax.serving import http, page, wishes
    from midillm_jax.serving.desk import Desk
    from midillm_jax.serving.versions import Visits
    from midillm_jax.serving.writer import Writer

    http.exit_on_sigterm()
    commands.enable_compile_cache()
    bounds = wishes.Bounds(chosen.max_outputs, chosen.max_prompt)
    with (
        http.bind(chosen.host, chosen.port) as bound,
        Visits() as visits,
        Writer(load, chosen.max_waiting) as writer,
    ):
        app, end_streams = page.create_app(Desk(writer, visits, bounds), name)

        def close() -> None:
            writer.close()
            end_streams()

        def started(url: str) -> None:
            print(f"{url} is the page; open it in a browser. Ctrl-C ends it.", flush=True)

        http.run(http.Server(app, 0, close, lifespan="on"), bound, started)


def _check(chosen: Arguments) -> None:
    """Raises UserError for limits with which nothing could be served."""
    require(
        ("--port", chosen.port, 0 <= chosen.port < 65_536, "0 to 65535"),
        ("--max-outputs", chosen.max_outputs, chosen.max_outputs >= 1, "1 or more"),
        ("--max-waiting", chosen.max_waiting, chosen.max_waiting >= chosen.max_outputs, "--max-outputs or more"),
        ("--max-prompt", chosen.max_prompt, chosen.max_prompt >= 1, "1 or more"),
        ("--max-body", chosen.max_body, chosen.max_body >= 1, "1 or more"),
        ("--timeout", chosen.timeout, 0 < chosen.timeout < float("inf"), "a finite number of seconds above 0"),
        ("--grace", chosen.grace, 0 <= chosen.grace < float("inf"), "a finite number of seconds, 0 or more"),
    )


if __name__ == "__main__":
    commands.run(main)
