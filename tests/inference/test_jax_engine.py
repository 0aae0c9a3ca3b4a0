"""The JAX engine against plain arithmetic: one forward pass over the whole head, sorted top-p, one row at a time."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from midillm_jax.config import ModelConfig
from midillm_jax.errors import UserError
from midillm_jax.inference import sampler
from midillm_jax.inference.engine import Progress, Written
from midillm_jax.inference.jax_engine import JaxEngine
from midillm_jax.inference.request import TokenRequest
from midillm_jax.model.llama import INFERENCE, Definition, Params, head_table
from midillm_jax.music import grammar, grammar_check
from midillm_jax.music.grammar import FREE, Limits
from midillm_jax.music.vocab import (
    ANTICIPATE,
    AUTOREGRESS,
    CONTROL_OFFSET,
    DURATION_OFFSET,
    MAX_ONSET_TICKS,
    NOTE_OFFSET,
    NOTE_SLOT,
    ONSET_SLOT,
    SEPARATOR,
)
from tests.inference.test_sampler import plain_choice

TEXT = 300
CONFIG = ModelConfig(
    text_vocab_size=TEXT,
    d_model=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    d_ff=64,
    context_length=256,
    rope_theta=1000.0,
    rms_norm_eps=1e-5,
    tie_embeddings=False,
)
DEFINITION = Definition(CONFIG, INFERENCE)


@pytest.fixture(scope="module")
def params() -> Params:
    """Weights so large that attention is sharp and logits differ by several units."""
    params = jax.tree.map(lambda leaf: leaf * 3 if leaf.ndim > 2 else leaf, DEFINITION.init(jax.random.key(0)))
    return {**params, "head": params["head"] * 6}


_forward = jax.jit(DEFINITION.forward)


@pytest.fixture(scope="module")
def engine(params: Params) -> Iterator[JaxEngine]:
    return JaxEngine(DEFINITION, params, max_rows=8)


def request(number: int, **fields: object) -> TokenRequest:
    """One of endless requests whose prompts differ in length and content."""
    prompt = (1, *range(2 + number, 10 + 3 * number), TEXT + AUTOREGRESS)
    base = TokenRequest(
        prompt, Limits(closes=False, max_notes=20), max_triples=24, temperature=1.0, top_p=0.9, seed=number
    )
    return dataclasses.replace(base, **fields)


def controls(*onsets: int) -> tuple[int, ...]:
    triples = [(onset, DURATION_OFFSET + 20, NOTE_OFFSET + 60 + index) for index, onset in enumerate(onsets)]
    return tuple(amt_id + CONTROL_OFFSET for triple in triples for amt_id in triple)


def noise_of(one: TokenRequest, step: int, slot: int) -> np.ndarray:
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(one.seed), one.output), step)
    return np.asarray(jax.random.gumbel(key, (grammar.SLOT_WIDTHS[slot],), jnp.float32), np.float64)


def logits_behind(prompt: tuple[int, ...], music: np.ndarray, params: Params) -> np.ndarray:
    """[len(music) + 1, V]: by one forward pass without cache over the whole head, from the flag on."""
    whole = [*prompt, *(music + TEXT)]
    tokens = np.zeros((1, CONFIG.context_length), np.int32)
    tokens[0, : len(whole)] = whole
    hidden = _forward(params, tokens, np.arange(tokens.shape[1])[None], np.ones_like(tokens))[0]
    return np.asarray(hidden[len(prompt) - 1 : len(whole)]) @ np.asarray(head_table(params)[: CONFIG.vocab_size]).T


def expected_ids(one: TokenRequest, written: np.ndarray, params: Params) -> list[int]:
    """What follows each prefix of prompt + written ids."""
    music = np.array([*one.history, *written])
    logits = logits_behind(one.prompt, music, params)
    if one.guidance != 1:
        free = logits_behind(one.unprompted, music, params)
        logits = free + one.guidance * (logits - free)
    arrays, given = grammar.pack_limits([one.limits]), grammar.pack_controls([one.controls])
    state = grammar.replay(one.history, one.limits)[None]
    expected = []
    for index, amt_id in enumerate(written.tolist()):
        slot, step = index % 3, len(one.history) + index
        ids = grammar.slot_ids(np, np.arange(grammar.SLOT_WIDTHS[slot]), slot) + TEXT
        row_logits = logits[step].copy()
        if slot == ONSET_SLOT:
            row_logits[ids] = grammar.fold_end(np, row_logits[None, ids], arrays)[0]
        allowed = np.zeros(CONFIG.vocab_size, bool)
        allowed[ids] = grammar.allowed(np, state, slot, arrays)[0]
        noise = np.zeros(CONFIG.vocab_size)
        noise[ids] = noise_of(one, step, slot)
        must = int(grammar.forced(np, state, given)[0])
        free = plain_choice(row_logits, allowed, noise, one.temperature, one.top_p) - TEXT
        expected.append(free if must == FREE else must)
        state = grammar.advance(np, state, np.array([amt_id], np.int32), arrays)
    return expected


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 0.9), (1.0, 0.98), (0.7, 0.5), (1.3, 1.0)])
def test_ids_are_those_of_a_whole_forward_pass_over_the_whole_head(
    engine: JaxEngine, params: Params, temperature: float, top_p: float
) -> None:
    requests = [request(number, temperature=temperature, top_p=top_p) for number in range(3)]
    other = Limits(programs=(5, 128), end_ticks=9000, max_notes=20)
    given = controls(40, 900, 4000)
    requests.append(request(3, temperature=temperature, top_p=top_p, controls=given, limits=other, output=2))
    lengths = []
    for one, written in zip(requests, engine.generate(requests), strict=True):
        assert written.tolist() == expected_ids(one, written, params)
        lengths.append(len(written))
    assert sum(lengths) > 90, "too short to show anything"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_guidance_weighs_what_the_prompt_adds(engine: JaxEngine, params: Params, temperature: float) -> None:
    plain = (1, TEXT + AUTOREGRESS)
    sampling = {"temperature": temperature, "unprompted": plain}
    requests = [request(0, guidance=3.0, **sampling), request(1, guidance=0.5, **sampling), request(2, **sampling)]
    given = controls(40, 900, 4000)
    requests.append(request(3, guidance=2.0, controls=given, history=(10, 10_020, 11_060), **sampling))
    written = engine.generate(requests)
    for one, ids in zip(requests, written, strict=True):
        assert ids.tolist() == expected_ids(one, ids, params)
    alone = engine.generate([dataclasses.replace(requests[0], guidance=1.0)])[0]
    assert alone.tolist() != written[0].tolist()
    # More than half of the largest batch: in two goes.
    many = engine.generate([dataclasses.replace(requests[0], output=output) for output in range(6)])
    np.testing.assert_array_equal(many[0], engine.generate([requests[0]])[0])


def test_an_engine_without_guidance_refuses_it(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JaxEngine, "guides", False)
    with pytest.raises(UserError, match=r"guidance 2 was asked for, which the jax engine cannot do"):
        JaxEngine(DEFINITION, params).add(request(0, guidance=2.0))


def test_a_seed_and_an_output_decide_the_ids(engine: JaxEngine) -> None:
    requests = [request(0), request(0), request(0, seed=1), request(0, output=1)]
    first, second, other_seed, other_output = engine.generate(requests)
    np.testing.assert_array_equal(first, second)
    for other in (other_seed, other_output):
        assert other.tolist() != first.tolist()
    np.testing.assert_array_equal(engine.generate(requests)[0], first)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_shares_the_batch_does_not_matter(engine: JaxEngine, temperature: float) -> None:
    alone = engine.generate([request(2, temperature=temperature)])[0]
    among = [request(5), request(2, temperature=temperature), request(1, temperature=0.0), request(9, top_p=1.0)]
    np.testing.assert_array_equal(engine.generate(among)[1], alone)
    # Nine requests are more than one batch of this engine.
    many = [request(number) for number in range(3, 11)]
    np.testing.assert_array_equal(engine.generate([*many, request(2, temperature=temperature)])[8], alone)
    np.testing.assert_array_equal(engine.generate([request(2, temperature=temperature), *many])[0], alone)


def test_controls_come_out_exactly_and_when_they_are_due(engine: JaxEngine) -> None:
    wanted = controls(100, 450, 501, 5000, 9000)
    one = request(4, prompt=(1, 2, TEXT + ANTICIPATE), controls=wanted, max_triples=40)
    written = engine.generate([one])[0]
    assert grammar_check.check(written, one.limits) is None
    assert written[:6].tolist() == list(wanted[:6]), "due before any event"
    triples = written.reshape(-1, 3)
    found = triples[(triples[:, 0] >= CONTROL_OFFSET) & (triples[:, 0] < SEPARATOR)]
    last = triples[triples[:, 0] < CONTROL_OFFSET][-1, 0]
    due = sum(onset <= last + 500 for onset in (100, 450, 501, 5000, 9000))
    assert found.reshape(-1).tolist() == list(wanted[: 3 * due])


def test_a_continuation_is_what_would_have_been_written_anyway(engine: JaxEngine) -> None:
    one = request(6, controls=controls(10, 600, 2000))
    whole = engine.generate([one])[0]
    assert len(whole) > 30
    for triples in (1, 5):
        history = tuple(whole[: 3 * triples].tolist())
        rest = dataclasses.replace(one, history=history, max_triples=one.max_triples - triples)
        np.testing.assert_array_equal(engine.generate([rest])[0], whole[3 * triples :])


def test_rows_stop_at_their_own_length_and_the_batch_when_all_have(engine: JaxEngine) -> None:
    seen: list[Progress] = []
    short = [request(number, max_triples=number + 1, limits=Limits(closes=False)) for number in range(3)]
    assert [len(ids) for ids in engine.generate(short, seen.append)] == [3, 6, 9]
    assert sum(progress.stage == "decode" for progress in seen) == 1
    assert seen[-1] == Progress("done", 6, 6)


def test_shapes_already_seen_are_not_compiled_again(engine: JaxEngine) -> None:
    engine.generate([request(0), request(1)])
    seen: list[Progress] = []
    engine.generate([request(7, controls=controls(4)), request(8, max_triples=9), request(2)], seen.append)
    assert {progress.stage for progress in seen} == {"prefill", "decode", "done"}


def test_a_request_beyond_the_context_is_refused_with_numbers(engine: JaxEngine) -> None:
    with pytest.raises(UserError, match=r"of 310 tokens .* 10 are its prompt.* holds 256"):
        engine.generate([request(0, prompt=(1,) * 10, max_triples=100)])


def test_broken_weights_are_reported(params: Params) -> None:
    broken = {**params, "final_norm": params["final_norm"].at[3].set(jnp.nan)}
    with pytest.raises(UserError, match="not finite"):
        JaxEngine(DEFINITION, broken).generate([request(0)])


def test_tokens_never_leave_their_slot(engine: JaxEngine) -> None:
    for written in engine.generate([request(number, temperature=5.0, top_p=1.0) for number in range(8)]):
        assert grammar_check.check(written) is None
        assert written[NOTE_SLOT] >= NOTE_OFFSET
        assert written[ONSET_SLOT] < MAX_ONSET_TICKS


@pytest.fixture(scope="module")
def stepper(params: Params) -> JaxEngine:
    """One whose steps are so short that even an untrained model's pieces take several."""
    return JaxEngine(DEFINITION, params, max_rows=8, step_triples=2)


