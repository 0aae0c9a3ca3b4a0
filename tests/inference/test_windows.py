"""Music in windows: what a model is shown, and that what comes back is one piece."""

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference import windows
from midillm_jax.inference.compose import MusicModel, load_model
from midillm_jax.inference.request import MusicRequest
from midillm_jax.inference.windows import Place, write
from midillm_jax.music import anticipation, grammar_check
from midillm_jax.music.amt import encode_midi
from midillm_jax.music.vocab import ANTICIPATE, AUTOREGRESS, CONTROL_OFFSET, DURATION_OFFSET, NOTE_OFFSET, REST
from tests.inference.parts import band_files, untrained

REQUEST = MusicRequest("a warm drum plays", seed=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    return load_model(untrained(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Events of a piece with several instruments, of which one pauses for more than a second."""
    pieces = [encode_midi(path.read_bytes()) for path in band_files(tmp_path_factory.mktemp("piece"), 8)]
    return max(pieces, key=lambda events: len(anticipation.programs(events)))


def note(onset: int, program: int = 0, pitch: int = 60, duration: int = 20) -> list[int]:
    return [onset, DURATION_OFFSET + duration, NOTE_OFFSET + 128 * program + pitch]


def events(*notes: list[int]) -> np.ndarray:
    return np.array(notes, np.int32).reshape(-1)


def test_a_window_shows_what_training_would_have_shown(model: MusicModel, piece: np.ndarray) -> None:
    chosen = anticipation.programs(piece)[:1].tolist()
    own, controls = anticipation.split_instruments(piece, chosen)
    given = controls - np.int32(CONTROL_OFFSET)
    whole = anticipation.weave(own, controls, int(own[-3]))
    at = int(own[0::3][len(own) // 6])
    before = own[np.repeat(own[0::3] < at, 3)]
    place = Place(at, at + 500, before=before, given=given)
    # Room for all of it: the model's own holds less than half of a piece.
    wide = MusicModel(model.engine, model.tokenizer, model.closes, 20_000)
    origin, request = windows.window(wide, REQUEST, place, 0, before[:0], at)
    assert request.prompt[-1] == 300 + ANTICIPATE
    assert origin == 0
    history = np.array(request.history)
    assert len(history) > 3 * len(before) // 3, "controls stand there too"
    np.testing.assert_array_equal(history, whole[: len(history)])
    assert whole[len(history)] >= at or whole[len(history) + 2] >= CONTROL_OFFSET, (
        "nothing before the place is left out"
    )
    np.testing.assert_array_equal(np.array(request.controls), controls)
    assert (request.limits.start_ticks, request.limits.end_ticks) == (at, at + 500)


def test_a_full_window_keeps_its_later_half_and_counts_from_there(model: MusicModel) -> None:
    before = events(*(note(30 * index) for index in range(1000)))
    place = Place(30_000, 31_000, before=before)
    origin, request = windows.window(model, REQUEST, place, 0, before[:0], 30_000)
    room = (512 - len(request.prompt)) // 3
    assert request.prompt[-1] == 300 + AUTOREGRESS
    assert len(request.history) // 3 == room // 2
    assert request.history[0] == 0, "a window begins with a note"
    assert origin == 30_000 - 30 * (room // 2)
    assert grammar_check.check(request.history) is None
    assert request.max_triples == room - room // 2
    assert (request.limits.start_ticks, request.limits.end_ticks) == (30_000 - origin, 31_000 - origin)


def test_an_instrument_that_enters_late_waits_among_rests(model: MusicModel) -> None:
    given = events(*(note(50 * index, program=5) for index in range(40)))
    _, request = windows.window(model, REQUEST, Place(1000, 1500, given=given), 0, given[:0], 1000)
    history = np.array(request.history).reshape(-1, 3)
    rests = history[history[:, 2] == REST]
    np.testing.assert_array_equal(rests[:, 0], np.arange(100, 1000, 100))
    assert history[0, 0] >= CONTROL_OFFSET, "nothing is silent before something is heard"
    assert grammar_check.check(request.history) is None


def test_where_nothing_is_before_the_place_the_window_begins_there(model: MusicModel) -> None:
    given = events(note(2000, 5), note(2100, 5))
    origin, request = windows.window(model, REQUEST, Place(1000, 3000, given=given), 0, given[:0], 1000)
    assert (origin, request.history, request.limits.start_ticks) == (1000, (), 0)
    assert request.controls[0] == 1000 + CONTROL_OFFSET


def test_music_of_several_windows_is_one_piece_within_its_place(model: MusicModel) -> None:
    heard: list[list[np.ndarray]] = [[], []]
    told: list[float] = []
    place = Place(500, 25_000, events(note(100), note(300)), programs=(0, 24, 128), may_close=False)
    request = MusicRequest("a cold horn plays", outputs=2, seed=1)
    written = write(
        model, request, place, lambda stage, seconds: told.append(seconds), lambda at, new: heard[at].append(new)
    )
    assert len(written) == 2
    for one, parts in zip(written, heard, strict=True):
        onsets = one.events[0::3]
        assert (np.diff(onsets) >= 0).all()
        assert onsets.min() >= 500
        # A window is 100 seconds, and this model draws any onset that is left as likely as another.
        assert 10_500 <= onsets.max() < 25_000
        assert set(anticipation.programs(one.events).tolist()) <= {0, 24, 128}
        assert one.closed
        np.testing.assert_array_equal(np.concatenate(parts), one.events)
    assert not np.array_equal(written[0].events, written[1].events)
    assert told == sorted(told)
    again = write(model, request, place)
    np.testing.assert_array_equal(again[1].events, written[1].events)


def test_what_is_given_is_not_written_again_and_comes_where_it_is_due(model: MusicModel, piece: np.ndarray) -> None:
    end = int(piece[-3]) // 2
    (written,) = write(model, REQUEST, Place(0, end, given=piece[: 3 * 60], programs=(77,), may_close=False))
    assert set(anticipation.programs(written.events).tolist()) <= {77}


def test_no_more_notes_than_asked(model: MusicModel) -> None:
    before = events(note(0), note(10))
    (written,) = write(model, REQUEST, Place(100, 40_000, before, max_notes=7, may_close=False))
    assert len(written.events) == 3 * 7
    assert not written.closed


def test_given_music_too_dense_for_a_window_is_refused(model: MusicModel) -> None:
    given = events(*(note(index, pitch=index % 128) for index in range(400)))
    with pytest.raises(UserError, match="more notes in five seconds than a window"):
        write(model, REQUEST, Place(0, 400, given=given, programs=(1,)))
    assert not model.engine.step(), "nothing is left running"


def test_a_prompt_that_leaves_no_room_is_refused(model: MusicModel) -> None:
    with pytest.raises(UserError, match="of the 512 that a sequence"):
        write(model, MusicRequest("drum " * 480), Place())
