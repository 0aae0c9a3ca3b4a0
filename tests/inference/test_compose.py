"""From words to a .mid through a model folder, with weights that were never trained."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import jax
import mido
import numpy as np
import pytest

from midillm_jax.errors import UserError
from midillm_jax.inference.compose import MusicModel, compose, load_model, token_requests
from midillm_jax.inference.engine import Progress
from midillm_jax.inference.request import MusicRequest
from midillm_jax.model.hf_write import write_hf
from midillm_jax.model.llama import INFERENCE, Definition
from midillm_jax.music import grammar_check
from midillm_jax.music.amt import encode_midi
from midillm_jax.music.vocab import AUTOREGRESS, SEPARATOR
from midillm_jax.text.prompt import prompt_ids
from midillm_jax.text.tokenizer import train_sentencepiece
from tests.inference import parts

CONFIG = dataclasses.replace(parts.CONFIG, context_length=1024)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.untrained(tmp_path_factory.mktemp("model"), CONFIG)


@pytest.fixture(scope="module")
def model(folder: Path) -> MusicModel:
    return load_model(folder)


def test_a_hundred_pieces_of_an_untrained_model_are_all_midi_files_with_notes(model: MusicModel) -> None:
    composed = compose(model, MusicRequest("a warm drum plays", outputs=100, temperature=1.0))
    assert len(composed.pieces) == 100
    for piece in composed.pieces:
        file = mido.MidiFile(file=io.BytesIO(piece.midi))
        notes = [message for track in file.tracks for message in track if message.type == "note_on"]
        assert len(notes) == len(piece.table) >= 1
        assert len(encode_midi(piece.midi)) == 3 * len(piece.table)
        assert grammar_check.check(piece.amt_ids) is None
    assert len({piece.midi for piece in composed.pieces}) == 100


def test_the_same_request_gives_the_same_bytes(model: MusicModel) -> None:
    request = MusicRequest("a cold horn plays", outputs=2, seed=5)
    first, second = compose(model, request), compose(model, request)
    assert [piece.midi for piece in first.pieces] == [piece.midi for piece in second.pieces]
    other = compose(model, MusicRequest("a cold horn plays", outputs=2, seed=6))
    assert other.pieces[0].midi != first.pieces[0].midi


def test_limits_reach_the_engine(model: MusicModel) -> None:
    request = MusicRequest("a lute", outputs=4, max_notes=9, max_seconds=2.5, programs=(24, 128))
    for piece in compose(model, request).pieces:
        assert 1 <= len(piece.table) <= 9
        assert set(piece.table.programs()) <= {24, 128}
        assert piece.table.onsets.max() < 250
        assert piece.closed == (piece.amt_ids[-1] == SEPARATOR)


def test_the_engine_gets_the_prompt_as_training_laid_it_out(model: MusicModel) -> None:
    (given,) = token_requests(model, MusicRequest("a bright lute plays"))
    assert given.prompt == (*prompt_ids(model.tokenizer, "a bright lute plays"), 300 + AUTOREGRESS)
    (alone,) = token_requests(model, MusicRequest(None))
    assert alone.prompt == (model.tokenizer.bos_id, 300 + AUTOREGRESS)
    assert alone.length <= CONFIG.context_length < alone.length + 3


def test_few_notes_do_not_ask_for_the_whole_context(model: MusicModel) -> None:
    (given,) = token_requests(model, MusicRequest(None, max_notes=10))
    assert given.max_triples == 10 + 100 + 1


def test_a_prompt_beyond_the_context_is_refused_with_numbers(model: MusicModel) -> None:
    words = "drum horn lute " * 400
    tokens = len(prompt_ids(model.tokenizer, words)) + 1
    with pytest.raises(UserError, match=f"takes {tokens} tokens, but a sequence of this model holds 1024"):
        compose(model, MusicRequest(words))


def trained_with(folder: Path, row_length: int | None) -> None:
    """Has midillm.json say that the model was trained on rows of this length."""
    path = folder / "midillm.json"
    run = None if row_length is None else {"data": {"row_length": row_length}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trained_with": run}))


@pytest.mark.parametrize(("row_length", "longest"), [(500, 500), (4096, 1024), (None, 1024)])
def test_no_sequence_is_longer_than_those_trained_on(
    folder: Path, tmp_path: Path, row_length: int | None, longest: int
) -> None:
    other = altered(folder, tmp_path)
    trained_with(other, row_length)
    model = load_model(other)
    (given,) = token_requests(model, MusicRequest("a warm drum plays"))
    assert given.length <= longest < given.length + 3
    with pytest.raises(UserError, match=f"a sequence of this model holds {longest}"):
        token_requests(model, MusicRequest("drum " * longest))


def test_without_midillm_json_the_context_is_the_bound(folder: Path, tmp_path: Path) -> None:
    other = altered(folder, tmp_path)
    trained_with(other, 500)
    (other / "midillm.json").unlink()
    (given,) = token_requests(load_model(other), MusicRequest(None))
    assert given.length <= CONFIG.context_length < given.length + 3


def test_another_models_tokenizer_is_refused_with_numbers(folder: Path, tmp_path: Path) -> None:
    other = altered(folder, tmp_path)
    train_sentencepiece(["a warm drum plays", "a cold horn plays"], other / "tokenizer.model", 280)
    with pytest.raises(UserError, match=r"tokenizer\.model: this tokenizer has 280 ids, .* 300 text rows"):
        load_model(other)


def test_progress_and_times(model: MusicModel) -> None:
    seen: list[Progress] = []
    composed = compose(model, MusicRequest("a lute", max_notes=3), seen.append)
    assert seen[-1].stage == "done"
    assert [progress.triples for progress in seen] == sorted(progress.triples for progress in seen)
    assert composed.seconds["decode"] > 0


def altered(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "altered"))


def test_a_model_that_never_learned_to_close_says_so_in_its_generation_config(folder: Path, tmp_path: Path) -> None:
    other = altered(folder, tmp_path)
    path = other / "generation_config.json"
    assert load_model(folder).closes
    for ends in ([2], 2, None):
        path.write_text(json.dumps({"eos_token_id": ends}))
        assert not load_model(other).closes
    path.unlink()
    assert not load_model(other).closes
    path.write_text("{")
    with pytest.raises(UserError, match=r"generation_config\.json: not JSON"):
        load_model(other)


@pytest.mark.slow
def test_bfloat16_weights_compute_in_bfloat16(folder: Path, tmp_path: Path) -> None:
    params = Definition(CONFIG, INFERENCE).init(jax.random.key(0))
    exported = write_hf(tmp_path / "half", CONFIG, params, load_model(folder).tokenizer, dtype="bfloat16")
    (piece,) = compose(load_model(exported), MusicRequest("a lute", max_notes=3)).pieces
    assert grammar_check.check(piece.amt_ids) is None


def test_folders_without_a_music_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "missing")
    text_only = altered(folder, tmp_path)
    config = json.loads((text_only / "config.json").read_text())
    table = 300
    (text_only / "config.json").write_text(json.dumps(config | {"vocab_size": table}))
    from safetensors.numpy import load_file, save_file

    tensors = load_file(text_only / "model.safetensors")
    name = "model.embed_tokens.weight"
    save_file(tensors | {name: np.ascontiguousarray(tensors[name][:table])}, text_only / "model.safetensors")
    with pytest.raises(UserError, match="text model without music rows"):
        load_model(text_only)
