"""The socket, and uvicorn on it."""

import asyncio
import math
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Literal

import uvicorn

from midillm_jax.errors import UserError

_BACKLOG = 2048
_ANSWER_SECONDS = 5
"""For the last answers to reach their clients; a connection that takes none by then is cut."""


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket that has its address but does not listen yet; port 0 takes a free one.

    Raises:
        UserError: the address is another's, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(host, port, error) from None
    try:
        if sys.platform != "win32":  # there it would share the port with whoever has it
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _refused(host, port, error) from None
    return bound


class Server(uvicorn.Server):
    """uvicorn that, when told to end, gives requests some time and then has them answered."""

    def __init__(
        self,
        app: Callable[..., Any],
        grace_seconds: float,
        close: Callable[[], None],
        lifespan: Literal["on", "off"] = "off",
    ) -> None:
        """Does not listen yet.

        Args:
            app: an ASGI application.
            grace_seconds: from the signal on, for requests that are not done.
            close: is called when they are over, and answers what is left.
            lifespan: whether the application has a beginning and an end of its own.
        """
        self._grace_seconds, self._close = grace_seconds, close
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan=lifespan,
            backlog=_BACKLOG,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(grace_seconds) + _ANSWER_SECONDS,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        asyncio.get_running_loop().call_later(self._grace_seconds, self._close)
        await super().shutdown(sockets)


def run(server: Server, bound: socket.socket, started: Callable[[str], None]) -> None:
    """Serves until SIGTERM or Ctrl-C; then takes no more connections, and waits for requests that are not done.

    Args:
        server: for the application.
        bound: as :func:`bind` gives it.
        started: hears the URL once connections are taken.

    Raises:
        UserError: somebody else began to listen there since it was bound.
        SystemExit: with code 0, on SIGTERM after :func:`exit_on_sigterm`.
        KeyboardInterrupt: on Ctrl-C.
    """
    host, port = bound.getsockname()[:2]
    try:
        bound.listen(_BACKLOG)
    except OSError as error:
        raise _refused(host, port, error) from None
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets=[bound])


def exit_on_sigterm() -> None:
    """Has SIGTERM end the process as it should end: with what `finally` says, and code 0."""
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(0))


def _refused(host: str, port: int, error: OSError) -> UserError:
    return UserError(f"{host} port {port}: cannot listen there ({error.strerror}); name another --host or --port")
