"""The grammar, its masks and its check: what they let through and refuse, and that every library runs it alike."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from midillm_jax.data.demo import write_band
from midillm_jax.errors import UserError
from midillm_jax.music import anticipation, grammar, grammar_check
from midillm_jax.music.amt import encode_midi
from midillm_jax.music.grammar import FREE, Limits
from midillm_jax.music.midi import MidiError
from midillm_jax.music.vocab import (
    CONTROL_OFFSET,
    DRUM_PROGRAM,
    DURATION_OFFSET,
    DURATION_SLOT,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTE_SLOT,
    ONSET_SLOT,
    REST,
    SEPARATOR,
)

PIANO_C = NOTE_OFFSET + 60
CLOSE = [SEPARATOR] * 3

LIMITS = [
    Limits(),
    Limits(programs=(0, DRUM_PROGRAM), pitch_low=40, pitch_high=80, max_notes=7),
    Limits(end_ticks=1),
    Limits(max_onsets_per_tick=1, end_ticks=30, closes=False),
    Limits(closes=False, max_notes=12),
    Limits(end_ticks=250, max_onsets_per_tick=2),
    Limits(start_ticks=120, end_ticks=400),
    Limits(programs=(3,), pitch_low=50, pitch_high=69, distinct=True, end_ticks=60),
]


def note(onset: int, pitch: int = 60, program: int = 0, duration: int = 10) -> list[int]:
    return [onset, DURATION_OFFSET + duration, NOTE_OFFSET + 128 * program + pitch]


def control(onset: int, pitch: int = 60, program: int = 0) -> list[int]:
    return [amt_id + CONTROL_OFFSET for amt_id in note(onset, pitch, program)]


def rest(onset: int) -> list[int]:
    return [onset, DURATION_OFFSET, REST]


def index_in_slot(amt_id: int, slot: int) -> int:
    if slot == ONSET_SLOT:
        return MAX_ONSET_TICKS if amt_id == SEPARATOR else amt_id
    return amt_id - (DURATION_OFFSET if slot == DURATION_SLOT else NOTE_OFFSET)


def accepts(amt_ids: list[int], limits: Limits = LIMITS[0], controls: list[int] | None = None) -> bool:
    """Whether the state machine lets a sequence through, id by id; ``controls`` are those in it unless given."""
    if controls is None:
        controls = [amt_id for amt_id in amt_ids if CONTROL_OFFSET <= amt_id < SEPARATOR]
    arrays, given = grammar.pack_limits([limits]), grammar.pack_controls([controls])
    state = grammar.start(1, arrays)
    for position, amt_id in enumerate(amt_ids):
        slot = position % 3
        if slot == ONSET_SLOT and grammar.has_closed(state)[0]:
            return False  # an engine stops here
        must = int(grammar.forced(np, state, given)[0])
        mask = grammar.allowed(np, state, slot, arrays)[0]
        assert mask.any()
        if must != FREE:
            if amt_id != must:
                return False
        else:
            index = index_in_slot(amt_id, slot)
            if not (0 <= index < len(mask) and mask[index]):
                return False
        state = grammar.advance(np, state, np.array([amt_id], np.int32), arrays)
    return True


def walk(rng: np.random.Generator, limits: list[Limits], controls: list[list[int]], triples: int) -> list[list[int]]:
    """A batch of random sequences, each cut after its SEPARATOR; asserts that no mask is ever empty."""
    arrays, given = grammar.pack_limits(limits), grammar.pack_controls(controls)
    state = grammar.start(len(limits), arrays)
    # Uniform onsets would be at the end after a few notes, so most draws take one of the earliest.
    reach = rng.choice([3, 60, 300, MAX_ONSET_TICKS], size=len(limits))
    columns = []
    for step in range(3 * triples):
        slot = step % 3
        mask = grammar.allowed(np, state, slot, arrays)
        assert mask.any(1).all(), f"nothing allowed at step {step}"
        noise = rng.random(mask.shape)
        if slot == ONSET_SLOT:
            near = np.arange(mask.shape[1])[None, :] < state[:, 1:2] + reach[:, None]
            near[:, -1] = rng.random(len(limits)) < 0.02
            noise += near
        elif rng.random() < 0.3:
            noise[:, 0 if slot == DURATION_SLOT else -1] += 1  # no length, REST
        index = np.where(mask, noise, -1).argmax(1)
        must = grammar.forced(np, state, given)
        ids = np.where(must == FREE, grammar.slot_ids(np, index, slot), must).astype(np.int32)
        columns.append(ids)
        state = grammar.advance(np, state, ids, arrays)
        assert state.dtype == np.int32
    sequences = []
    for row in np.stack(columns, 1).tolist():
        closed = row.index(SEPARATOR) + 3 if SEPARATOR in row else len(row)
        assert row[closed:] == [SEPARATOR] * (len(row) - closed)
        sequences.append(row[:closed])
    return sequences


def random_controls(rng: np.random.Generator, count: int) -> list[int]:
    onsets = rng.integers(0, 4000, count)
    return [
        amt_id for onset in onsets for amt_id in control(int(onset), int(rng.integers(128)), int(rng.integers(129)))
    ]


@pytest.mark.parametrize("seed", range(3))
def test_random_walks_pass_the_check_and_keep_to_their_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    limits = LIMITS * 4
    controls = [random_controls(rng, int(rng.choice([0, 0, 1, 40]))) for _ in limits]
    sequences = walk(rng, limits, controls, 150)
    seen: set[int] = set()
    for sequence, bound, wanted in zip(sequences, limits, controls, strict=True):
        assert grammar_check.check(sequence, bound) is None
        written = [amt_id for amt_id in sequence if CONTROL_OFFSET <= amt_id < SEPARATOR]
        triples = sorted(np.reshape(wanted, (-1, 3)).tolist(), key=lambda triple: triple[0])
        assert written == [amt_id for triple in triples for amt_id in triple][: len(written)]
        if bound.max_notes is not None:
            assert sequence[-3:] == CLOSE
        seen |= set(sequence)
    assert {REST, SEPARATOR} <= seen


@pytest.mark.parametrize("limits", LIMITS)
def test_walks_without_controls_hold_a_note_before_anything_else(limits: Limits) -> None:
    for sequence in walk(np.random.default_rng(5), [limits] * 8, [[]] * 8, 4):
        assert NOTE_OFFSET <= sequence[2] < REST


WELL_FORMED = {
    "one note": note(0) + CLOSE,
    "cut by length": note(0) + note(0) + note(30),
    "late first note": note(700) + CLOSE,
    "rests": note(5) + rest(105) + rest(205) + note(205) + CLOSE,
    "a note without length is no rest": note(0, duration=0) + note(0, duration=0) + CLOSE,
    "highest of everything": note(9999, pitch=127, program=128, duration=999) + CLOSE,
    "controls first": control(100) + control(500) + note(0) + note(1) + control(501) + note(1) + CLOSE,
    "rest while controls sound": control(100) + control(500) + rest(100) + control(600) + note(200) + CLOSE,
}
ILL_FORMED = {
    "onset goes back": (note(10) + note(9) + CLOSE, "triple 1"),
    "separator first": (CLOSE, "triple 0"),
    "separator, then music": (note(0) + CLOSE + note(1), "triple 1"),
    "two separators": (note(0) + CLOSE + CLOSE, "triple 1"),
    "broken separator": ([*note(0), SEPARATOR, SEPARATOR, PIANO_C], "triple 1"),
    "separator in the note slot": ([*note(0), 1, DURATION_OFFSET, SEPARATOR], "triple 1"),
    "rest first": (rest(100) + note(200), "triple 0"),
    "rest with length": ([*note(0), 100, DURATION_OFFSET + 1, REST], "triple 1"),
    "rest in place": (note(0) + rest(0), "triple 1"),
    "rest goes back": (note(9) + rest(8), "triple 1"),
    "slots out of step": ([*note(0), DURATION_OFFSET, PIANO_C, 1], "triple 1"),
    "duration as note": ([0, DURATION_OFFSET, DURATION_OFFSET], "triple 0"),
    "onset as duration": ([0, 0, PIANO_C], "triple 0"),
    "half a control": ([*note(0), CONTROL_OFFSET, DURATION_OFFSET, PIANO_C], "triple 1"),
    "event ends as control": ([*note(0), 0, DURATION_OFFSET, PIANO_C + CONTROL_OFFSET], "triple 1"),
    "flag inside": ([*note(0), 55026, DURATION_OFFSET, PIANO_C], "triple 1"),
    "reserved": ([*note(0), 55028, 55028, 55028], "triple 1"),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_well_formed_sequences_pass_both(name: str) -> None:
    assert grammar_check.check(WELL_FORMED[name]) is None
    assert accepts(WELL_FORMED[name])


@pytest.mark.parametrize("name", ILL_FORMED)
def test_ill_formed_sequences_fail_both_and_the_reason_says_where(name: str) -> None:
    sequence, where = ILL_FORMED[name]
    reason = grammar_check.check(sequence)
    assert reason is not None
    assert where in reason
    assert not accepts(sequence, controls=[])


def test_check_names_a_broken_off_triple() -> None:
    reason = grammar_check.check([*note(0), 5])
    assert reason is not None
    assert "ends inside triple 1" in reason


@pytest.mark.parametrize(
    ("sequence", "fault"),
    [
        (control(501) + note(0) + CLOSE, "triple 0: the control at 501 ticks comes too early"),
        (note(0) + control(500) + CLOSE, "triple 1: the control at 500 ticks comes too late"),
        (note(10) + note(20) + control(510) + CLOSE, "triple 2: the control at 510 ticks comes too late"),
        (control(40) + control(30) + note(0), "triple 1: control onset 30 comes before the last control's"),
    ],
)
def test_check_knows_when_a_control_is_due(sequence: list[int], fault: str) -> None:
    assert grammar_check.check(sequence) == fault


@pytest.mark.parametrize(
    ("limits", "inside", "beyond"),
    [
        (Limits(programs=(0,)), note(0), note(0, program=1)),
        (Limits(programs=(128,)), note(0, program=128), note(0)),
        (Limits(pitch_low=60, pitch_high=60), note(0, pitch=60), note(0, pitch=61)),
        (Limits(pitch_low=60), note(0, pitch=36, program=128), note(0, pitch=59)),
        (Limits(start_ticks=50), note(50), note(49)),
        (Limits(end_ticks=50), note(49), note(50)),
        (Limits(max_notes=2), note(0) * 2 + rest(99) + CLOSE, note(0) * 3),
        (Limits(max_onsets_per_tick=2), note(7) * 2 + note(8), note(7) * 3),
        (Limits(), note(0) * 64, note(0) * 65),
        (Limits(distinct=True), note(0) + note(0, 61) + note(1), note(0) + note(0, 61) + note(0)),
    ],
)
def test_limits(limits: Limits, inside: list[int], beyond: list[int]) -> None:
    if limits.max_notes is not None:  # after the last note nothing may follow, a rest neither
        assert accepts(note(0) * 2 + CLOSE, limits)
    else:
        assert accepts(inside, limits)
    assert grammar_check.check(inside, limits) is None
    assert not accepts(beyond, limits)
    assert grammar_check.check(beyond, limits) is not None
    assert grammar_check.check(beyond, Limits(max_onsets_per_tick=99)) is None


def test_a_history_is_not_held_to_the_limits_but_its_notes_count() -> None:
    limits = Limits(programs=(5,), start_ticks=100, end_ticks=300, max_notes=3)
    history, written = note(10) + note(20), note(100, program=5)
    assert grammar_check.check(history + written, limits, len(history)) is None
    assert "triple 0: onset 10 is before the start at 100" in str(grammar_check.check(history + written, limits))
    assert "triple 2" in str(grammar_check.check(history + note(99, program=5), limits, len(history)))
    assert grammar_check.check(history + written * 2, limits, len(history)) == "4 notes, at most 3 allowed"


def test_a_note_may_come_again_where_hardly_any_other_may_sound() -> None:
    assert accepts(note(0) * 3, Limits(pitch_low=60, pitch_high=60, programs=(0,), distinct=True))
    most = grammar.RECENT_NOTES
    chord = [amt_id for pitch in range(most) for amt_id in note(5, pitch)]
    assert not accepts(chord + note(5, 0), Limits(distinct=True))
    assert accepts(chord + note(5, most) + note(5, 0), Limits(distinct=True)), "only so many are remembered"
    assert accepts(note(5) + control(505) + note(5, 61), Limits(distinct=True))
    assert not accepts(note(5) + control(505) + note(5), Limits(distinct=True))


def separator_allowed(music: list[int], limits: Limits) -> bool:
    return accepts(music + CLOSE, limits)


def test_a_model_that_never_learned_to_close_goes_on_until_the_end_is_near() -> None:
    limits = Limits(closes=False, end_ticks=1000, max_notes=3)
    assert not separator_allowed(note(0), limits)
    assert not separator_allowed(note(899), limits)
    assert separator_allowed(note(900), limits)
    assert separator_allowed(note(0) * 3, limits)
    assert separator_allowed(note(0), dataclasses.replace(limits, closes=True))


def test_only_the_end_is_left_when_the_last_tick_is_full() -> None:
    limits = Limits(max_onsets_per_tick=1, end_ticks=10)
    arrays = grammar.pack_limits([limits])
    mask = grammar.allowed(np, grammar.replay(note(9), limits)[None], ONSET_SLOT, arrays)[0]
    assert np.flatnonzero(mask).tolist() == [MAX_ONSET_TICKS]


def test_folding_the_end_keeps_the_distribution_and_stops_as_often_as_the_model_went_on() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, MAX_ONSET_TICKS + 1)) * 3
    arrays = grammar.pack_limits([Limits(end_ticks=40), Limits()])
    folded = grammar.fold_end(np, logits, arrays)
    np.testing.assert_array_equal(folded[1], logits[1])
    before = np.exp(logits[0])
    after = np.exp(folded[0])
    np.testing.assert_allclose(after[-1], before[40:].sum())
    np.testing.assert_array_equal(folded[0, :40], logits[0, :40])


def test_controls_are_forced_in_time_order_and_exactly_when_due() -> None:
    controls = control(700) + control(100) + control(500) + control(100, pitch=61)
    first = control(100) + control(100, pitch=61) + control(500)
    music = first + note(199) + note(200) + control(700) + note(200) + CLOSE
    assert accepts(music, controls=controls)
    assert not accepts(first + note(199) + control(700), controls=controls)
    assert not accepts(first + note(200) + note(200), controls=controls)
    assert not accepts(first[:3] + note(0), controls=controls)


def test_controls_do_not_move_time() -> None:
    controls = control(490)
    assert accepts(controls + note(0) + CLOSE, controls=controls)
    assert grammar_check.check(controls + note(0) + CLOSE) is None


def test_a_walk_may_leave_off_anywhere_and_be_replayed() -> None:
    rng = np.random.default_rng(2)
    controls = random_controls(rng, 20)
    [sequence] = walk(rng, [Limits()], [controls], 60)
    arrays, given = grammar.pack_limits([Limits()]), grammar.pack_controls([controls])
    state = grammar.replay(sequence[:91], Limits())[None]  # in the middle of a triple
    for position, amt_id in enumerate(sequence[91:], 91):
        must = int(grammar.forced(np, state, given)[0])
        mask = grammar.allowed(np, state, position % 3, arrays)[0]
        assert must == amt_id or (must == FREE and mask[index_in_slot(amt_id, position % 3)])
        state = grammar.advance(np, state, np.array([amt_id], np.int32), arrays)


def written(data: bytes, rng: np.random.Generator, augmented: bool) -> tuple[list[int], list[int]]:
    """The first 100 triples of a file, as rows hold them, and the controls among them."""
    events = encode_midi(data)[:300]
    events = anticipation.translate(events, -int(events[0]))
    events = events[: 3 * int(np.searchsorted(events[0::3], MAX_ONSET_TICKS))]
    controls = events[:0]
    if augmented:
        events, controls = anticipation.split_random(events, rng)
        late = int(np.searchsorted(anticipation.onsets(controls), 500, side="right"))
        if not late and len(events):  # no control is heard before the first event, so no rest may be
            shift = int(events[0])
            events, controls = anticipation.translate(events, -shift), anticipation.translate(controls, -shift)
    if len(events):
        events = anticipation.pad(events, int(events[-3]))
    woven, left = anticipation.anticipate(events, controls)
    return [*woven.tolist(), *CLOSE], controls[: len(controls) - len(left)].tolist()


@pytest.mark.parametrize("augmented", [False, True])
def test_real_pieces_are_accepted_id_by_id(tmp_path: Path, augmented: bool) -> None:
    write_band(tmp_path / "band", 8, seed=1)
    rng = np.random.default_rng(0)
    for path in sorted((tmp_path / "band" / "midi").iterdir()):
        sequence, controls = written(path.read_bytes(), rng, augmented)
        assert len(sequence) > 150
        assert bool(controls) == augmented
        assert grammar_check.check(sequence) is None, path
        assert accepts(sequence, controls=controls), path


def test_every_golden_piece_is_well_formed(golden_dir: Path) -> None:
    checked = 0
    for path in sorted((golden_dir / "public_midi").iterdir()):
        try:
            sequence, _ = written(path.read_bytes(), np.random.default_rng(0), augmented=False)
        except MidiError:
            continue
        assert grammar_check.check(sequence) is None, path
        checked += 1
    assert checked > 250


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"programs": (129,)}, "129"),
        ({"programs": ()}, "empty"),
        ({"pitch_low": 61, "pitch_high": 60}, "61 to 60"),
        ({"end_ticks": 0}, "0 ticks"),
        ({"start_ticks": -1}, "-1 ticks"),
        ({"start_ticks": 50, "end_ticks": 50}, "50 ticks"),
        ({"end_ticks": 10_001}, "10001"),
        ({"max_notes": 0}, "max_notes"),
        ({"max_onsets_per_tick": 0}, "max_onsets_per_tick"),
    ],
)
def test_limits_that_leave_nothing_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Limits(**fields)


def test_controls_must_be_controls() -> None:
    with pytest.raises(ValueError, match="triple 1: id 5 is no control onset"):
        grammar.pack_controls([control(0) + note(5)])


def steps(
    xp: Any, arrays: Callable[[Any], Any], jit: Callable[[Any], Any], sequences: list[list[int]], controls: Any
) -> list[list[np.ndarray]]:
    """Masks, forced ids, folded logits and states of one library along given sequences."""
    limits = (LIMITS * len(sequences))[: len(sequences)]
    packed = grammar.LimitArrays(*(arrays(value) for value in grammar.pack_limits(limits)))
    given = grammar.Controls(*(arrays(value) for value in controls))

    def one(slot: int) -> Any:
        def step(state: Any, ids: Any, logits: Any) -> Any:
            forced = grammar.forced(xp, state, given)
            mask = grammar.allowed(xp, state, slot, packed)
            return mask, forced, grammar.fold_end(xp, logits, packed), grammar.advance(xp, state, ids, packed)

        return jit(step)

    functions = [one(slot) for slot in (ONSET_SLOT, DURATION_SLOT, NOTE_SLOT)]
    logits = np.random.default_rng(0).normal(size=(len(sequences), MAX_ONSET_TICKS + 1)).astype(np.float32)
    state = arrays(grammar.start(len(sequences), grammar.pack_limits(limits)))
    found = []
    for position in range(len(sequences[0])):
        ids = arrays(np.array([sequence[position] for sequence in sequences], np.int32))
        *seen, state = functions[position % 3](state, ids, arrays(logits))
        found.append([np.asarray(value) for value in (*seen, state)])
    return found


@pytest.fixture(scope="module")
def sequences() -> tuple[list[list[int]], grammar.Controls]:
    rng = np.random.default_rng(11)
    controls = [random_controls(rng, count) for count in (0, 30, 3, 0, 12, 5, 4, 2)]
    found = walk(rng, LIMITS, controls, 30)
    return [(sequence + CLOSE * 30)[:90] for sequence in found], grammar.pack_controls(controls)


@pytest.mark.parametrize("library", ["jax", "torch"])
def test_every_library_gives_the_same_masks_forced_ids_and_states(
    library: str, sequences: tuple[list[list[int]], grammar.Controls]
) -> None:
    expected = steps(np, np.asarray, lambda function: function, *sequences)
    if library == "jax":
        jax = pytest.importorskip("jax")
        found = steps(jax.numpy, jax.numpy.asarray, jax.jit, *sequences)
    else:
        torch = pytest.importorskip("torch", reason="torch is not installed")
        found = steps(torch, lambda value: torch.from_numpy(np.array(value)), lambda function: function, *sequences)
    for position, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
        for name, one, other in zip(("mask", "forced", "folded", "state"), ours, theirs, strict=True):
            if name == "folded":
                np.testing.assert_allclose(one, other, rtol=1e-5, err_msg=f"{name} at {position}")
            else:
                np.testing.assert_array_equal(one, other, err_msg=f"{name} at {position}")
                assert one.dtype == other.dtype, f"{name} at {position}"
