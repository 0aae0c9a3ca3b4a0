"""How many requests for edits become the plan that was expected?

    python benchmarks/edit_words.py tests/music/edit_phrasings_before.json

Each list is a JSON file as in tests/music: requests with the lines of the plan expected, or with the words that must
be refused. A plan is right if all its lines are those expected. Of requests that have a plan, the others were planned
wrongly or refused; of those that have none, they were refused by other words, or planned, which is a silent guess.
``--wrong`` prints what was made of each that is not right.
"""

import argparse
import collections
import json
from pathlib import Path
from typing import Any

from midillm_jax.music.edit_plan import plan_text
from midillm_jax.music.edit_words import NotUnderstood, plan_of

OUTCOMES = (
    "right plan",
    "wrong plan",
    "refused, has a plan",
    "right refusal",
    "refused by other words",
    "planned, has none",
)


def outcome(row: dict[str, Any]) -> tuple[str, str]:
    """What becomes of a request, one of OUTCOMES, and the plan or refusal."""
    try:
        plan = plan_text(plan_of(row["words"], row.get("tracks", ()))).splitlines()
    except NotUnderstood as error:
        if "plan" in row:
            return "refused, has a plan", str(error)
        return "right refusal" if list(error.words) == row["not_understood"] else "refused by other words", str(error)
    if "plan" not in row:
        return "planned, has none", "; ".join(plan)
    return "right plan" if plan == row["plan"] else "wrong plan", "; ".join(plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path, nargs="+", help="JSON files of requests")
    parser.add_argument("--wrong", action="store_true", help="print what is not right")
    arguments = parser.parse_args()
    print(f"| list | requests | {' | '.join(OUTCOMES)} | right |\n{(len(OUTCOMES) + 3) * '|---'}|")
    mistakes: list[str] = []
    for path in arguments.lists:
        rows = json.loads(path.read_text(encoding="utf-8"))["phrasings"]
        counts: collections.Counter[str] = collections.Counter()
        for row in rows:
            kind, made = outcome(row)
            counts[kind] += 1
            if not kind.startswith("right"):
                wanted = row.get("plan", row.get("not_understood"))
                mistakes.append(f"{kind}: {row['words']}\n    expected {wanted}\n    made     {made}")
        right = counts["right plan"] + counts["right refusal"]
        cells = " | ".join(str(counts[kind]) for kind in OUTCOMES)
        print(f"| {path.name} | {len(rows)} | {cells} | {100 * right / len(rows):.0f} % |")
    if arguments.wrong:
        print("\n".join(["", *mistakes]))


if __name__ == "__main__":
    main()
