"""Operations on hand-made files, one case each."""

import pytest

from midillm_jax.errors import UserError
from midillm_jax.music.clock import tempo_map
from midillm_jax.music.edit import NewNote, replace_span
from midillm_jax.music.edit_operations import Applied, Target, apply
from midillm_jax.music.edit_plan import Regenerate, read_plan
from midillm_jax.music.parts import read_notes
from midillm_jax.music.score import Score, event_diff
from tests.music.files import BAND, meter, name, note, program, song, tempo

BAR = 1920
"""Ticks of 4/4."""


def refuse(score: Score, operation: Regenerate, target: Target) -> Score:
    raise AssertionError("nothing is to be generated")


def done(score: Score, *lines: str) -> Applied:
    return apply(score, read_plan("\n".join(lines)), refuse)


def changes(before: Score, *lines: str) -> list[tuple[str, int, int, bytes]]:
    """("+" or "-", track, tick, message)."""
    after = done(before, *lines).score
    return [("+" if c.added else "-", c.track, c.tick, c.message) for c in event_diff(before, after)]


def pitches(score: Score) -> list[tuple[int, int, int, int | None]]:
    """(channel, pitch, onset, end) of each note, in the order of onsets."""
    return [(n.part.channel, n.pitch, n.onset, n.end) for n in read_notes(score).notes]


def tempos(score: Score) -> list[tuple[int, int]]:
    clock = tempo_map(score)
    return list(zip(clock.ticks, clock.tempos, strict=True))


FOUR_BARS = song(
    (name("Piano"), *(event for bar in range(4) for event in note(BAR * bar, BAR * bar + 480))),
    (
        name("Bass"),
        program(0, 33, 1),
        *(event for bar in range(4) for event in note(BAR * bar, BAR * bar + 480, 36, 1)),
    ),
)


def test_transposing_moves_the_notes_that_begin_in_the_span() -> None:
    before = song((*note(0, 480), *note(BAR - 10, BAR + 100), (BAR + 5, b"\xa0\x3c\x40"), *note(BAR + 480, 2 * BAR)))
    assert changes(before, "bar 2: transpose -2 semitones [piano]") == [
        ("-", 0, BAR + 480, b"\x90\x3c\x64"),
        ("+", 0, BAR + 480, b"\x90\x3a\x64"),
        ("-", 0, 2 * BAR, b"\x80\x3c\x00"),
        ("+", 0, 2 * BAR, b"\x80\x3a\x00"),
    ]


def test_pressure_on_a_key_goes_with_its_note() -> None:
    before = song(((0, b"\xa0\x3c\x01"), *note(0, 480), (240, b"\xa0\x3c\x40"), (500, b"\xa0\x3c\x02")))
    after = done(before, "all: transpose +1 semitone [all]").score
    assert [event.message for event in after.tracks[0] if event.message[0] == 0xA0] == [
        b"\xa0\x3c\x01",
        b"\xa0\x3d\x40",
        b"\xa0\x3c\x02",
    ]


def test_drums_are_not_transposed_and_it_is_said() -> None:
    applied = done(BAND, "all: transpose +12 semitones [all]")
    assert [n.pitch for n in read_notes(applied.score).notes] == [60, 84, 52, 62, 36]
    assert applied.told == ("all: transpose +12 semitones [all]: 4 notes; drums have no pitches and stay",)
    with pytest.raises(UserError, match=r"^all: transpose \+12 semitones \[drums\]: song\.mid: drums have no pitches"):
        done(BAND, "all: transpose +12 semitones [drums]")


def test_pitches_end_at_127() -> None:
    before = song((*note(0, 480, 120), *note(480, 960, 60)))
    with pytest.raises(UserError, match=r"song\.mid: 1 of 2 notes would leave MIDI's pitches, 0 to 127"):
        done(before, "all: transpose +12 semitones [all]")
    with pytest.raises(UserError, match="1 of 2 notes"):
        done(before, "all: double +12 semitones [all]")


