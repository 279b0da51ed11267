"""Put the results of the pipeline into the README: the table of the comparison and the trade-off figure.

Run it after `dvc repro`, from the top of the project: python -m docs.readme
"""

import shutil
from pathlib import Path

from severity.core import errors, files, markdown

PAGE = Path("README.md")


def main() -> None:
    markdown.renew(PAGE, "table", Path("metrics/table.md").read_text(encoding="utf-8"))
    with files.replacing("docs/tradeoff.png") as beside:
        shutil.copyfile("plots/tradeoff.png", beside)
    print("renewed the README's table and docs/tradeoff.png")


if __name__ == "__main__":
    errors.run(main)
