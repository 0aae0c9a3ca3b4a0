"""The logits processors by themselves: arguments, rows that come, move and go, and the second runner on a CPU.

`make test-vllm` runs this file in an environment of vLLM's own. RunnerV2 has never met a GPU; here its inputs are what
vLLM's interface says they are, on a CPU.
"""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from midillm_jax.inference import whole_head
from midillm_jax.music import grammar
from midillm_jax.music.vocab import ANTICIPATE, CONTROL_OFFSET, DURATION_OFFSET, NOTE_OFFSET, VOCAB_SIZE

pytest.importorskip("vllm", reason="vLLM is not installed")
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from midillm_jax.inference import vllm_grammar

TEXT = 60
SLOTS = 6
LENGTH = 200


def config(vocab_size: int = TEXT + VOCAB_SIZE) -> SimpleNamespace:
    text = SimpleNamespace(vocab_size=vocab_size)
    return SimpleNamespace(model_config=SimpleNamespace(hf_text_config=text, model="a model"), speculative_config=None)


def controls(*onsets: int) -> tuple[int, ...]:
    return tuple(
        CONTROL_OFFSET + amt_id for onset in onsets for amt_id in (onset, DURATION_OFFSET + 9, NOTE_OFFSET + onset % 99)
    )


@dataclasses.dataclass
class Written:
    """A request as this test plays it, and what its next logits have to be."""

    prompt: list[int]
    limits: grammar.Limits
    controls: tuple[int, ...] = ()
    asks: bool = True
    output: list[int] = dataclasses.field(default_factory=list)

    @property
    def parameters(self) -> SamplingParams:
        argument = vllm_grammar.to_argument(self.limits, self.controls)
        return SamplingParams(extra_args={"midi_grammar": argument} if self.asks else None)

    def expected(self, logits: np.ndarray) -> np.ndarray:
        if not self.asks:
            return logits
        history = whole_head.split_prompt([*self.prompt, *self.output], TEXT)
        state = grammar.replay(history, self.limits)[None]
        packed = grammar.pack_controls([self.controls], int(grammar.controls_written(state[0])))
        limits = grammar.pack_limits([self.limits])
        return whole_head.masked_logits(np, logits[None], state, limits, packed, TEXT)[0]

    def draw(self, masked: np.ndarray, rng: np.random.Generator) -> None:
        self.output.append(int(np.argmax(masked + rng.gumbel(size=len(masked)))))


def requests() -> list[Written]:
    flag = TEXT + ANTICIPATE
    history = [TEXT + amt_id for amt_id in (3, DURATION_OFFSET + 4, NOTE_OFFSET + 5)]
    return [
        Written([1, 2, flag], grammar.Limits()),
        Written([1, flag, *history], grammar.Limits(programs=(0, 5), end_ticks=400)),
        Written([1, flag], grammar.Limits(), asks=False),
        Written([9, 8, 7, flag], grammar.Limits(max_notes=3), controls(0, 100, 300, 9000)),
        Written([1, 2, flag], grammar.Limits(pitch_low=30, pitch_high=50)),
        # More controls in the prompt than the request lists.
        Written([4, flag, *(TEXT + amt_id for amt_id in controls(0, 1, 2))], grammar.Limits()),
    ]


