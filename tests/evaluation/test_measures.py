"""What a measure claims to see it does see: on the made-up band, or on the corpus in MIDILLM_CORPUS_DIR."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from midillm_jax.data.captioning import caption_files
from midillm_jax.data.demo import write_band
from midillm_jax.evaluation import degraded, intervals
from midillm_jax.evaluation.degraded import LADDER, NGRAM, NOISE, OTHER, REAL, SCRAMBLED, SETS, SHUFFLED, Draw, Example
from midillm_jax.evaluation.measures import MEASURES, Finding, count, find
from midillm_jax.music.instruments import CAPTION_WORDS
from midillm_jax.music.midi import NoteTable


def findings(drawn: Draw, model: Sequence[NoteTable] | None = None) -> dict[str, Finding]:
    unigram, ngram = count(drawn.others)
    sets = degraded.degrade(drawn.examples, ngram, seed=0)
    pairs = []
    if model is not None:
        sets |= degraded.written("model", model, drawn.examples, seed=0)
        pairs = [("model", f"model, {SHUFFLED}"), ("model", NGRAM)]
    found = find(sets, drawn.references, unigram, ngram, 0, lambda name: None, pairs)
    return {finding.measure: finding for finding in found}


@pytest.fixture(scope="module")
def on_real_music(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    out = tmp_path_factory.mktemp("music") / "out"
    folder = os.environ.get("MIDILLM_CORPUS_DIR")
    if folder is None:
        write_band(out, 720, 0, documents=0)
        return findings(degraded.draw(out / "captions.jsonl", 72, seed=0))
    manifest = Path(folder) / "MANIFEST.tsv"
    out.mkdir()
    caption_files([folder], out / "captions.jsonl", manifest=manifest if manifest.is_file() else None, workers=1)
    return findings(degraded.draw(out / "captions.jsonl", 72, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("measure", [name for name, known in MEASURES.items() if known.claims])
def test_what_is_claimed_is_seen(on_real_music: dict[str, Finding], measure: str) -> None:
    finding = on_real_music.get(measure)
    if finding is None:
        assert measure == "as asked: length" or "structureness_long" in measure, "few captions and pieces have those"
        return
    missed = {name: finding.gaps[name].worse_by for name in finding.claims if not finding.gaps[name].seen}
    assert not missed, finding.scores


@pytest.mark.slow
def test_the_5_gram_puts_real_music_before_scrambled_and_that_before_noise(on_real_music: dict[str, Finding]) -> None:
    found = on_real_music["bits a note, 5-gram"]
    assert found.gaps[SCRAMBLED].seen, "beside the same pieces; the step before it is of other ones"
    assert found.steps[NOISE].seen
    assert found.scores[SHUFFLED] == found.scores[REAL], "captions play no part"


def melody(rng: np.random.Generator, program: int) -> NoteTable:
    """Twelve seconds in C major, two beats a second, on one instrument."""
    notes = 24
    pitches = 60 + rng.choice([0, 2, 4, 5, 7, 9, 11], notes)
    return NoteTable(
        np.arange(notes, dtype=np.int32) * 50,
        np.full(notes, 50, np.int32),
        (128 * program + pitches).astype(np.int32),
        np.full(notes, 90, np.uint8),
    )


@pytest.fixture(scope="module")
def on_melodies() -> dict[str, Finding]:
    """Sixteen melodies, each asking for its own instrument by its caption; a tenth of the resamples will do.

    The model plays other notes on the instrument that it is asked for.
    """
    rng = np.random.default_rng(0)
    programs = [0, 6, 11, 13, 21, 24, 32, 40, 46, 56, 58, 65, 68, 71, 73, 79]
    examples = tuple(
        Example(melody(rng, program), f"A piece for {CAPTION_WORDS[program]} in C major.", ("low", "high")[place % 2])
        for place, program in enumerate(programs)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 400)
        drawn = Draw(examples, *(tuple(melody(rng, n) for n in programs) for _ in range(2)))
        return findings(drawn, [melody(rng, n) for n in programs])


def test_claims_are_about_the_sets_that_there_are() -> None:
    for name, measure in MEASURES.items():
        assert measure.claims <= {*SETS} - {REAL}, name


def test_a_measure_of_the_caption_sees_who_was_not_asked_for(on_melodies: dict[str, Finding]) -> None:
    found = on_melodies["as asked: instrument_f1"]
    assert found.scores[REAL].value == 1
    assert found.scores[SHUFFLED].value == found.scores[OTHER].value == 0, "no two captions name the same"
    assert found.scores[SCRAMBLED].value == 1
    assert found.gaps[SHUFFLED].seen
    assert found.gaps[NOISE].seen
    assert not found.gaps[SCRAMBLED].seen
    assert not found.gaps[SCRAMBLED].contrary
    assert list(found.steps) == list(LADDER[1:])
    assert found.order() == "r > c = o < p > n", "scrambled music is played by the right instruments again"


def test_a_measure_of_music_alone_does_not_see_captions(on_melodies: dict[str, Finding]) -> None:
    for name, found in on_melodies.items():
        if name.startswith(("overlapped area", "mean", "share", "bits")):
            assert found.scores[SHUFFLED] == found.scores[REAL], name
            assert not found.gaps[SHUFFLED].seen, name
    assert on_melodies["mean: scale_consistency"].scores[REAL].value == 1
    assert on_melodies["mean: scale_consistency"].order() == "r = c = o = p # n", "another value, neither side better"
    assert on_melodies["overlapped area: scale_consistency"].gaps[NOISE].seen


def test_a_model_is_beside_its_shuffled_captions_and_the_5_gram(on_melodies: dict[str, Finding]) -> None:
    found = on_melodies["as asked: instrument_f1"]
    assert found.scores["model"].value == 1
    assert found.scores[f"model, {SHUFFLED}"].value == 0
    assert not found.gaps["model"].seen, "as good as real music"
    assert found.asked["model", f"model, {SHUFFLED}"].seen
    assert found.asked["model", NGRAM].seen
    groove = on_melodies["overlapped area: groove_consistency"]
    assert not groove.asked["model", f"model, {SHUFFLED}"].seen, "captions play no part"
    beside = found.to_json()["asked"]
    assert list(beside) == [f"model, {SHUFFLED} beside model", "5-gram beside model"]
    assert beside["5-gram beside model"]["seen"] is True


def test_too_few_pieces_tell_nothing() -> None:
    """Seven melodies: every measure needs eight that have it."""
    rng = np.random.default_rng(1)
    examples = tuple(Example(melody(rng, n), f"A piece for {CAPTION_WORDS[n]}.", str(n % 2)) for n in range(7))
    assert findings(Draw(examples, *(tuple(melody(rng, n) for n in range(7)) for _ in range(2)))) == {}