def steps(engine: JaxEngine, keys: list[int]) -> list[list[Written]]:
    """All steps until these requests are done."""
    taken, waiting = [], set(keys)
    while waiting:
        taken.append(engine.step())
        waiting -= {part.key for part in taken[-1] if part.done}
    return taken


def joined(taken: list[list[Written]], key: int) -> list[int]:
    return [amt_id for step in taken for part in step if part.key == key for amt_id in part.amt_ids.tolist()]


def test_steps_write_whole_triples_that_make_up_the_sequence(stepper: JaxEngine) -> None:
    requests = [request(number) for number in range(3)]
    keys = [stepper.add(one) for one in requests]
    taken = steps(stepper, keys)
    parts = [len(part.amt_ids) for step in taken for part in step]
    assert all(length % 3 == 0 for length in parts)
    assert len(parts) > len(keys), "nothing came before the end"
    for key, whole in zip(keys, stepper.generate(requests), strict=True):
        assert joined(taken, key) == whole.tolist()


def test_a_dropped_request_ends_and_leaves_the_others_alone(stepper: JaxEngine) -> None:
    requests = [request(number, max_triples=24) for number in range(3)]
    first, second, third = (stepper.add(one) for one in requests)
    assert stepper.step() == []
    assert {part.key for part in stepper.step()} == {first, second, third}
    stepper.drop(second)
    taken = steps(stepper, [first, third])
    assert joined(taken, second) == []
    for part, one in ((first, requests[0]), (third, requests[2])):
        assert joined(taken, part) == stepper.generate([one])[0].tolist()[6:]
    assert stepper.step() == []