def random_logits(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.normal(size=(rows, TEXT + VOCAB_SIZE)).astype(np.float32) * 3


def test_the_first_runner_follows_requests_that_come_move_and_go() -> None:
    rng = np.random.default_rng(0)
    runner = vllm_grammar.Grammar(config(), torch.device("cpu"), False)
    assert isinstance(runner, vllm_grammar.RunnerV1)
    waiting, rows = requests(), {}
    one_way, swap = MoveDirectionality.UNIDIRECTIONAL, MoveDirectionality.SWAP

    def update(add: dict[int, Written], remove: tuple[int, ...] = (), moved: tuple = ()) -> None:
        runner.update_state(
            BatchUpdate(
                len(rows),
                removed=list(remove),
                added=[(row, it.parameters, it.prompt, it.output) for row, it in add.items()],
                moved=list(moved),
            )
        )

    def steps(count: int) -> None:
        for _ in range(count):
            logits = random_logits(rng, len(rows))
            masked = runner.apply(torch.from_numpy(logits.copy())).numpy()
            for row, request in rows.items():
                np.testing.assert_allclose(masked[row], request.expected(logits[row]), rtol=1e-5)
                request.draw(masked[row], rng)
            runner.update_state(None)

    rows = dict(enumerate(waiting[:4]))
    update(rows)
    steps(7)
    rows[4] = waiting[4]
    update({4: waiting[4]})
    steps(4)
    # The first is gone, the last takes its row; two others change places.
    rows = {0: rows[4], 1: rows[3], 2: rows[2], 3: rows[1]}
    update({}, remove=(0,), moved=((4, 0, one_way), (1, 3, swap)))
    steps(5)
    # One comes back after it was put aside, with what it had written.
    rows[2] = waiting[0]
    update({2: waiting[0]})
    steps(6)
    rows = {0: waiting[5]}
    update({0: waiting[5]}, remove=(1, 2, 3))
    steps(5)
    rows = {}
    update({}, remove=(0,))
    untouched = torch.from_numpy(random_logits(rng, 2))
    assert runner.apply(untouched) is untouched


class Slots:
    """LogitsProcRequestState over plain tensors."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.max_num_reqs = SLOTS
        self.vocab_size = TEXT + VOCAB_SIZE
        self.all_token_ids = SimpleNamespace(gpu=torch.zeros((SLOTS, LENGTH), dtype=torch.int32))
        length = np.zeros(SLOTS, np.int32)
        self.prefill_len = SimpleNamespace(np=length, gpu=torch.from_numpy(length))


def test_the_second_runner_follows_requests_that_come_pause_and_change_slots() -> None:
    rng = np.random.default_rng(1)
    slots = Slots()
    runner = vllm_grammar.Grammar(config(), slots)
    assert isinstance(runner, vllm_grammar.RunnerV2)
    running: dict[int, Written] = {}

    def enter(slot: int, request: Written) -> None:
        tokens = [*request.prompt, *request.output]
        slots.all_token_ids.gpu[slot, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
        slots.prefill_len.np[slot] = len(tokens)
        assert runner.add_request(slot, request.parameters) is request.asks
        running[slot] = request

    def step(reading: tuple[int, ...] = ()) -> None:
        """One step of all that run, in an order of its own; those in ``reading`` still read their prompt."""
        runner.apply_staged_writes()
        order = rng.permutation(list(running))
        at = torch.from_numpy(order.astype(np.int32))
        tokens = [[*running[slot].prompt, *running[slot].output] for slot in order]
        pos = [0 if slot in reading else len(ids) - 1 for slot, ids in zip(order, tokens, strict=True)]
        logits = random_logits(rng, len(order))
        context = LogitsContext(
            expanded_idx_mapping=at,
            idx_mapping=at,
            idx_mapping_np=order.astype(np.int32),
            expanded_local_pos=torch.zeros_like(at),
            input_ids=torch.tensor([ids[place] for ids, place in zip(tokens, pos, strict=True)]),
            pos=torch.tensor(pos),
            seq_lens_upper_bound_np=np.array([len(ids) for ids in tokens]),
        )
        masked = runner.apply(torch.from_numpy(logits.copy()), context).numpy()
        for row, slot in enumerate(order):
            if slot not in reading:
                np.testing.assert_allclose(masked[row], running[slot].expected(logits[row]), rtol=1e-5)
                running[slot].draw(masked[row], rng)

    waiting = requests()
    for slot in (4, 0, 2):
        enter(slot, waiting[slot])
    step(reading=(4,))
    for _ in range(7):
        step()
    enter(3, waiting[3])
    for _ in range(6):
        step()
    # One is put aside and comes back to another slot; its own is taken by another that does not ask.
    paused = running.pop(4)
    enter(4, requests()[2])
    running.pop(2)
    enter(5, paused)
    enter(1, waiting[5])
    for _ in range(6):
        step()


def test_arguments_come_back_as_they_were_made() -> None:
    limits = grammar.Limits(programs=(3, 128), pitch_low=2, end_ticks=77, max_notes=5, closes=False)
    assert vllm_grammar.from_argument(vllm_grammar.to_argument(limits, controls(4, 9))) == (limits, controls(4, 9))
    assert vllm_grammar.from_argument(1) == (grammar.Limits(), ())
    assert vllm_grammar.from_argument({"max_notes": 3}) == (grammar.Limits(max_notes=3), ())


@pytest.mark.parametrize(
    "value",
    [
        "no",
        "[1]",
        2,
        '{"pitch": 1}',
        '{"end_ticks": 0}',
        '{"end_ticks": 2.5}',
        '{"max_notes": 99999999999}',
        '{"programs": [200]}',
        '{"programs": "x"}',
        '{"controls": [5, 6, 7]}',
        '{"controls": [1]}',
        {"controls": 4},
    ],
)
def test_what_cannot_be_used_is_a_value_error(value: object) -> None:
    parameters = SamplingParams(extra_args={"midi_grammar": value})
    with pytest.raises(ValueError, match=r"^midi_grammar: expected 1, or JSON of .* found"):
        vllm_grammar.Grammar.validate_params(parameters)


def test_a_model_without_music_rows_is_served_as_ever_but_not_with_the_grammar() -> None:
    small = config(vocab_size=32_000)
    runner = vllm_grammar.Grammar(small, torch.device("cpu"), False)
    plain, asking = SamplingParams(), SamplingParams(extra_args={"midi_grammar": 1})
    runner.update_state(BatchUpdate(1, removed=[], added=[(0, plain, [1], [])], moved=[]))
    logits = torch.zeros((1, 32_000))
    assert runner.apply(logits) is logits
    with pytest.raises(ValueError, match="no music rows"):
        runner.update_state(BatchUpdate(1, removed=[], added=[(0, asking, [1], [])], moved=[]))


def test_tokens_that_were_not_told_yet_are_an_error_that_names_the_remedy() -> None:
    runner = vllm_grammar.Grammar(config(), torch.device("cpu"), False)
    asking = SamplingParams(extra_args={"midi_grammar": 1})
    output = [-1]
    runner.update_state(BatchUpdate(1, removed=[], added=[(0, asking, [1, TEXT + ANTICIPATE], output)], moved=[]))
    with pytest.raises(RuntimeError, match="--no-async-scheduling"):
        runner.apply(torch.zeros((1, TEXT + VOCAB_SIZE)))
