"""The pages for people: their links, and that each names all that the code has."""

import re
from functools import cache
from pathlib import Path

import pandas
import pytest
import yaml

from docs import readme
from severity import datasets, losses
from severity.core import markdown
from severity.decisions import class_rules, set_rules
from severity.figures import catalogue
from tests.trees import TOP

PAGES = sorted({TOP / "README.md", *TOP.glob("*/README.md"), *TOP.glob("data/*/README.md"), *TOP.glob("docs/*.md")})
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


@cache
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text(page), flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path, heading: str) -> list[str]:
    """The first cell, without its quotes, of each row of the tables between a heading and the next."""
    _, _, rest = f"\n{text(page)}".partition(f"\n{heading}\n")
    part = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| `(\w+)`", part, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_have_their_target(page):
    # What Markdown puts into the middle of a line of code is no link.
    for target in re.findall(r"\]\(((?!https?:|mailto:)[^)]*)\)", CODE.sub("", text(page))):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_there_are_links_to_check():
    assert len(PAGES) > 15
    assert sum(len(re.findall(r"\]\((?!https?:)", text(page))) for page in PAGES) > 80


def test_the_index_names_every_page():
    index = text(TOP / "docs/README.md")
    pages = {page.name for page in TOP.glob("docs/*.md")} - {"README.md"}
    assert pages and not {page for page in pages if f"]({page})" not in index}


def test_the_readme_is_short_and_names_commands_that_are_there():
    page = text(TOP / "README.md")
    assert len(page.splitlines()) <= 130
    targets = re.findall(r"\$ make (\w+)", page)
    assert {"repro", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", text(TOP / "Makefile"), re.MULTILINE) for target in targets)


def test_settings_named_in_commands_are_keys_of_params():
    params = yaml.safe_load(text(TOP / "params.yaml"))
    named = {
        key
        for page in PAGES
        if page.name != "recipes.md"
        for key in re.findall(r"-S '?([a-z]\w*(?:\.\w+)+)=", text(page))
    }
    assert len(named) > 10
    for key in named:
        section = params
        for part in key.split("."):
            assert part in section, key
            section = section[part]


def test_every_figure_has_its_heading_in_the_order_of_the_catalogue():
    assert re.findall(r"^## (\w+/\w+)$", text(TOP / "plots/README.md"), re.MULTILINE) == list(catalogue.FIGURES)


def test_every_data_set_has_a_row_whose_link_leads_to_what_is_said_of_it():
    names = {path.stem for path in Path(datasets.__file__).parent.glob("[a-z]*.py")}
    assert set(rows(TOP / "docs/data.md", "# Collections")) == names


def test_every_decision_rule_is_in_the_methods():
    page = TOP / "docs/methods.md"
    assert set(rows(page, "## Decision rules for one class")) == set(class_rules.RULES)
    _, _, sets = text(page).partition("\n## Decision rules for sets of labels\n")
    assert not {rule for rule in set_rules.RULES if f"`{rule}`" not in sets.partition("\n## ")[0]}


def test_every_loss_is_in_the_methods():
    headings = " ".join(re.findall(r"^### (.*)$", text(TOP / "docs/methods.md"), re.MULTILINE))
    assert not {name for name in losses.names() if f"`{name}`" not in headings}


def test_every_stage_and_folder_is_in_the_layout():
    page = TOP / "docs/layout.md"
    assert set(rows(page, "## Stages")) == set(yaml.safe_load(text(TOP / "dvc.yaml"))["stages"])
    # What no other folder imports is described below the table.
    folders = {path.parent.name for path in TOP.glob("severity/*/__init__.py")} - {"api", "schema"}
    assert set(rows(page, "## The package")) == folders


def test_the_result_of_the_readme_counts_the_verdicts():
    rows = [
        ("net", "ce", "mistake_severity", "A milder per mistake", 2.9, -0.25),
        ("net", "ce", "top1_error", "no difference shown", 0.30, 0.01),
        ("net", "ce", "hierarchical_distance_at_1", "A milder", 0.87, -0.05),
        ("net", "bce", "mistake_severity", "no difference shown", 2.8, -0.01),
        ("net", "bce", "top1_error", "B errs less", 0.10, 0.02),
        ("net", "bce", "hierarchical_distance_at_1", "no difference shown", 0.28, 0.01),
    ]
    rules = pandas.DataFrame(rows, columns=["backbone", "loss", "metric", "verdict", "value_B", "difference"])
    others = rules.assign(A="hie", verdict="A milder")
    words = readme.result(pandas.concat([rules.assign(A="crm"), others]).assign(B="argmax"))
    error, distance = "number is shown to fall in none and to rise in 1", "to fall in 1 and to rise in none"
    for part in ("milder in 1 of 2", "0.25 to 0.25", error, distance, "`net-bce`", "10.0%", "2.80", "that 1 of the 2"):
        assert part in words, words
    nothing = readme.result(rules.assign(A="crm", B="argmax", verdict="no difference shown"))
    assert "milder in 0 of 2 configurations." in nothing and nothing.count("fall in none and to rise in none") == 2


def test_the_readme_has_the_marks_of_the_result():
    assert markdown.marked(TOP / "README.md", "result").strip()
