"""Plans as lines: what they say, what they may not say, and where that is in a file."""

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.edit_plan import Parts, Plan, Regenerate, Remove, Transpose, plan_text, read_plan
from midillm_jax.music.edit_span import Bars, Edge, Seconds, Share, read_span, ticks
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score
from tests.music.files import BAND, meter, note, song, tempo

LINES = """\
bars 9-16: thin to 50% [all]
all: transpose -7 semitones [all but drums]
from bar 9: transpose +1 semitone [piano, "Bass, fretless"]
all: change to String Ensemble 1 [track 2]
bar 3: tempo 90 bpm
last 8 bars: tempo -12.5 bpm
first half: tempo 133.3%
30s-45.5s: velocity 80 [drums]
until 30s: velocity +10 [drums]
from 30s: velocity 120% ["all but", "say \\"x\\""]
last 10s: remove [piano]
first bar: double on Violin +12 semitones [flute]
second third: double -12 semitones [flute]
through bar 8: double on Flute [piano]
last quarter: regenerate [drums]
all: regenerate "a slow: \\"waltz\\" [x]" [drums]
all: add "a flute"
"""


def test_lines_are_read_as_they_are_written() -> None:
    assert plan_text(read_plan(LINES)) == LINES


def test_people_write_lines_in_their_own_way() -> None:
    plan = read_plan("# for the video\n\n  0:30 - 1:00:  remove  [ Piano ,drums ]\nBars 4: change to strings [ALL]\n")
    assert plan_text(plan) == "30s-60s: remove [Piano, drums]\nbar 4: change to String Ensemble 1 [all]\n"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            "remove the drums",
            "'remove the drums' is no operation; write where, what and whose, such as bars",
        ),
        ("bars 9-16: sing [all]", "'sing' is nothing that can be done; write one of"),
        ("the chorus: remove [all]", "'the chorus' is no place; write all, bars 9-16"),
        ("fourth half: remove [all]", "'fourth half' is no place"),
        ("third half: remove [all]", "'third half' is no place"),
        ("all: remove", "does not say whose notes; write parts behind it, or [all]"),
        ("all: tempo 90 bpm [piano]", "names parts, but it is of none or of all alike; leave out [piano]"),
        ("all: remove []", "[] names no parts; write [all], [piano, drums] or [all but drums]"),
        ("all: thin to 0% [all]", "thin to is 0%; expected more than 0% and at most 100%"),
        ("all: transpose +0 semitones [all]", "transpose is 0; expected -127 to +127 semitones, not 0"),
        ("all: change to kazoo [all]", "'kazoo' is no instrument that General MIDI knows"),
        ("all: change to drums [all]", "change to is Drums; expected an instrument with pitches"),
        ("all: tempo 2 bpm", "tempo is 2 bpm; expected 4 to 1000"),
        ("all: velocity 0 [all]", "velocity is 0; expected 1 to 127"),
        ("all: double [all]", "expected another instrument, or -127 to +127 semitones"),
        ("all: add", "add is nothing; expected words for what is added"),
    ],
)
def test_lines_that_are_no_operations(line: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        read_plan(f"# a plan\n{line}\n", "edits.txt")
    assert str(error.value).startswith("edits.txt, line 2: ")
    assert sentence in str(error.value)


def test_plans_are_data() -> None:
    plan: Plan = (
        Transpose(Bars(9, 16), Parts(("piano",)), -2),
        Remove(Seconds(None, 30), Parts(("drums", "bass"), True)),
        Regenerate(Edge(8, "bars", True), Parts(), "busier"),
    )
    assert read_plan(plan_text(plan)) == plan


TWELVE = song(
    (
        (0, tempo(500_000)),
        (0, meter(4, 4)),
        *(event for bar in range(12) for event in note(1920 * bar, 1920 * bar + 480)),
    )
)
"""Twelve bars of two seconds; the last note ends half a second into bar 12."""


@pytest.mark.parametrize(
    ("span", "begin", "end"),
    [
        ("all", 0, 12),
        ("bars 3-4", 2, 4),
        ("bar 12", 11, 12),
        ("from bar 5", 4, 12),
        ("through bar 5", 0, 5),
        ("first 5 bars", 0, 5),
        ("last bar", 11, 12),
        ("last 12 bars", 0, 12),
        ("2s-4s", 1, 2),
        ("until 4s", 0, 2),
        ("from 20s", 10, 12),
        ("first 6s", 0, 3),
        ("last 2.5s", 10, 12),
        ("first half", 0, 6),
        ("last half", 6, 12),
        ("second third", 4, 8),
        ("third quarter", 6, 9),
        ("last quarter", 9, 12),
    ],
)
def test_where_spans_are(span: str, begin: float, end: float) -> None:
    assert ticks(TWELVE, read_span(span)) == (1920 * begin, 1920 * end)


def test_silence_at_the_end_is_none_of_the_last_bars() -> None:
    long = Score(TWELVE.name, 1, 480, ((*TWELVE.tracks[0][:-1], TWELVE.tracks[0][-1]._replace(tick=1920 * 20)),))
    assert ticks(long, Edge(2, "bars", True)) == (1920 * 10, 1920 * 20 + 1)
    assert ticks(long, Share(1, 2)) == (0, 1920 * 6)


def test_a_pickup_goes_with_the_first_bars() -> None:
    # A bar of 1/4, numbered 0, then 4/4.
    music = song(((0, meter(1, 4)), (480, meter(4, 4)), *note(0, 480), *note(480, 2400), *note(2400, 4320)))
    assert ticks(music, read_span("first bar")) == (0, 480 + 1920)
    assert ticks(music, read_span("first half")) == (0, 480 + 1920)
    # The end of track, which stands where bar 2 ends, is held as well.
    assert ticks(music, read_span("last half")) == (480 + 1920, 480 + 2 * 1920 + 1)


@pytest.mark.parametrize(
    ("span", "sentence"),
    [
        ("bars 12-13", "song.mid: '12-13' is beyond its end; it has bars 1 to 12"),
        ("from bar 40", "song.mid: '40' is beyond its end"),
        ("bars 5-3", "song.mid: bars '5-3' end before they begin"),
        ("bar 0", "song.mid: '0' names bar 0, but the first is bar 1"),
        ("first 13 bars", "song.mid: 'first 13 bars' is more than it has, 12"),
        ("last 60s", "song.mid: 'last 60s' is more than it has, 22.5 seconds"),
        ("9s-9s", "song.mid: '9s-9s' is empty; name the earlier place first"),
        ("30s-40s", "song.mid: '30s' is beyond its end"),
    ],
)
def test_spans_that_are_not_there(span: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        ticks(TWELVE, read_span(span))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("parts", "tracks"),
    [
        (Parts(), {0, 1, 2, 3, 4}),
        (Parts(("drums",), True), {0, 1, 2, 3}),
        (Parts(("Bass, fretless", "kit")), {2, 4}),
        (Parts(("piano", "track 3"), True), {3, 4}),
    ],
)
def test_whose_parts_are_meant(parts: Parts, tracks: set[int]) -> None:
    assert {part.track for part in parts.of(BAND, read_notes(BAND))} == tracks


def test_parts_that_do_not_play_are_named() -> None:
    with pytest.raises(UserError, match=r"song\.mid: has no 'flute'; name some of"):
        Parts(("flute",), True).of(BAND, read_notes(BAND))
