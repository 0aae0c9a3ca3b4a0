"""Pictures and sound of the pieces that a page shows."""

import importlib.util
import shutil
from collections.abc import Callable, Sequence

from midillm_jax.errors import UserError
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.prompt_players import asks_for_drums
from midillm_jax.evaluation.report import ReportPiece
from midillm_jax.evaluation.symbolic import has_drums
from midillm_jax.music import render

Tell = Callable[[str, int, int | None], None]
"""See protocol.Tell."""


def no_audio() -> str | None:
    """Why nothing can be played, or None if it can."""
    if shutil.which("fluidsynth") and render.find_soundfont():
        return None
    return f"There are no players because FluidSynth or a soundfont is missing: {render.how_to_install_audio()}."


def draw_and_play(
    generated: Sequence[Generated], show: int, silence: str | None, tell: Tell
) -> tuple[list[ReportPiece], list[str]]:
    """Draws and plays the first pieces; gives what could not be played as sentences."""
    ending = ".flac" if importlib.util.find_spec("soundfile") else ".wav"
    problems = [] if silence is None else [silence]
    pieces = []
    for index, piece in enumerate(generated):
        picture = sound = None
        if index < show:
            tell("drawing and playing", index, min(show, len(generated)))
            picture, sound = piece.path.with_suffix(".png"), piece.path.with_suffix(ending)
            if not picture.is_file():
                render.piano_roll(piece.table, picture)
            if silence is not None:
                sound = None
            elif not sound.is_file():
                try:
                    render.audio(piece.path, sound)
                except UserError as error:
                    problems.append(str(error))
                    sound = None
        asks = asks_for_drums(piece.prompt.text)
        pieces.append(ReportPiece(piece, asks, has_drums(piece.table), picture, sound))
    return pieces, problems
