"""Each set lacks what it is said to lack, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.evaluation.degraded import (
    LADDER,
    NGRAM,
    NOISE,
    OTHER,
    REAL,
    SCRAMBLED,
    SHUFFLED,
    Example,
    degrade,
    draw,
    noise,
    scrambled,
    written,
)
from midillm_jax.evaluation.likelihood import cut
from midillm_jax.evaluation.ngram import Ngram
from midillm_jax.music.midi import NoteTable, write_midi
from midillm_jax.music.vocab import DRUM_PROGRAM, PITCHES


def melody(seed: int, program: int, notes: int = 40) -> NoteTable:
    """A melody and a drum on every second note."""
    rng = np.random.default_rng(seed)
    pitches = 128 * program + rng.integers(50, 80, notes)
    played = np.where(np.arange(notes) % 3 == 2, PITCHES * DRUM_PROGRAM + 36, pitches)
    return NoteTable(
        np.arange(notes, dtype=np.int32) * 25,
        np.full(notes, 20, np.int32),
        played.astype(np.int32),
        np.full(notes, 90, np.uint8),
    )


def test_scrambled_music_has_the_same_pitches_in_another_order() -> None:
    before = melody(1, 40)
    after = scrambled(before, np.random.default_rng(0))
    assert sorted(after.notes.tolist()) == sorted(before.notes.tolist()), "one instrument: the notes as a whole"
    assert after.notes.tolist() != before.notes.tolist()
    assert after.onsets is before.onsets
    drums = before.notes // PITCHES == DRUM_PROGRAM
    assert after.notes[drums].tolist() == before.notes[drums].tolist()
    assert (after.notes[~drums] // PITCHES == 40).all(), "each note stays with its instrument"


def test_noise_is_as_long_and_of_anything() -> None:
    before = melody(1, 40, notes=2_000)
    after = noise(before, np.random.default_rng(0))
    assert len(after) == 2_000
    assert before.onsets[0] <= after.onsets[0] <= after.onsets[-1] <= before.onsets[-1]
    assert (np.diff(after.onsets) >= 0).all()
    assert len(after.programs()) > 100
    assert np.mean(after.durations) == pytest.approx(500, abs=30)


def test_every_set_is_about_the_same_pieces() -> None:
    examples = [Example(melody(n, n), f"caption {n}", "odd" if n % 2 else "even") for n in range(10)]
    ngram = Ngram()
    for number in range(20, 30):
        ngram.add([window.amt_ids for window in cut(melody(number, 40), 682)])
    sets = degrade(examples, ngram, seed=0)
    assert list(sets) == [*LADDER, NGRAM]
    captions = [example.caption for example in examples]
    for name, outputs in sets.items():
        assert len(outputs.tables) == 10, name
        if name != SHUFFLED:
            assert list(outputs.captions) == captions, name
            assert outputs.wanted == tuple(example.notes.programs() for example in examples), name
    dealt = sets[SHUFFLED]
    assert dealt.tables == sets[REAL].tables
    assert sorted(dealt.captions) == sorted(captions)
    assert all(one != other for one, other in zip(dealt.captions, captions, strict=True))
    for caption, wanted in zip(dealt.captions, dealt.wanted, strict=True):
        assert wanted == examples[int(caption.split()[1])].notes.programs()
    numbers = {id(example.notes): number for number, example in enumerate(examples)}
    assert all((numbers[id(table)] - place) % 2 == 1 for place, table in enumerate(sets[OTHER].tables))
    for name in (SCRAMBLED, NOISE, NGRAM):
        assert [len(table) for table in sets[name].tables] == [40] * 10, name
    again = degrade(examples, ngram, seed=0)
    assert again[NGRAM].tables[3].notes.tolist() == sets[NGRAM].tables[3].notes.tolist()


def test_pieces_of_one_kind_have_no_other_genre() -> None:
    with pytest.raises(UserError, match="2 pieces of 1 kinds"):
        degrade([Example(melody(n, 0), "", "a") for n in range(2)], Ngram(), seed=0)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Three kinds of 30 groups of two pieces, an instrument a group; one kind's are too short to be drawn."""
    rows = []
    for at, (kind, notes) in enumerate((("waltz", 40), ("march", 40), ("jingle", 10))):
        (tmp_path / kind).mkdir()
        for number in range(60):
            group = 30 * at + number // 2
            location = f"{kind}/{number}.mid"
            (tmp_path / location).write_bytes(write_midi(melody(number, group, notes)))
            rows.append({"location": location, "caption": [f"number {group}"], "group": f"group {group}"})
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_no_two_parts_of_a_draw_share_a_group(captions: Path) -> None:
    drawn = draw(captions, 10, seed=0)
    assert sorted(example.kind for example in drawn.examples) == ["march"] * 5 + ["waltz"] * 5
    assert all(example.caption == f"number {example.notes.programs()[0]}" for example in drawn.examples)
    examples, references, others = (
        [table.programs()[0] for table in part]
        for part in ([example.notes for example in drawn.examples], drawn.references, drawn.others)
    )
    assert len(set(examples)) == len(set(references)) == 10
    assert sum(program < 30 for program in references) == 5, "the references are of the same kinds"
    assert not {*examples} & {*references}
    assert not {*examples, *references} & {*others}
    assert len(others) == 180 - 2 * 20, "the drawn groups' second pieces are left out"
    with pytest.raises(UserError, match="10 of 180 pieces can be drawn, with a reference each; expected 11"):
        draw(captions, 11, seed=0)


def test_what_a_model_learned_from_is_no_example(captions: Path) -> None:
    """Held out are both pieces of three groups of each kind, one kind's by a longer path than the captions give."""
    held_out = {f"{kind}/{number}.mid" for kind in ("waltz", "jingle") for number in range(6)}
    rows = [json.loads(line) for line in captions.read_text().splitlines()]
    for row in rows:
        row["location"] = f"../{captions.parent.name}/{row['location']}"
    captions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = draw(captions, 3, seed=0, held_out=held_out)
    assert sorted(example.notes.programs()[0] for example in drawn.examples) == [0, 1, 2]
    learned = [table.programs()[0] for table in (*drawn.references, *drawn.others)]
    assert not {0, 1, 2, 60, 61, 62} & {*learned}
    assert len(drawn.references) == 3
    assert len(drawn.others) == 180 - 12 - 2 * 3
    with pytest.raises(UserError, match="3 of 180 pieces can be drawn"):
        draw(captions, 4, seed=0, held_out=held_out)


def test_what_a_model_wrote_is_held_against_the_same_captions_as_real_music() -> None:
    examples = [Example(melody(n, n), f"caption {n}", str(n % 2)) for n in range(10)]
    music = [melody(100 + n, 3) for n in range(10)]
    own, dealt = written("mine", music, examples, seed=5).values()
    sets = degrade(examples, Ngram(), seed=5)
    assert own.tables == dealt.tables == tuple(music)
    assert (own.captions, own.wanted) == (sets[REAL].captions, sets[REAL].wanted)
    assert (dealt.captions, dealt.wanted) == (sets[SHUFFLED].captions, sets[SHUFFLED].wanted)
