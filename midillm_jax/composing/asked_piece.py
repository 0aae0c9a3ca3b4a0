"""A new piece as fields ask for it, whether they are options of a command or on the page."""

import dataclasses

from midillm_jax.composing import fitting
from midillm_jax.errors import UserError
from midillm_jax.evaluation.asked import Asked
from midillm_jax.evaluation.prompt_facts import read_prompt
from midillm_jax.music.midi import NoteTable
from midillm_jax.music.parts import programs_asked


@dataclasses.dataclass(frozen=True)
class AskedPiece:
    """What is said of a new piece besides its length.

    Raises:
        UserError: a tempo beyond all music, or a name that is no key's or no instrument's.
    """

    prompt: str | None
    programs: tuple[int, ...] = ()
    """General MIDI programs that may play, 128 for drums."""
    instruments: str | None = None
    """The same in words; all may play if neither is given."""
    tempo: float | None = None
    """Quarter notes a minute."""
    key: str | None = None
    """Such as "A minor"."""
    dashes: str = ""
    """What stands before a field's name where it is an option."""

    def __post_init__(self) -> None:
        if self.tempo is not None and not fitting.SLOWEST <= self.tempo <= fitting.FASTEST:
            raise UserError(f"{self.dashes}tempo {self.tempo:g}: expected {fitting.SLOWEST:g} to {fitting.FASTEST:g}")
        self.facts()
        self.may_play()

    def facts(self) -> Asked:
        """What the prompt asks for, with the tempo and the key that were asked for as such."""
        asked = Asked() if self.prompt is None else read_prompt(self.prompt)
        if self.tempo is not None:
            asked = dataclasses.replace(asked, tempo=(self.tempo, self.tempo))
        if self.key is not None:
            asked = dataclasses.replace(asked, key=fitting.key_named(self.key))
        return asked

    def may_play(self) -> tuple[int, ...] | None:
        """The programs that may play; None for all."""
        named = () if self.instruments is None else programs_asked(self.instruments)
        return tuple(sorted({*self.programs, *named})) or None

    def fitted(self, table: NoteTable) -> tuple[NoteTable, list[str]]:
        """The notes at the tempo and in the key asked for, and what was done to them."""
        told = []
        if self.tempo is not None:
            table, done = fitting.at_tempo(table, self.tempo)
            told.append(done)
        if self.key is not None:
            table, done = fitting.in_key(table, fitting.key_named(self.key))
            told.append(done)
        return table, told
