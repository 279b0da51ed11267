"""The report: one HTML page with all results of a study, each number with the file that it comes from.

`sections` prepares what is shown as plain data, the templates put it into words and elements. The page needs nothing
else: no network, no library; images are part of it. The same study gives the same bytes, so it names neither date
nor machine.
"""

import os
from pathlib import Path

import jinja2

from severity.report import page_tables, sections
from severity.report.contents import Contents
from severity.report.sections import Images

TEMPLATES = Path(__file__).with_name("templates")
FOLDER = "report"  # where the page lies: links are relative to it
# The sections of params.yaml that say what was run; of the data sets only the one that was used.
PARAMS = ("data", "decode", "prepare", "describe", "cost", "grid", "train", "predict", "evaluate", "compare", "plot")
PARAMS += ("explain", "external")
# What the stage writes next to the page.
TABLES = ("report/tables/summary.tex", "report/tables/summary.md", "report/tables/comparisons.tex")


def page(study: Contents, images: Images | None = None) -> str:
    """The whole page.

    Args:
        study: what there is.
        images: the images of the study by their ids; without it mistakes are shown without pictures.
    """
    parts = [
        ("run", "What was run", sections.run(study, PARAMS)),
        ("missing", "What is missing", sections.missing(study)),
        ("summary", "Summary", sections.summary(study, TABLES)),
        ("comparisons", "Comparisons", sections.comparisons(study)),
        ("figures", "Figures", sections.figures(study)),
        ("mistakes", "Mistakes", sections.mistakes(study, images)),
    ]
    if study.images:
        parts.append(("cases", "Explained decisions", sections.cases(study)))
        parts.append(("data", "Data card", sections.data(study)))
    parts.append(("runs", "Runs", sections.runs(study)))
    return (
        environment()
        .get_template("page.html")
        .render(
            title=f"Severity: {study.settings['data']['name']}",
            lead=sections.lead(study),
            sections=[{"name": name, "heading": heading, "view": view} for name, heading, view in parts],
        )
    )


def environment() -> jinja2.Environment:
    """The templates. Whatever they are given is text and gets escaped; a name that they are not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    made.filters |= {"digits": page_tables.digits, "href": href}
    return made


def href(path: Path | str) -> str | None:
    """The address of a file of the study, seen from the page; None where there is no such file."""
    written = str(path) in TABLES or Path(path).exists()
    return Path(os.path.relpath(path, FOLDER)).as_posix() if written else None
