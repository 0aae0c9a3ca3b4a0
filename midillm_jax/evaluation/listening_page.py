"""The page of a listening test: one HTML file with all its sound in it, which needs no network and no server.

It shows a pair at a time, asks for both pieces to be played before it takes an answer, keeps answers in the browser
(localStorage) so that a closed page goes on where it was left, and gives them as a file at the end.
"""

import html
import json
from collections.abc import Sequence

from midillm_jax.evaluation.listening import FORMAT, QUESTIONS, SIDES, Test
from midillm_jax.evaluation.page_style import STYLE

_STYLE = """
main { max-width: 860px; }
.prompt { font-size: 17px; font-weight: 600; line-height: 1.45; margin: 8px 0 20px; }
.two { grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); }
.two audio { width: 100%; height: 42px; }
.played { color: var(--good); font-weight: 600; }
fieldset { border: 1px solid var(--line); border-radius: 14px; background: var(--paper); margin: 18px 0 0;
  padding: 14px 22px 18px; min-width: 0; }
fieldset:disabled { opacity: .55; }
legend { font-weight: 600; padding: 0 6px; }
.choices { display: flex; flex-wrap: wrap; gap: 10px; }
.choices label { border: 1px solid var(--line); border-radius: 10px; padding: 8px 16px; cursor: pointer; }
.choices label:has(:checked) { border-color: var(--model); background: color-mix(in srgb, var(--model) 8%, white); }
.choices label:has(:focus-visible) { outline: 2px solid var(--model); outline-offset: 2px; }
nav { display: flex; gap: 12px; align-items: center; margin-top: 22px; flex-wrap: wrap; }
button { font: inherit; font-weight: 600; padding: 9px 18px; border-radius: 10px; border: 1px solid var(--line);
  background: var(--paper); color: var(--ink); cursor: pointer; }
button.main { background: var(--model); border-color: var(--model); color: white; }
button:disabled { opacity: .45; cursor: default; }
progress { width: 100%; height: 8px; margin-top: 14px; accent-color: var(--model); }
"""

_SCRIPT = """
const test = JSON.parse(document.getElementById("test").textContent);
const store = "listening test " + test.id;
const byId = name => document.getElementById(name);
const players = [byId("first"), byId("second")];
let answers = {};
let at = 0;

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(store));
    if (kept) { answers = kept.answers; at = kept.at; }
  } catch (error) { byId("kept").hidden = false; }
}

function save() {
  try { localStorage.setItem(store, JSON.stringify({answers, at})); } catch (error) { byId("kept").hidden = false; }
}

function answer() { return answers[at] ??= {played: [false, false]}; }

function isWhole(given) { return given !== undefined && test.questions.every(question => given[question]); }

function show() {
  const pair = test.pairs[at];
  byId("number").textContent = `Pair ${at + 1} of ${test.pairs.length}`;
  byId("prompt").textContent = pair.prompt;
  players.forEach((player, side) => {
    player.pause();
    if (player.dataset.pair !== String(at)) { player.src = pair.sounds[side]; player.dataset.pair = at; }
  });
  for (const input of document.querySelectorAll("input[type=radio]"))
    input.checked = answer()[input.name] === input.value;
  state();
}

function state() {
  const heard = answer().played;
  for (const side of [0, 1]) byId("played" + side).hidden = !heard[side];
  const ready = heard.every(Boolean);
  for (const set of document.querySelectorAll("fieldset")) set.disabled = !ready;
  byId("hint").hidden = ready;
  const done = test.pairs.filter((pair, number) => isWhole(answers[number])).length;
  byId("done").value = done;
  byId("count").textContent = `${done} of ${test.pairs.length} answered`;
  byId("back").disabled = at === 0;
  byId("next").disabled = at === test.pairs.length - 1 || !isWhole(answers[at]);
  byId("download").disabled = done === 0;
  byId("download").classList.toggle("main", done === test.pairs.length);
}

function move(step) { at += step; save(); show(); scrollTo(0, 0); }

function download() {
  const given = test.pairs.map((pair, number) => ({pair: number, ...answers[number]})).filter(isWhole);
  const result = {format: test.format, test: test.id, a: test.a, b: test.b, seed: test.seed, pairs: test.pairs.length,
    finished: new Date().toISOString(), answers: given};
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 1)], {type: "application/json"}));
  link.download = `listening-${test.id}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

players.forEach((player, side) => {
  player.addEventListener("play", () => {
    players[1 - side].pause();
    answer().played[side] = true;
    save(); state();
  });
});
for (const input of document.querySelectorAll("input[type=radio]"))
  input.addEventListener("change", () => { answer()[input.name] = input.value; save(); state(); });
byId("back").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("download").addEventListener("click", download);
load();
show();
"""


def render(test: Test, sounds: Sequence[tuple[str, str]]) -> str:
    """The page's HTML.

    Args:
        test: what is asked about; of it the page shows the prompts.
        sounds: of each pair the first and the second piece, as data: URLs.
    """
    data = {
        "format": FORMAT,
        "id": test.id,
        "seed": test.seed,
        "a": test.names[0],
        "b": test.names[1],
        "questions": list(QUESTIONS),
        "pairs": [{"prompt": pair.prompt, "sounds": two} for pair, two in zip(test.pairs, sounds, strict=True)],
    }
    # As inside a script element only "</script" or "<!--" could end it, no "<" may stand there.
    embedded = json.dumps(data).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Listening test</title><style>{STYLE}{_STYLE}</style></head><body><main>"
        '<header><h1>Listening test</h1><p class="soft">Two programs made music for the same words. Play both, as '
        "often as you like, and answer the two questions; nothing here tells which program is which, and the order "
        "changes from pair to pair. Answers stay in this browser until you download them.</p>"
        f'<progress id="done" max="{len(test.pairs)}" value="0"></progress>'
        '<p class="soft" id="count"></p>'
        '<p id="kept" hidden>This browser keeps nothing: download the results before you close the page.</p></header>'
        '<h2 id="number"></h2><p class="prompt" id="prompt"></p><div class="grid two">'
        f"{_player(0)}{_player(1)}</div>"
        '<p class="soft" id="hint" style="margin-top: 18px">Play both pieces to answer.</p>'
        f"{''.join(_question(name, words) for name, words in QUESTIONS.items())}"
        '<nav><button id="back">Back</button><button id="next" class="main">Next pair</button>'
        '<button id="download">Download results</button></nav>'
        f'</main><script id="test" type="application/json">{embedded}</script>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _player(side: int) -> str:
    name = SIDES[side]
    return (
        f'<article class="card"><div class="head"><h3>{name.capitalize()}</h3>'
        f'<span class="played" id="played{side}" hidden>played</span></div>'
        f'<audio id="{name}" controls preload="auto" aria-label="{name} piece"></audio></article>'
    )


def _question(name: str, words: str) -> str:
    labels = {"first": "the first", "second": "the second", "neither": "no difference"}
    choices = "".join(
        f'<label><input type="radio" name="{name}" value="{side}"> {labels[side]}</label>' for side in SIDES
    )
    return f'<fieldset><legend>{html.escape(words)}</legend><div class="choices">{choices}</div></fieldset>'