def test_when_all_are_dropped_the_next_batch_begins(stepper: JaxEngine) -> None:
    gone, waiting = stepper.add(request(0)), stepper.add(request(1))
    stepper.drop(waiting)
    stepper.step()
    later = stepper.add(request(2))
    stepper.drop(gone)
    assert joined(steps(stepper, [later]), later) == stepper.generate([request(2)])[0].tolist()


def test_a_request_that_comes_late_waits_for_the_batch(stepper: JaxEngine) -> None:
    early = stepper.add(request(0, max_triples=24))
    stepper.step()
    late = stepper.add(request(1))
    taken = steps(stepper, [early, late])
    done = [
        next(n for n, step in enumerate(taken) if any(p.key == key and p.done for p in step)) for key in (early, late)
    ]
    assert done[0] < done[1]
    assert joined(taken, late) == stepper.generate([request(1)])[0].tolist()


def test_a_refused_request_takes_the_others_of_its_call_along(stepper: JaxEngine) -> None:
    with pytest.raises(UserError, match="holds 256"):
        stepper.generate([request(0), request(1, max_triples=100)])
    assert stepper.step() == []


def test_a_prompt_that_several_share_is_read_once(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    prefill = sampler.prefill

    def seen(definition: Definition, cache_length: int, params: Params, tokens: jax.Array, *rest: jax.Array) -> object:
        read.append(tokens.shape)
        return prefill(definition, cache_length, params, tokens, *rest)

    monkeypatch.setattr(sampler, "prefill", seen)
    engine = JaxEngine(DEFINITION, params)
    # Two prompts for seven rows, the second with a history.
    requests = [request(4, output=output) for output in range(4)]
    requests += [request(4, output=output, history=(3, DURATION_OFFSET + 9, NOTE_OFFSET + 60)) for output in range(3)]
    written = engine.generate(requests)
    assert read == [(4, 64)]
    for one, ids in zip(requests, written, strict=True):
        assert ids.tolist() == expected_ids(one, ids, params)
    assert len({tuple(ids.tolist()) for ids in written}) == 7
