"""The style sheets of the pages."""

STYLE = """
:root { --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --paper: #fff; --ground: #f5f6f8;
  --model: #0072b2; --other: #c3cad5; --good: #067647; --good-ground: #e7f6ec; --plain-ground: #f0f1f4; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.02em; }
h2 { font-size: 19px; margin: 44px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 16px; margin: 0; }
p { margin: 0; }
.soft { color: var(--soft); }
.lead { margin-bottom: 16px; max-width: 78ch; }
a { color: var(--model); text-decoration: none; }
a:hover { text-decoration: underline; }
.grid { display: grid; gap: 18px; }
.scores { grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); margin-top: 24px; }
.runs, .pieces { grid-template-columns: repeat(auto-fill, minmax(min(460px, 100%), 1fr)); }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 14px; padding: 20px 22px;
  box-shadow: 0 1px 2px rgb(16 24 40 / 4%); display: flex; flex-direction: column; gap: 12px; min-width: 0; }
.head { display: flex; justify-content: space-between; align-items: baseline; gap: 12px; flex-wrap: wrap; }
.chip { display: inline-block; padding: 2px 10px; border-radius: 12px; font-size: 13px; font-weight: 600;
  background: var(--plain-ground); color: var(--soft); }
.chip.good { background: var(--good-ground); color: var(--good); }
.chips { display: flex; flex-wrap: wrap; gap: 6px; }
.facts b { color: var(--ink); font-weight: 600; }
.bars { display: grid; gap: 14px; margin: 2px 0 4px; }
.bars .value { font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars .value b { font-size: 20px; letter-spacing: -.01em; }
.bars svg { width: 100%; height: 12px; display: block; border-radius: 6px; margin-top: 4px; }
.track { fill: var(--plain-ground); }
.bar { fill: var(--other); } .bar.model { fill: var(--model); }
.whisker { stroke: var(--ink); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.card .note { font-size: 14px; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 7px 10px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.curve { width: 100%; height: auto; }
.curve text { font-size: 12px; fill: var(--soft); }
.curve .grid { stroke: var(--line); }
.curve polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.curve .train { stroke: var(--other); } .curve polyline.validation { stroke: var(--model); }
.curve circle { fill: var(--model); }
.key { display: inline-block; width: 18px; height: 3px; border-radius: 2px; vertical-align: middle; margin-right: 5px; }
.piece img { width: 100%; height: auto; display: block; border: 1px solid var(--line); border-radius: 8px; }
.piece audio { width: 100%; height: 38px; }
.piece .prompt { font-weight: 600; line-height: 1.4; }
.piece .facts { margin-top: auto; font-size: 14px; color: var(--soft); }
.scroll { overflow-x: auto; }
details { margin-top: 44px; }
summary { cursor: pointer; font-weight: 600; }
details ul { margin: 12px 0 0; padding-left: 20px; max-width: 88ch; }
details li { margin-bottom: 6px; }
"""

RUNS_STYLE = """
.legend { list-style: none; margin: 18px 0 0; padding: 10px 20px; position: sticky; top: 8px; z-index: 1;
  flex-direction: row; flex-wrap: wrap; gap: 6px 28px; }
.legend li { white-space: nowrap; }
.run { white-space: nowrap; color: var(--ink); font-weight: 400; }
.run b { margin-right: 2px; }
.swatch { width: 44px; height: 14px; vertical-align: -1px; margin: 4px 8px 0 0; }
.thirds { grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); margin-top: 14px; }
.halves { grid-template-columns: repeat(auto-fill, minmax(min(460px, 100%), 1fr)); margin-top: 14px; }
.rolls { margin-top: 18px; }
.chart { width: 100%; height: auto; }
.chart text { font-size: 12.5px; fill: #475467; }
.halves .chart text { font-size: 10.5px; }
.chart .letter, .halves .chart .letter { font-weight: 700; font-size: 13.5px;
  fill: color-mix(in srgb, currentColor 75%, black);
  stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }
.chart path, .swatch path { fill: none; stroke-linejoin: round; }
.chart .grid { stroke: var(--line); }
.chart .held, .swatch .held { stroke: currentColor; stroke-width: 2.5; }
.chart .train { stroke: currentColor; stroke-width: 1.4; opacity: .45; }
.chart .mark, .swatch .mark { fill: currentColor; stroke: var(--paper); stroke-width: 1; }
.summary th { vertical-align: bottom; }
.summary .over { text-align: center; border-bottom: 0; padding-bottom: 0; }
.summary td:not(:first-child), .summary th:not(:first-child) { padding-left: 14px; }
.summary .run { white-space: normal; display: grid; grid-template-columns: auto auto 1fr; gap: 0 4px; }
.settings td:first-child { white-space: nowrap; }
.settings td, .settings th { padding-right: 24px; }
code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
"""