@pytest.mark.parametrize(
    ("kept", "moved", "expected"),
    [
        # Which of two tracks comes first within a tick is for the player to say, so they keep a tick apart.
        pytest.param((240, 300), (0, 480), (0, 239), id="ends where the other begins"),
        pytest.param((0, 480), (240, 600), None, id="its pitch sounds already"),
        pytest.param((0, 240), (240, 600), (241, 600), id="begins where the other ends"),
        pytest.param((960, 1000), (0, 480), (0, 480), id="apart"),
    ],
)
def test_a_pitch_sounds_once_on_a_channel(
    kept: tuple[int, int], moved: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    before = song(note(*kept, 72), note(*moved, 60))
    applied = done(before, "all: transpose +12 semitones [track 2]")
    got = [(n.pitch, n.onset, n.end) for n in read_notes(applied.score).notes if n.part.track == 1]
    assert got == ([] if expected is None else [(72, *expected)])
    assert applied.score.tracks[0] == before.tracks[0]
    assert applied.told[0].endswith("0 notes, 1 left out as their new pitch sounds there") == (expected is None)


def test_another_instrument_from_the_first_tick_of_a_span_to_its_end() -> None:
    assert changes(FOUR_BARS, "bars 2-3: change to Violin [bass]") == [
        ("+", 1, BAR, b"\xc1\x28"),
        ("+", 1, 3 * BAR, b"\xc1\x21"),
    ]


def test_another_instrument_all_through_is_chosen_where_the_old_one_was() -> None:
    assert changes(FOUR_BARS, "all: change to Violin [bass]") == [
        ("-", 1, 0, b"\xc1\x21"),
        ("+", 1, 0, b"\xc1\x28"),
    ]
    # Where none was chosen it stands behind the track's name.
    after = done(FOUR_BARS, "all: change to Violin [piano]").score
    assert [event.message[0] for event in after.tracks[0][:3]] == [0xFF, 0xC0, 0x90]


def test_of_a_channel_with_several_programs_only_the_named_one_changes() -> None:
    before = song((program(0, 0), *note(0, 480), program(BAR, 48), *note(BAR, BAR + 480), program(2 * BAR, 0)))
    before = song((*((e.tick, e.message) for e in before.tracks[0][:-1]), *note(2 * BAR, 2 * BAR + 480)))
    assert changes(before, "all: change to Flute [piano]") == [
        ("-", 0, 0, b"\xc0\x00"),
        ("+", 0, 0, b"\xc0\x49"),
        ("-", 0, 2 * BAR, b"\xc0\x00"),
        ("+", 0, 2 * BAR, b"\xc0\x49"),
    ]
    assert changes(before, "bar 2: change to Flute [strings]") == [
        ("-", 0, BAR, b"\xc0\x30"),
        ("+", 0, BAR, b"\xc0\x49"),
    ]


def test_drums_and_tracks_that_share_a_channel_keep_their_instrument() -> None:
    with pytest.raises(UserError, match="drums have no pitches and no instrument to change"):
        done(BAND, "all: change to Violin [kit]")
    with pytest.raises(UserError, match="tracks 1 and 2 share channel 1, so that Acoustic Grand Piano can only be"):
        done(BAND, "all: change to Violin [Right hand]")
    after = done(BAND, "all: change to Violin [piano]").score
    assert [n.part.program for n in read_notes(after).notes] == [40, 40, 35, 52, 128]


def test_a_tempo_for_a_span_and_the_old_one_behind_it() -> None:
    before = song(((0, tempo(500_000)), (BAR + 480, tempo(400_000)), *note(0, 4 * BAR)))
    assert tempos(done(before, "bar 2: tempo 60 bpm").score) == [
        (0, 500_000),
        (BAR, 1_000_000),
        (2 * BAR, 400_000),
    ]
    assert tempos(done(before, "bar 2: tempo 200%").score) == [
        (0, 500_000),
        (BAR, 250_000),
        (BAR + 480, 200_000),
        (2 * BAR, 400_000),
    ]
    assert tempos(done(before, "all: tempo +30 bpm").score) == [(0, 400_000), (BAR + 480, 333_333)]


def test_a_file_without_a_tempo_has_120_beats_a_minute() -> None:
    assert tempos(done(FOUR_BARS, "all: tempo 50%").score) == [(0, 1_000_000)]
    with pytest.raises(UserError, match=r"tempo -120 bpm makes 0 quarter notes a minute out of 120; keep within 4 and"):
        done(FOUR_BARS, "all: tempo -120 bpm")


def test_velocities_stay_within_1_and_127() -> None:
    before = song((*note(0, 480, velocity=10), *note(480, 960, velocity=100)))
    for line, expected in (
        ("all: velocity 150% [all]", [15, 127]),
        ("all: velocity -20 [all]", [1, 80]),
        ("all: velocity 64 [all]", [64, 64]),
    ):
        assert [n.velocity for n in read_notes(done(before, line).score).notes] == expected


def test_removing_leaves_the_track_and_its_controllers() -> None:
    before = song((name("Kit"), (0, b"\xb9\x07\x50"), *note(0, 480, 36, 9)), note(0, 480))
    assert changes(before, "all: remove [all but piano]") == [
        ("-", 0, 0, b"\x99\x24\x64"),
        ("-", 0, 480, b"\x89\x24\x00"),
    ]


def test_thinning_tells_what_is_left() -> None:
    before = song(tuple(event for beat in range(8) for event in note(240 * beat, 240 * beat + 240)))
    applied = done(before, "all: thin to 50% [piano]")
    assert [n.onset for n in read_notes(applied.score).notes] == [0, 480, 960, 1440]
    assert applied.told == ("all: thin to 50% [piano]: 4 of 8 notes taken out",)


def test_doubling_adds_a_part_or_a_pitch() -> None:
    octave = done(FOUR_BARS, "bar 1: double +12 semitones [bass]").score
    assert pitches(octave)[:3] == [(0, 60, 0, 480), (1, 36, 0, 480), (1, 48, 0, 480)]
    violin = done(FOUR_BARS, "bars 3-4: double on Violin [piano]").score
    assert [(n.part.program, n.onset) for n in read_notes(violin).notes if n.part.track == 2] == [
        (40, 2 * BAR),
        (40, 3 * BAR),
    ]


def test_parts_are_those_of_their_turn_and_bars_those_of_the_file_as_it_came() -> None:
    plan = "all: tempo 50%\nall: change to Violin [piano]\n2s-4s: transpose +1 semitone [violin]"
    after = done(FOUR_BARS, *plan.splitlines()).score
    assert [n.pitch for n in read_notes(after).notes if n.part.program == 40] == [60, 61, 60, 60]


def test_regenerating_is_the_callers() -> None:
    asked: list[tuple[Regenerate, Target]] = []

    def regenerate(score: Score, operation: Regenerate, target: Target) -> Score:
        asked.append((operation, target))
        new = NewNote(tempo_map(score).seconds(target.start), 0.1, 33, 40, 90)
        return replace_span(score, target.start, target.end, target.parts, [new]).score

    plan = read_plan('bar 2: regenerate "busier" [bass]\nfrom bar 3: add "a flute"\nall: velocity 1 [bass]')
    applied = apply(FOUR_BARS, plan, regenerate)
    assert [(o.text, t.start, t.end) for o, t in asked] == [("busier", BAR, 2 * BAR), ("a flute", 2 * BAR, 4 * BAR)]
    assert [{part.track for part in target.parts} for _, target in asked] == [{1}, set()]
    bass = sorted((n.onset, n.pitch, n.velocity) for n in read_notes(applied.score).notes if n.part.track == 1)
    assert bass == [(0, 36, 1), (BAR, 40, 1), (2 * BAR, 36, 1), (2 * BAR, 40, 1), (3 * BAR, 36, 1)]


def test_what_is_not_there_is_named_before_anything_is_generated() -> None:
    with pytest.raises(UserError, match="'5' is beyond its end; it has bars 1 to 4"):
        done(FOUR_BARS, "all: regenerate [all]", "bars 5-6: remove [bass]")
    with pytest.raises(UserError, match=r"^all: remove \[flute\]: song\.mid: has no 'flute'; name some of"):
        done(FOUR_BARS, "all: remove [flute]")


def test_bars_of_other_meters() -> None:
    before = song(((0, meter(3, 4)), *(event for beat in range(6) for event in note(480 * beat, 480 * beat + 480))))
    after = done(before, "bar 2: remove [all]").score
    assert [n.onset for n in read_notes(after).notes] == [0, 480, 960]
