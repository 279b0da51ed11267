"""Medians over seeds, the table of the comparison, the headline.

Reads   metrics/runs/<run>.json of exactly the runs that the grid names
Writes  metrics/median/<backbone>-<loss>-<rule>.json, metrics/headline.json, metrics/table.csv, metrics/table.md
Run     python -m stages.aggregate     a second
"""

from severity import cells, errors, files, params, runs


def main() -> None:
    settings = params.load()
    rules = settings["evaluate"]["rules"]
    found = cells.read_runs("metrics/runs", runs.grid(settings), rules)
    rules = cells.all_rules(found, rules)
    with files.replacing("metrics/median") as folder:
        folder.mkdir()
        for backbone, loss, seeds in cells.by_cell(found):
            for rule in rules:
                files.write_json(folder / f"{backbone}-{loss}-{rule}.json", cells.medians(seeds, rule))
    table = cells.comparison(found, rules)
    files.write_csv("metrics/table.csv", table)
    files.write_text("metrics/table.md", cells.markdown(table))
    headline = cells.headline(found, rules)
    files.write_json("metrics/headline.json", headline)
    print(f"{len(found)} runs; best on validation: {headline['cell']}, test macro-AUROC {headline['macro_auroc']:.4f}")


if __name__ == "__main__":
    errors.run(main)
