"""Renew what the README shows of the default study: the trade-off figure, and what it says in words.

Reads   metrics/comparisons/rules.csv, plots/scores/tradeoff.png
Writes  docs/tradeoff.png, and the part `result` of README.md
Run     python -m docs.readme, from the top of the project, after `dvc repro` of the default study
"""

import shutil
import textwrap
from pathlib import Path

import pandas

from severity.core import errors, files, markdown, tables

PAGE = Path("README.md")
WORDS, NUMBERS = ["backbone", "loss", "A", "B", "metric", "verdict"], ["value_B", "difference"]


def main() -> None:
    rules = tables.read("metrics/comparisons/rules.csv", [*WORDS, *NUMBERS], NUMBERS, "Run `dvc repro compare`.")
    markdown.renew(PAGE, "result", textwrap.fill(result(rules), 120, break_on_hyphens=False))
    with files.replacing("docs/tradeoff.png") as beside:
        shutil.copyfile("plots/scores/tradeoff.png", beside)
    print("renewed README.md and docs/tradeoff.png")


def result(rules: pandas.DataFrame) -> str:
    """What the figure shows, in words.

    Args:
        rules: a row for each configuration and metric, as metrics/comparisons/rules.csv; used are those of crm (A) against
            argmax (B).
    """
    rules = rules[(rules["A"] == "crm") & (rules["B"] == "argmax")].set_index(["backbone", "loss"])
    error, severity, distance = (
        rules[rules["metric"] == metric] for metric in ("top1_error", "mistake_severity", "hierarchical_distance_at_1")
    )
    milder = severity.loc[severity["verdict"].str.startswith("A "), "difference"]
    gain = f" (by {-milder.max():.2f} to {-milder.min():.2f} levels of the tree)" if len(milder) else ""
    fewest = error["value_B"].idxmin()
    worse = (severity["value_B"] > severity.loc[fewest, "value_B"]).sum()
    return (
        "*The default study. Each line joins two decisions of the same networks: the likeliest class (`argmax`, circles) and "
        "the class of least expected cost (conditional risk minimisation, `crm`, diamonds). "
        f"With CRM the average mistake is shown to be milder in {len(milder)} of {len(severity)} configurations{gain}. That "
        f"is no gain over all images where there are more mistakes: their number is shown to {_changes(error)}, and the "
        f"distance over all images (hd@1), right answers included, to {_changes(distance)}. "
        f"Fewer mistakes need not be milder: `{'-'.join(fewest)}` makes the fewest "
        f"({error.loc[fewest, 'value_B']:.1%} of the images under argmax), with a severity of "
        f"{severity.loc[fewest, 'value_B']:.2f} on average that {worse or 'none'} of the {len(severity)} configurations {'exceed' if worse > 1 else 'exceeds'}.*"
    )


def _changes(rows: pandas.DataFrame) -> str:
    verdicts = rows["verdict"]
    fall, rise = verdicts.str.startswith("A ").sum(), verdicts.str.startswith("B ").sum()
    return f"fall in {fall or 'none'} and to rise in {rise or 'none'}"


if __name__ == "__main__":
    errors.run(main)
