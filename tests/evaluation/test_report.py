"""The page: whole, escaped, and nothing on it leads nowhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from midillm_jax.data.shards import Piece
from midillm_jax.errors import UserError
from midillm_jax.evaluation import music_scores
from midillm_jax.evaluation.curves import Curve, draw, read_run
from midillm_jax.evaluation.generation import Generated
from midillm_jax.evaluation.inputs import Prompt
from midillm_jax.evaluation.likelihood import Likelihood, PieceNats, summarize
from midillm_jax.evaluation.report import Report, ReportPiece, render
from midillm_jax.evaluation.symbolic import drums_as_asked, instruments_as_asked
from midillm_jax.music.midi import NoteTable

PROMPTS = ["A <script>alert('x')</script> waltz & more", 'Drums "loud" <b>now</b>', "plain piano"]
LOG = """step,kind,loss,text_loss,bits_per_note
10,train,3.0,2.5,20.0
10,validation,3.1,2.6,21.0
20,train,2.0,2.0,12.5
20,validation,2.2,,13.0
"""


class Page(HTMLParser):
    """Collects what a browser would fetch or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        if tag not in ("meta", "img", "br", "link", "line", "rect", "circle", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def likelihood() -> Likelihood:
    rng = np.random.default_rng(0)
    bits = [(2 + rng.random(), 3.0) for _ in range(12)]
    return summarize([PieceNats("", "", 10, (a,) * 3, (b,) * 3, (4.0,) * 3) for a, b in bits], seed=0)


def pieces_in(folder: Path) -> list[ReportPiece]:
    """Three pieces, the first two shown, the first with sound."""
    music = folder / "some pieces"
    music.mkdir(parents=True)
    table = NoteTable(np.array([0]), np.array([50]), np.array([128 * 128 + 36]), np.array([90]))
    made = []
    for index, text in enumerate(PROMPTS):
        path = music / f"{index:03d}.mid"
        picture = path.with_suffix(".png") if index < 2 else None
        sound = path.with_suffix(".flac") if index == 0 else None
        for file in (path, picture, sound):
            if file is not None:
                file.touch()
        asks = [False, True, None][index]
        made.append(ReportPiece(Generated(Prompt(text, "n"), path, table, index > 0), asks, True, picture, sound))
    return made


def music(pieces: list[ReportPiece]) -> music_scores.MusicScores:
    generated = [piece.generated for piece in pieces]
    real = [Piece(generated[0].table, ("A song for drums alone.",), "band", "0" * 32, "real.mid")]
    return music_scores.score(generated, generated, real, 0, lambda done, total: None)


def page_of(folder: Path, **changes: object) -> str:
    pieces = pieces_in(folder)
    fields = {
        "facts": {"model": "demo/<model>"},
        "likelihood": likelihood(),
        "drums": drums_as_asked([False, True, None], [True, True, True], seed=0),
        "instruments": instruments_as_asked([[0], [128], [128]], [[128]] * 3, seed=0),
        "runs": (),
        "music": music(pieces),
        "pieces": pieces,
        "notes": ["Nothing <to> hear."],
    }
    return render(Report(**(fields | changes)), folder)


def test_every_piece_is_there_escaped_and_linked(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    page = Page(text)
    assert not page.open, "every element is closed"
    assert "script" not in page.tags
    assert "<b>now" not in text
    for prompt in PROMPTS:
        assert prompt in page.words
    assert "demo/<model>" in page.words
    assert "Nothing <to> hear." in page.words
    assert page.tags.count("img") == 2
    assert page.tags.count("audio") == 1
    linked = {unquote(link) for link in page.links}
    assert {f"some pieces/{index:03d}.mid" for index in range(3)} <= linked
    for link in linked:
        assert (tmp_path / link).is_file(), link


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    text = page_of(tmp_path)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "//" not in " ".join(Page(text).links)


def test_verdicts_are_in_words(tmp_path: Path) -> None:
    words = Page(page_of(tmp_path / "a")).words
    assert "Foresees held-out music" in words
    assert "twice as likely, on geometric average per note" in words
    assert "better than the unigram by 0." in words, "bits a note, clearly"
    assert "better than the 5-gram by " in words
    assert "not better (" in words, "drums, on two prompts"
    assert "[-0" not in words
    silent = drums_as_asked([None], [True], seed=0)
    assert (
        "No prompt said whether it wants drums." in Page(page_of(tmp_path / "b", drums=silent, instruments=None)).words
    )


def test_what_was_asked_for_and_what_real_music_is_like_are_tables(tmp_path: Path) -> None:
    """One prompt of three names an instrument, which none plays: they are drums, which have a card of their own."""
    words = " ".join(Page(page_of(tmp_path)).words.split())
    assert "real pieces, their own captions" in words
    assert "instruments that the prompt names: of those named, played10 % [0, 0]0 % [0, 0]0 % [0, 0]" in words
    assert "drums1" not in words, "not in the table"
    assert words.count("Drums as askedshare of pieces") == 1
    assert "tempo" not in words.split("asked for")[1].split("Tempo and meter")[0], "no prompt says how fast"
    assert "overlapped area" in words


def test_curves_of_runs_are_drawn(tmp_path: Path) -> None:
    run = tmp_path / "stage <1>"
    run.mkdir()
    (run / "log.csv").write_text(LOG)
    found = read_run(run)
    assert found.curves == (
        Curve("music, bits a note", ((10, 20.0), (20, 12.5)), ((10, 21.0), (20, 13.0))),
        Curve("text, nats a token", ((10, 2.5), (20, 2.0)), ((10, 2.6),)),
    )
    page = Page(page_of(tmp_path / "out", runs=[found]))
    assert "stage <1>" in page.words
    assert page.tags.count("polyline") == 4
    assert page.tags.count("circle") == 3


def points(svg: str) -> list[tuple[float, float]]:
    """Of the training line."""
    listed = svg.split('class="train" points="')[1].split('"')[0]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in listed.split())]


def test_a_curve_falls_to_the_right_inside_its_frame() -> None:
    drawn = points(draw(Curve("loss", ((0, 9.0), (50, 4.0), (100, 2.0)), ())))
    xs, ys = zip(*drawn, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[2] - ys[1] == pytest.approx((ys[1] - ys[0]) * 2 / 5, abs=0.2), "y is linear and points down"
    assert all(0 < x < 520 and 0 < y < 230 for x, y in drawn)


@pytest.mark.parametrize("values", [(3.0, 3.0), (0.0, 0.0), (1e-3, 2e-3), (5.0, 5_000.0)])
def test_any_range_can_be_drawn(values: tuple[float, float]) -> None:
    drawn = points(draw(Curve("loss", ((0, values[0]), (1, values[1])), ())))
    assert all(np.isfinite(y) and 0 < y < 230 for _, y in drawn)


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no log\.csv"):
        read_run(tmp_path)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not the log of a training run"):
        read_run(tmp_path)
