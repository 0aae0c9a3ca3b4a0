"""The part of the page that says how the music sounds to networks."""

import html

from midillm_jax.evaluation.audio import AudioScores, EmbeddingScores, numbers

_LEAD = (
    "What a network hears is all that these scores know. The Frechet audio distance (FAD) of real music from other "
    "real music is no difference; if that of real music with its pitches scrambled is hardly larger, the network does "
    "not hear pitch, and its distance says nothing of it."
)


def section(scores: AudioScores) -> str:
    """A card a network."""
    cards = "".join(_card(each) for each in scores.embeddings)
    silent = ""
    if scores.silent:
        silent = f" Of {scores.silent:,} generated pieces nothing can be heard; they count as silence."
    return f'<h2>How it sounds</h2><p class="soft lead">{_LEAD}{silent}</p>{cards}'


def _card(scores: EmbeddingScores) -> str:
    parts = []
    fad, sight = scores.fad, scores.sight
    if fad is not None and sight is not None:
        rows = (
            (
                f"FAD of {fad.rows:,} pieces from {fad.reference_rows:,} real ones, corrected for size",
                numbers(fad.corrected),
            ),
            ("as it is, which grows as pieces get fewer", f"{fad.distance:.3g}"),
            (
                f"extrapolated to endlessly many pieces (line fits with R² {fad.infinity.r2:.2f})",
                f"{fad.infinity.value:.3g}",
            ),
            (f"generated, {sight.rows:,} from {sight.rows:,} real ones", f"{sight.generated:.3g}"),
            ("other real music, as many", f"{sight.real:.3g}"),
            ("the same with its pitches scrambled", f"{sight.scrambled:.3g}"),
        )
        cells = "".join(
            f'<tr><td>{_text(name)}</td><td class="number">{_text(value)}</td></tr>' for name, value in rows
        )
        parts.append(f'<table><tr><th>distance</th><th class="number">less is nearer</th></tr>{cells}</table>')
    if scores.matches:
        heads = ("prompts", "own prompt", "shuffled", "difference", "real pieces")
        head = "".join(f'<th class="number">{name}</th>' for name in heads)
        cells = ""
        for match in scores.matches:
            gain = match.better_by.numbers()
            values = (
                f"{match.prompts:,}",
                match.own.numbers(),
                match.shuffled.numbers(),
                f"<b>{gain}</b>" if match.wins else gain,
                "" if match.real is None else match.real.numbers(),
            )
            row = "".join(f'<td class="number">{value}</td>' for value in values)
            cells += f"<tr><td>{_text(match.name)}</td>{row}</tr>"
        parts.append(f"<table><tr><th>match with words</th>{head}</tr>{cells}</table>")
    how = " · ".join(f"{_text(name)} {_text(value)}" for name, value in scores.protocol.items() if name != "rendering")
    sound = " · ".join(f"{_text(name)} {_text(value)}" for name, value in scores.protocol["rendering"].items())
    return (
        f'<article class="card scroll"><h3>{_text(scores.name)}</h3>{"".join(parts)}'
        f'<details><summary>Protocol</summary><p class="note">{how}</p><p class="note">{sound}</p></details></article>'
    )


def _text(words: object) -> str:
    return html.escape(str(words))
