import io

from rich.console import Console
from rich.text import Text

from midillm_jax.training.view import View

TRAIN = {
    "loss": 2.345,
    "text_loss": 2.5,
    "music_loss": 1.5,
    "bits_per_note": 9.87,
    "onset_bits": 3.0,
    "duration_bits": 2.0,
    "note_bits": 4.87,
    "learning_rate": 2e-4,
    "gradient_norm": 0.41,
    "tokens_per_second": 133_000.0,
    "mfu": 0.41,
    "data_wait_share": 0.002,
    "memory_gib": 8.4,
    "tokens": 1.0,
}


def test_without_a_terminal_every_row_is_a_line() -> None:
    file = io.StringIO()
    now = [0.0]
    console = Console(file=file)
    with View("stage1", 100, 512, active=True, console=console, clock=lambda: now[0]) as view:
        view.begin(9)
        view.doing("compiling ...")
        view.advance(10)
        view.show(10, "train", TRAIN)
        view.show(10, "validation of data/midi", {"bits_per_note": 9.0})
        view.saved(10)
        now[0] += 1.5 * 20
        view.advance(30)
        view.show(30, "train", {"loss": 2.0})
    assert file.getvalue().splitlines() == [
        "step 10/100 train      loss 2.345  text 2.500  music 1.500  bits/note 9.87  lr 2.00e-04  grad 0.41  "
        "tokens/s 133,000  MFU 41%  data wait 0.2%  GiB 8.4  tokens 5 k",
        "step 10/100 validation of data/midi bits/note 9.00",
        "step 30/100 train      loss 2.000  tokens 15 k  left 2 min  saved 10",
    ]


def test_a_terminal_shows_all_figures_and_how_long_it_takes() -> None:
    now = [100.0]
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=140, height=30)
    with View("stage1", 10_000, 262_144, active=True, console=console, clock=lambda: now[0]) as view:
        view.begin(4_000)
        view.doing("compiling ...")
        now[0] += 60
        view.doing("")
        for step in range(4_001, 4_101):
            now[0] += 2
            view.advance(step)
        view.show(4_100, "train", TRAIN)
        view.show(4_000, "validation", {"loss": 2.5, "bits_per_note": 10.1})
        view.saved(4_000)
        now[0] += 400
    text = plain(file.getvalue())
    last = text[text.rindex("stage1") :]
    for words in (
        "4,100/10,000 steps",
        "41%",
        "3 h 17 min left",
        "loss 2.345",
        "onset 3.00",
        "lr 2.00e-04",
        "tokens/s 133,000",
        "MFU 41%",
        "loss 2.500",
        "at step 4,000",
        "1.07 B of 2.62 B",
        "step 4,000, 7 min ago",
    ):
        assert words in last, last
    # Rows of training are in the panel; those of evaluations stand above it as well.
    assert "step 4000/10000 validation" in text
    assert "step 4100/10000 train" not in text


def test_other_processes_show_nothing() -> None:
    file = io.StringIO()
    with View("stage1", 10, 512, active=False, console=Console(file=file, force_terminal=True)) as view:
        view.begin(0)
        view.advance(1)
        view.show(1, "validation", {"loss": 1.0})
        view.say("hello")
    assert file.getvalue() == ""


def plain(text: str) -> str:
    """Without the codes that move the cursor and set colours."""
    return Text.from_ansi(text).plain
