"""Report the study: one self-contained page, and the tables of a paper.

Reads   params.yaml; of the runs that the grid names metrics/runs/<run>.json, data/models/<run>/record.json and
        plots/explain/<run>; metrics/table.csv, headline.json, comparisons, data; the figures in plots;
        data/hierarchy/hierarchy.json, data/prepared/summary.json, data/images; of dvc.lock, where there is one, the
        MD5 of data/images and data/prepared
Writes  report/: report.html; tables/summary.tex, summary.md, comparisons.tex
Run     python -m stages.report     seconds
"""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas

from severity.core import errors, files, params
from severity.prepared import decoded
from severity.report import contents, report, report_tables
from severity.report.sections import Images


def main() -> None:
    study = contents.read(params.load())
    page = report.page(study, read_images())
    with files.replacing("report") as folder:
        files.write_text(folder / "report.html", page)
        files.write_text(folder / "tables/summary.tex", report_tables.summary_latex(study))
        files.write_text(folder / "tables/summary.md", report_tables.summary_markdown(study))
        files.write_text(folder / "tables/comparisons.tex", report_tables.comparisons_latex(study))
    size = len(page.encode()) / 2**20
    print(f"report/report.html: {len(study.metrics)} runs, {size:.1f} MiB; what is missing: {len(study.missing)}")


def read_images() -> Images | None:
    """A function from ids to their images, (n, S, S) uint8; None where no images are decoded."""
    if not Path("data/images/summary.json").exists():
        return None
    rows, images = pandas.Index(decoded.read_index("data/images")["id"]), decoded.open_images("data/images")

    def of(ids: Sequence[str]) -> numpy.ndarray:
        places = rows.get_indexer(ids)
        if (places < 0).any():
            raise errors.SeverityError(
                f"data/images holds no image {ids[int(places.argmin())]!r}. Run `dvc repro evaluate`."
            )
        return images[places]

    return of


if __name__ == "__main__":
    errors.run(main)
