"""Medians over seeds, the table of the comparison, the headline.

Reads   metrics/runs/<run>.json of exactly the runs that params name: the grid's and the external ones
Writes  metrics/median/<backbone>-<loss>-<rule>.json, metrics/headline.json, metrics/table.csv, metrics/table.md
Run     python -m stages.aggregate     a second
"""

from severity.core import errors, files, params, runs
from severity.metrics import record
from severity.summary import configurations


def main() -> None:
    settings = params.load()
    rules = settings["evaluate"]["rules"]
    records = record.of_study(record.read_runs("metrics/runs", runs.scored(settings), rules), settings)
    rules = configurations.all_rules(records, rules)
    with files.replacing("metrics/median") as folder:
        folder.mkdir()
        for backbone, loss, seeds in configurations.by_configuration(records):
            for rule in rules:
                medians = configurations.facts(seeds) | configurations.medians(seeds, rule)
                files.write_json(folder / f"{backbone}-{loss}-{rule}.json", medians)
    table = configurations.whole_table(records, rules)
    files.write_csv("metrics/table.csv", table)
    files.write_text("metrics/table.md", f"{configurations.about(records)}\n{configurations.markdown(table)}")
    headline = configurations.headline(records, rules)
    files.write_json("metrics/headline.json", headline)
    auroc = "n/a" if headline["macro_auroc"] is None else f"{headline['macro_auroc']:.4f}"
    chosen = headline.get("chosen", "best on validation")
    for name in ("warning", "masked"):
        if name in headline:
            print(f"warning: {headline[name]}")
    print(f"{len(records)} runs; {chosen}: {headline['configuration']}, test macro-AUROC {auroc}")


if __name__ == "__main__":
    errors.run(main)
