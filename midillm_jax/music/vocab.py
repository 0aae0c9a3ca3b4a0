"""The 55,030 ids of the Anticipatory Music Transformer (arXiv 2306.08620), arrival-time encoding.

An event is a triple (onset, duration, note). ``amt_id`` is always 0..55029; a model's token id is
``amt_id + text_vocab_size``. Times are in ticks of 10 ms.
"""

TICKS_PER_SECOND = 100

ONSET_OFFSET = 0
MAX_ONSET_TICKS = 10_000
"""Onsets are 0..9999 ticks: one window is 100 seconds."""
DURATION_OFFSET = 10_000
MAX_DURATION_TICKS = 1_000
"""Durations are 0..999 ticks; longer notes are cut to 999."""
NOTE_OFFSET = 11_000
PITCHES = 128
DRUM_PROGRAM = 128
"""Programs 0..127 are General MIDI; 128 is the drum kit (channel 10)."""
PROGRAMS = 129
NOTES = PROGRAMS * PITCHES
"""16,512 notes: ``note = 128 * program + pitch``."""
REST = 27_512
"""Stands in the note slot, with duration id 10000, where more than 100 ticks pass without an onset."""

CONTROL_OFFSET = 27_513
"""An anticipated event's onset, duration and note ids are its plain ids plus this (there is no control REST)."""
CONTROL_END = CONTROL_OFFSET + NOTE_OFFSET + NOTES
"""One past the last control id; equals SEPARATOR."""

SEPARATOR = 55_025
"""Written as a whole triple after a piece that ends inside its window."""
AUTOREGRESS = 55_026
"""Flag in front of music that holds no control; every MIDI-LLM prompt ends with it."""
ANTICIPATE = 55_027
"""Flag in front of music that holds controls."""
VOCAB_SIZE = 55_030
"""Rows the text model's embedding table grows by; 55,028 and 55,029 are reserved and never emitted."""

ONSET_SLOT, DURATION_SLOT, NOTE_SLOT = 0, 1, 2
NO_SLOT = -1
"""Slot of text, flags and padding."""

MAX_GAP_TICKS = 100
"""Longest stretch without an onset before a REST triple is written."""
ANTICIPATION_TICKS = 500
"""A control is written once its onset is within 5 seconds of the previous event's."""
