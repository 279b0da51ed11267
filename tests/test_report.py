"""The report: its page, held against an HTML parser and a browser, and its tables, held against LaTeX."""

import base64
import io
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy
import pandas
import pytest
import yaml
from hypothesis import given, strategies
from PIL import Image

from severity.core import documents, files, runs, without_images
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.figures import catalogue
from severity.report import (
    best_rows,
    contents,
    latex,
    page_tables,
    pictures,
    report,
    report_tables,
    sections,
)
from stages import decode, describe, explain, illustrate, prepare
from stages import report as stage
from tests import browser, study
from tests.trees import flat

SMALL = {"backbone": ["resnet18", "densenet121"], "loss": ["ce", "bce"], "seed": [0, 1]}
BIG = {
    "backbone": [f"a_backbone_of_number_{number}" for number in range(9)],
    "loss": ["ce", "bce", "hxe", "soft_labels", "hxe_multilabel"],
    "seed": [0],
}
WIDTHS = (390, 1280)
VOID = ("img", "input", "link", "meta", "wbr")  # elements without an end


class Tree(HTMLParser):
    """What a page is made of. Fails where an element is closed that is not open."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, name, attributes):
        assert len({key for key, _ in attributes}) == len(attributes), (name, attributes)
        self.elements.append((name, dict(attributes), tuple(self.open)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open and self.open[-1] == name, f"</{name}> at {self.getpos()} closes {self.open}"
        self.open.pop()

    def handle_data(self, words):
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(words)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def all(self, name: str) -> list[dict]:
        return [attributes for each, attributes, _ in self.elements if each == name]


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Two backbones, two losses, two seeds; class names made to break pages. Do not change it: take a `copy`."""
    folder = study.make(tmp_path_factory.mktemp("small"), grid=SMALL, classes=study.HOSTILE)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """45 configurations of one seed."""
    folder = study.make(tmp_path_factory.mktemp("big"), grid=BIG)
    write_report(folder)
    return folder


@pytest.fixture
def copy(small, tmp_path) -> Path:
    shutil.copytree(small, tmp_path / "study")
    return tmp_path / "study"


def write_report(folder: Path) -> str:
    """Run the stage; the page that it wrote."""
    with study.inside(folder):
        stage.main()
    return (folder / "report/report.html").read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """The words of a section."""
    return Tree(
        page[page.index(f'<section id="{name}"') : page.index("</section>", page.index(f'id="{name}"'))] + "</section>"
    ).text


# --- The page


@pytest.mark.parametrize("which", ["small", "big"])
def test_the_page_is_well_formed_and_names_what_it_shows(which, request):
    tree = Tree((request.getfixturevalue(which) / "report/report.html").read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes, _ in tree.elements if "id" in attributes]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for _, attributes, _ in tree.elements:
        for pointer in ("aria-labelledby", "data-table"):
            assert attributes.get(pointer, ids[0]) in ids
    levels = [int(name[1]) for name, _, _ in tree.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert all(image["alt"].strip() for image in tree.all("img")) and tree.all("img")
    assert all(head["scope"] in ("col", "row") for head in tree.all("th"))
    assert all("label" in above for name, _, above in tree.elements if name in ("select", "input"))
    assert [attributes["lang"] for attributes in tree.all("html")] == ["en"]
    for name, _, above in tree.elements:  # Whatever may be wide scrolls in a box of its own.
        assert name != "table" or above[-1] == "div"


def test_the_page_needs_nothing_beside_it(small):
    tree = Tree((small / "report/report.html").read_text(encoding="utf-8"))
    ids = [attributes["id"] for _, attributes, _ in tree.elements if "id" in attributes]
    assert not tree.all("iframe") and not any("src" in script for script in tree.all("script"))
    assert {link["rel"] for link in tree.all("link")} == {"icon"}
    assert all(
        image["src"].startswith(("data:image/png;base64,", "data:image/webp;base64,")) for image in tree.all("img")
    )
    (policy,) = (each["content"] for each in tree.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for link in tree.all("a"):
        target = link["href"]
        if target.startswith("#"):
            assert target[1:] in ids
        else:  # A link to a file of the study, which is there.
            assert not re.match(r"\w+:|/", target) and (small / "report" / target).exists(), target


def test_names_are_text_wherever_they_stand(small):
    page = (small / "report/report.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 1 and "<b>" not in page and "<i>" not in page and "<Captions>" not in page
    tree = Tree(page)
    for name in study.HOSTILE:
        assert name in section(page, "run"), name
    assert any(study.HOSTILE[0] in image["alt"] for image in tree.all("img"))
    assert "Lower left is better. <Captions> are text." in section(page, "figures")


def test_every_number_of_the_summary_is_the_one_in_the_file_that_it_names(small):
    tree = Tree((small / "report/report.html").read_text(encoding="utf-8"))
    cells = [each for each in tree.all("td") if each.get("title", "").startswith("metrics/table.csv")]
    table = pandas.read_csv(small / "metrics/table.csv")
    assert len(cells) == len(table) * len(best_rows.columns(table))
    for cell in cells:
        line, column = re.fullmatch(r"metrics/table\.csv, line (\d+), column (\w+)", cell["title"]).groups()
        there = table.loc[int(line) - 2, column]
        assert (cell["data-v"] == "") == pandas.isna(there), cell
        assert cell["data-v"] == "" or float(cell["data-v"]) == pytest.approx(there, rel=1e-9)


def test_every_line_of_a_comparison_is_the_one_in_the_file_that_it_names(small):
    page = (small / "report/report.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr title="(metrics/comparisons/\w+\.csv), line (\d+)">(.*?)</tr>', page)
    seen = Counter()
    for path, line, row in rows:
        values = [float(value) for value in re.findall(r'data-v="([^"]+)"', row)]
        there = (small / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert values and all(
            any(f"{value:.9g}" == f"{float(part):.9g}" for part in _numbers(there)) for value in values
        )
        seen[path] += 1
    for name in contents.COMPARISONS:
        assert seen[f"metrics/comparisons/{name}.csv"] == len(
            pandas.read_csv(small / f"metrics/comparisons/{name}.csv")
        )


def _numbers(line: str) -> list[str]:
    return [part for part in line.split(",") if re.fullmatch(r"-?[\d.]+(e-?\d+)?", part)]


@pytest.mark.parametrize("name", ["run", "summary", "comparisons", "figures", "mistakes", "cases", "data", "runs"])
def test_every_section_names_its_source(small, name):
    assert "Source: " in section((small / "report/report.html").read_text(encoding="utf-8"), name)


def test_the_words_of_the_comparisons_and_of_the_card_are_shown(small):
    page = (small / "report/report.html").read_text(encoding="utf-8")
    assert "no difference shown is no proof of equality" in section(page, "comparisons")
    assert "a note" in section(page, "data")


def test_a_run_says_what_it_was_trained_with(small):
    words = section((small / "report/report.html").read_text(encoding="utf-8"), "runs")
    record = files.read_json(small / "data/models/resnet18-ce-0/record.json")
    assert all(f"{name}: {version}" in words for name, version in record["versions"].items())
    assert record["prepared"]["table.csv"] in words and study.tree(study.HOSTILE).class_hash in words
    assert all(run.name in words for run in runs.grid({"grid": SMALL}))


def test_the_same_study_gives_the_same_bytes_wherever_and_whenever(small, copy):
    before = {path: (small / path).read_bytes() for path in ("report/report.html", *report.TABLES)}
    for path in copy.rglob("*"):
        path.touch()
    write_report(copy)
    assert {path: (copy / path).read_bytes() for path in before} == before


def test_a_big_study_stays_light_and_folds_its_long_tables(big):
    page = (big / "report/report.html").read_text(encoding="utf-8")
    assert len(page) < 15e6
    tables = re.findall(r"<table(.*?)</table>", page, flags=re.DOTALL)
    assert max(each.count("<tr") for each in tables) > 1000
    folded = [part for part in re.split(r"<details", page)[1:]]
    assert sum(each.count("<tr") > page_tables.LONGEST for each in tables) - 1 <= len(folded)  # All but the summary.
    assert page.count("<details") >= len(runs.grid({"grid": BIG}))


def test_pictures_of_cases_are_made_smaller_and_those_beyond_a_number_are_named(copy, monkeypatch):
    monkeypatch.setattr(sections, "EXPLAINED_SHOWN", 1)
    page = write_report(copy)
    assert f'width="{pictures.WIDEST}" height="675"' in page
    assert "1 more are in plots/explain/resnet18-ce-0: most_1." in section(page, "cases")


# --- What is missing


def test_of_a_whole_study_only_what_the_data_lack_is_missing(small):
    missing = section((small / "report/report.html").read_text(encoding="utf-8"), "missing")
    assert "Labels without a positive test image: R & D." in missing
    assert "Labels without AUROC in any run: R & D." in missing
    assert missing.count(".") == 2, missing


def test_nothing_missing_is_said(copy):
    for path in (copy / "metrics/runs").iterdir():
        record = files.read_json(path)
        record["labels"]["R & D"]["auroc"] = 0.5
        files.write_json(path, record)
    summary = files.read_json(copy / "data/prepared/summary.json")
    summary["counts"]["test"]["labels"]["R & D"]["positives"] = 1
    files.write_json(copy / "data/prepared/summary.json", summary)
    assert "Nothing: every run has its metrics" in section(write_report(copy), "missing")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("metrics/runs/resnet18-ce-0.json", "Run resnet18-ce-0 is named in params.yaml and has no metrics"),
        ("metrics/runs/resnet18-ce-0.json", "Configurations of one seed, whose spread is unknown: resnet18-ce."),
        ("data/models/resnet18-ce-0/record.json", "Run resnet18-ce-0 has no record of its training"),
        ("plots/images/curves.png", "There is no figure plots/images/curves.png."),
        ("plots/images/curves.csv", "A figure has no table plots/images/curves.csv."),
        ("plots/data/ages.png", "There is no figure plots/data/ages.png."),
        ("plots/explain", "No single decisions are explained"),
        ("metrics/comparisons", "There are no comparisons metrics/comparisons/rules.csv."),
        ("metrics/comparisons", "There is no metrics/comparisons/page.json."),
        ("metrics/table.csv", "There is no table of configurations"),
        ("metrics/headline.json", "There is no metrics/headline.json."),
        ("metrics/data", "There is no metrics/data/page.json."),
    ],
)
def test_what_is_taken_away_is_named(copy, path, words):
    _remove(copy / path)
    page = write_report(copy)
    assert words in section(page, "missing")
    for link in Tree(page).all("a"):
        assert link["href"].startswith("#") or (copy / "report" / link["href"]).exists(), link


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_page_of_almost_nothing(copy):
    for name in ("metrics", "plots", "data/models", "data/prepared", "data/images", "dvc.lock"):
        _remove(copy / name)
    page = write_report(copy)
    Tree(page)
    assert "Empty configurations, without any run: all." in section(page, "missing")
    assert "There is no table of configurations." in section(page, "summary")
    assert "No run to take mistakes from." in section(page, "mistakes")


@pytest.fixture
def imageless(copy) -> Path:
    """The same runs as if they were external and scored without images; files of the study before are still there."""
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["external"] |= {"runs": [run.name for run in runs.grid(params)], "truth": "data/collection"}
    params["grid"]["seed"] = []
    (copy / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    with study.inside(copy):
        for each in (decode, prepare, describe, illustrate, explain):
            each.main()
    return copy


def test_a_study_without_images_says_what_there_is_and_why_the_rest_is_not(imageless):
    page = write_report(imageless)
    tree = Tree(page)
    missing = section(page, "missing")
    figures = '"Least and most severe mistakes", "Training", "An image of each label"'
    assert f"{without_images.WHY.capitalize()}. Left out for that: " in missing and f"the figures {figures}." in missing
    assert "There is no figure" not in missing and "page.json" not in missing and "No single decisions" not in missing
    assert not re.search('id="(cases|data)"|href="#(cases|data)"', page)
    assert [link["href"] for link in tree.all("a") if link["href"].startswith("#")] == [
        f"#{name}" for name in ("run", "missing", "summary", "comparisons", "figures", "mistakes", "runs")
    ]
    for link in tree.all("a"):
        assert link["href"].startswith("#") or (imageless / "report" / link["href"]).exists(), link
    shown = [image["alt"].split(". The numbers")[0] for image in tree.all("img")]
    assert shown == [figure.title for figure in catalogue.FIGURES.values() if figure.stage == "plot"]
    assert "not drawn" not in page and "5" * 32 not in page  # the MD5 of images that dvc.lock remembers
    words = section(page, "run")
    assert "resnet18-ce-0" in words and not re.search("Backbones|Seeds|Libraries|prepared/|positive training", words)
    assert "There are no images to show." in section(page, "mistakes") and "image4" in section(page, "mistakes")


def test_without_images_a_figure_of_the_scores_that_is_not_there_is_still_named(imageless):
    for stem in ("scores/tradeoff", "images/mistakes"):
        for path in (imageless / "plots").glob(f"{stem}.*"):
            path.unlink()
    missing = section(write_report(imageless), "missing")
    assert (
        "There is no figure plots/scores/tradeoff.png." in missing
        and "There is no figure plots/images/mistakes.png." in missing
    )
    assert 'the figures "Training", "An image of each label".' in missing


def test_a_study_without_its_tree_is_an_error_that_names_the_file(copy):
    _remove(copy / "data/hierarchy/hierarchy.json")
    with study.inside(copy), pytest.raises(SeverityError, match="hierarchy.json is missing"):
        stage.main()


def test_a_warning_that_nothing_was_learnt_stands_at_the_head_of_page_and_tables(copy):
    path = copy / "metrics/headline.json"
    assert 'class="warning"' not in write_report(copy)
    warning = "Nothing shows that anything was learnt: <b>."
    files.write_json(path, {"warning": warning, **files.read_json(path)})
    page = write_report(copy)
    head = page[: page.index("<nav")]
    assert 'class="warning">Nothing shows that anything was learnt: &lt;b&gt;.' in head
    assert r"\caption{Nothing shows that anything was learnt" in (copy / "report/tables/summary.tex").read_text()
    assert warning in (copy / "report/tables/summary.md").read_text()


def test_numbers_of_another_study_are_left_out_and_named(copy):
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["cost"]["name"] = "path"
    files.write_text(copy / "params.yaml", yaml.safe_dump(params))
    with study.inside(copy):
        whole = contents.read(params)
    assert not whole.metrics and not whole.headline and whole.table.empty
    missing = section(write_report(copy), "missing")
    assert "cost lca_height; params.yaml now names" in missing and "cost path" in missing
    assert "the metrics of resnet18-ce-0" in missing


def test_baselines_are_rows_of_the_summary_and_never_its_best(copy):
    table = pandas.read_csv(copy / "metrics/table.csv", keep_default_na=False, na_values=[""])
    trivial = table["runs"] == 0
    assert trivial.sum() == 4
    table.loc[trivial, "hd_at_1"] = -1.0
    table["loss"] = table["loss"].fillna("")
    best = best_rows.find(table, {})
    (row,) = [number for number, key in best if key == "hd_at_1"]
    assert table.loc[row, "runs"] > 0
    summary = section(write_report(copy), "summary")
    assert all(name in summary for name in ("no image", "majority", "least_risk", "best_constant", "random"))


def test_a_number_that_is_not_there_has_its_own_reason(copy):
    table = pandas.read_csv(copy / "metrics/table.csv")
    star = table.iloc[[0]].assign(rule="irma_star", hd_at_1=float("nan"))
    table.loc[1, "macro_auroc"] = None
    files.write_csv(copy / "metrics/table.csv", pandas.DataFrame([*table.to_dict("records"), *star.to_dict("records")]))
    missing = section(write_report(copy), "missing")
    assert "n/a, because the rule decides no class: hd@1 of resnet18-ce-irma_star." in missing
    assert "n/a, because a seed has no label with an AUROC: macro-AUROC of resnet18-ce-crm." in missing


def test_a_cell_without_a_value_is_named_and_has_no_number(copy):
    table = pandas.read_csv(copy / "metrics/table.csv")
    table.loc[0, ["mistake_severity", "mistake_severity_min", "mistake_severity_max"]] = None
    last = table[table["runs"] > 0].index[-2:]
    files.write_csv(copy / "metrics/table.csv", table.drop(index=last))
    page = write_report(copy)
    missing = section(page, "missing")
    assert "n/a, because a seed has no value: mistake severity of resnet18-ce-argmax." in missing
    assert "The configuration densenet121-bce has no row in metrics/table.csv." in missing
    (cell,) = re.findall(r'<td[^>]*line 2, column mistake_severity"[^>]*>(.*?)</td>', page)
    assert cell == "n/a"


def test_runs_that_do_not_belong_together_are_named(copy):
    path = copy / "data/models/resnet18-ce-0/record.json"
    record = files.read_json(path)
    record["versions"]["torch"] = "1.0"
    files.write_json(path, record)
    metrics = files.read_json(copy / "metrics/runs/resnet18-ce-1.json")
    files.write_json(copy / "metrics/runs/resnet18-ce-1.json", metrics | {"class_hash": "other"})
    page = write_report(copy)
    missing = section(page, "missing")
    assert "trained with different versions of libraries" in missing and "on different data" not in missing
    assert "Run resnet18-ce-1 was scored with other classes (class hash other)." in missing
    assert "torch 1.0" in section(page, "run")


def test_runs_made_elsewhere_have_no_record_and_rules_that_cannot_be_had_are_named(copy):
    params = yaml.safe_load((copy / "params.yaml").read_text())
    params["external"]["runs"] = ["published-bce-0"]
    (copy / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    record = files.read_json(copy / "metrics/runs/resnet18-bce-0.json")
    why = "not available: no validation images"
    record |= {"not_available": {"crm": why}, "validation": {"macro_auroc": None, "top1_error": {}}}
    del record["rules"]["crm"]
    files.write_json(copy / "metrics/runs/published-bce-0.json", record)
    page = write_report(copy)
    assert f"Rule crm ({why}): published-bce-0." in section(page, "missing")
    assert "Run published-bce-0" not in section(page, "missing")
    assert "9 of 9 runs: 2 backbones, 2 losses, 2 seeds trained and 1 external" in Tree(page).text
    assert section(page, "runs").count("external, not trained here.") == 1


def test_labels_without_auroc_name_their_runs_where_not_all_lack_it(copy):
    path = copy / "metrics/runs/resnet18-ce-1.json"
    record = files.read_json(path)
    record["labels"]["R & D"]["auroc"] = 0.5
    files.write_json(path, record)
    missing = section(write_report(copy), "missing")
    assert "Labels without AUROC in the runs resnet18-ce-0, " in missing and "resnet18-ce-1" not in missing


@pytest.mark.parametrize("path", ["metrics/table.csv", "metrics/comparisons/rules.csv"])
def test_a_damaged_table_is_an_error_that_names_it(copy, path):
    (copy / path).write_bytes(b"")
    with study.inside(copy), pytest.raises(SeverityError, match=path):
        stage.main()


def test_images_that_are_not_those_of_the_metrics_are_an_error(copy):
    index = pandas.read_csv(copy / "data/images/index.csv")
    files.write_csv(copy / "data/images/index.csv", index.assign(id=index["id"] + "x"))
    with study.inside(copy), pytest.raises(SeverityError, match="holds no image 'image"):
        stage.main()


def test_the_lock_file_gives_the_folders_that_it_knows(tmp_path):
    lock = tmp_path / "dvc.lock"
    assert contents.locked(lock, ["a"]) == {}
    lock.write_text("")
    assert contents.locked(lock, ["a"]) == {}
    outs = [{"path": "a", "md5": "1"}, {"path": "b", "md5": "2"}, {"path": "c"}]
    lock.write_text(yaml.safe_dump({"stages": {"one": {"cmd": "x"}, "two": {"outs": outs}}}))
    assert contents.locked(lock, ["c", "a", "d"]) == {"a": "1"}


def test_the_run_shown_is_the_best_seed_of_the_headlines_configuration(small):
    with study.inside(small):
        whole = contents.read(yaml.safe_load(Path("params.yaml").read_text()))
    run = contents.shown_run(whole)
    assert f"{run.backbone}-{run.loss}" == whole.headline["configuration"]
    mates = [each for each in whole.scored if (each.backbone, each.loss) == (run.backbone, run.loss)]
    scores = {each: whole.metrics[each]["validation"]["macro_auroc"] for each in mates}
    assert len(mates) == 2 and scores[run] == max(scores.values())


# --- Which row is best

ROWS = [("x", "ce", "argmax"), ("x", "ce", "crm"), ("y", "ce", "argmax"), ("y", "ce", "crm")]


def table_of(values: list, key: str = "hd_at_1") -> pandas.DataFrame:
    frame = pandas.DataFrame(ROWS, columns=list(best_rows.AXES)).assign(runs=2)
    return frame.assign(**{key: values, f"{key}_min": values, f"{key}_max": values})


def compared_of(*verdicts: str, metric: str = "hierarchical_distance_at_1") -> dict[str, pandas.DataFrame]:
    """Rules crm with argmax for x and y, backbones y with x for argmax and crm."""
    first, second, third, fourth = verdicts
    rules = pandas.DataFrame(
        [("x", "ce", "crm", "argmax", metric, first), ("y", "ce", "crm", "argmax", metric, second)],
        columns=["backbone", "loss", "A", "B", "metric", "verdict"],
    )
    backbones = pandas.DataFrame(
        [("ce", "argmax", "y", "x", metric, third), ("ce", "crm", "y", "x", metric, fourth)],
        columns=["loss", "rule", "A", "B", "metric", "verdict"],
    )
    return {"rules": rules, "backbones": backbones}


NONE = "no difference shown"


def test_a_best_is_shown_where_all_its_comparisons_are_won():
    best = best_rows.find(table_of([3.0, 1.0, 4.0, 2.0]), compared_of("A milder", NONE, NONE, "B milder"))
    assert best == {(1, "hd_at_1"): best_rows.BestRow(2, ())}
    assert best[1, "hd_at_1"].shown and "each of its 2 comparisons" in best[1, "hd_at_1"].words


@pytest.mark.parametrize(
    ("verdicts", "unshown"),
    [
        ((NONE, NONE, NONE, "B milder"), ("x-ce-argmax",)),
        (("A milder", NONE, NONE, NONE), ("y-ce-crm",)),
        (("B milder", NONE, NONE, "A milder"), ("x-ce-argmax", "y-ce-crm")),
    ],
)
def test_a_best_is_not_shown_where_a_comparison_is_open_or_lost(verdicts, unshown):
    best = best_rows.find(table_of([3.0, 1.0, 4.0, 2.0]), compared_of(*verdicts))[1, "hd_at_1"]
    assert not best.shown and best.open == unshown
    assert all(name in best.words for name in unshown) and f"in {len(unshown)} of its 2" in best.words


def test_comparisons_in_another_metric_or_none_at_all_show_nothing():
    table = table_of([3.0, 1.0, 4.0, 2.0])
    for compared in ({}, compared_of(*["A milder"] * 4, metric="top1_error")):
        best = best_rows.find(table, compared)[1, "hd_at_1"]
        assert best == best_rows.BestRow(0, ()) and not best.shown and "no other row" in best.words


def test_ties_and_single_rows_have_no_best_missing_values_never_lead_and_more_auroc_is_better():
    assert best_rows.find(table_of([1.0, 1.0, 4.0, 2.0]), {}) == {}
    assert best_rows.find(table_of([1.0, None, None, None]), {}) == {}
    assert best_rows.find(table_of([None] * 4), {}) == {}
    assert set(best_rows.find(table_of([None, 2.0, 1.0, 3.0]), {})) == {(2, "hd_at_1")}
    assert set(best_rows.find(table_of([0.5, 0.6, 0.9, 0.7], "macro_auroc"), {})) == {(2, "macro_auroc")}


def test_only_a_best_that_is_shown_is_bold(copy):
    table = pandas.read_csv(copy / "metrics/table.csv")
    table["hd_at_1"] = numpy.arange(len(table), dtype=float)
    files.write_csv(copy / "metrics/table.csv", table)
    for verdict, mark in ((NONE, '<span class="lead">☆ 0.000</span>'), ("B milder", "<strong>★ 0.000</strong>")):
        for name in best_rows.COMPARED:
            path = copy / f"metrics/comparisons/{name}.csv"
            frame = pandas.read_csv(path)
            sides = frame[["A", "B"]].isin(table.loc[0, list(best_rows.AXES)].tolist())
            won = sides["A"].map({True: "A milder", False: "B milder"})
            files.write_csv(path, frame.assign(verdict=won if verdict != NONE else NONE))
        page = write_report(copy)
        (cell,) = re.findall(r'<td[^>]*line 2, column hd_at_1"[^>]*>(.*?)</td>', page)
        assert cell.startswith(mark), cell
        latex_row = next(line for line in (copy / report.TABLES[0]).read_text().splitlines() if "0.000" in line)
        assert (r"\textbf{0.000}" in latex_row) == (verdict != NONE) and (r"\underline{0.000}" in latex_row) == (
            verdict == NONE
        )
        assert ("| **0.000** (" in (copy / report.TABLES[1]).read_text()) == (verdict != NONE)


# --- HTML


def render(template: str, **values) -> str:
    """A template of the page's own environment."""
    return report.environment().from_string('{% import "macros.html" as macros %}' + template).render(**values)


@given(strategies.text(), strategies.text())
def test_text_and_attributes_come_back_as_they_were(words, title):
    # The parser reads a carriage return as a line feed, as every browser does.
    words, title = words.replace("\r", ""), title.replace("\r", "")
    cell = page_tables.number(1.5, words or "1.5", title=title)
    parsed = Tree(render("{{ macros.cell(cell) }}", cell=cell))
    assert parsed.text == (words or "1.5")
    assert parsed.all("td") == [{"class": "n", "data-v": "1.5", **({"title": title} if title else {})}]


def test_a_name_that_a_template_is_not_given_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="nothing"):
        render("{{ nothing }}")
    with pytest.raises(jinja2.UndefinedError, match="width"):
        render("{{ macros.image(picture, alt='') }}", picture={"src": ""})


def test_a_document_becomes_html():
    page = documents.Document(
        "One",
        (
            documents.Heading("Two"),
            documents.paragraph("three < ", documents.emphasis("f*ur"), documents.code("5 < 6"), " 2 * 3 * 4"),
            documents.Bullets(("a", "**b**")),
            documents.Heading("Nine", level=2),
            documents.table(
                ["w", "n", "r"],
                [["a|b_c", documents.number(-1234.5, ",.1f", "(-2 to +3)", "A"), "low"]]
                + [["c", documents.number(None, ".1f"), "high"]],
            ),
        ),
    )
    blocks = page_tables.of_document(page, Path("page.json"))
    drawn = render("{{ macros.document(blocks, level=3) }}", blocks=blocks)
    assert "<h3>Two</h3>" in drawn and "<h4>Nine</h4>" in drawn and "One" not in drawn
    assert "<p>three &lt; <em>f*ur</em><code>5 &lt; 6</code> 2 * 3 * 4</p>" in drawn
    assert "<li>a</li><li>**b**</li>" in drawn and 'aria-label="page.json"' in drawn
    assert (
        '<td>a|b_<wbr>c</td><td class="n" data-v="-1234.5">-1,234.5 <strong>A</strong> <small>(-2 to +3)</small></td>'
        in drawn
    )
    assert '<td class="n" data-v="">n/a</td><td>high</td>' in drawn
    assert [head.get("class") for head in Tree(drawn).all("th")] == [None, "n", None]


def test_a_long_table_of_a_document_is_folded():
    for rows, folded in ((page_tables.LONGEST, False), (page_tables.LONGEST + 1, True)):
        table = documents.table(["w", "n"], [["a", documents.count(1)]] * rows)
        blocks = page_tables.of_document(documents.Document("x", (table,)), Path("x"))
        drawn = render("{{ macros.document(blocks, level=3) }}", blocks=blocks)
        assert (f"<summary>{rows} rows</summary>" in drawn) == ("<details" in drawn) == folded


def draw_tree(tree: Hierarchy, positives: dict[str, int]) -> str:
    return render("{{ macros.tree(nodes) }}", nodes=sections.tree_nodes(tree, positives))


def test_a_tree_of_any_depth_is_a_nested_list():
    depth = 3000
    chain = Hierarchy.from_parents([-1, *range(depth), 0], [depth, depth + 1], ["deep", "<flat>"])
    drawn = draw_tree(chain, {"deep": 1234})
    assert drawn.count("<ul") == depth + 1 and "<strong>deep</strong> (1,234)" in drawn
    assert "&lt;flat&gt;" in draw_tree(chain, {})
    Tree(drawn)
    assert len(Tree(draw_tree(flat(100), {})).all("strong")) == 100


def test_every_node_of_the_tree_stands_in_the_list_of_its_parent():
    tree = study.tree()
    parsed = Tree(draw_tree(tree, {}))
    items = [len([name for name in above if name == "li"]) for name, _, above in parsed.elements if name == "li"]
    nodes = sections.tree_nodes(tree, {})
    assert [node["name"] for node in nodes][0] == tree.names[tree.root] and len(nodes) == len(items) == len(tree.names)
    assert items == [_depth(tree, node["name"]) for node in nodes]
    assert {node["name"] for node in nodes if node["is_class"]} == {tree.names[node] for node in tree.class_nodes}


def _depth(tree: Hierarchy, name: str) -> int:
    node, depth = tree.names.index(name), 0
    while node != tree.root:
        node, depth = int(tree.parents[node]), depth + 1
    return depth


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "n/a"), (float("nan"), "n/a"), (3.0, "3"), (12345, "12,345"), (0.12345, "0.1235"), (1.5e-7, "1.5e-7")],
)
def test_numbers_for_people(value, words):
    assert page_tables.digits(value) == words


# --- LaTeX and Markdown


@given(strategies.text(alphabet="ab\\{}_&%$#~^<>|\"'−\n é"))
def test_escaped_text_holds_no_command_of_its_own(text):
    escaped = latex.escape(text)
    for command in {*latex.ESCAPES.values()}:
        escaped = escaped.replace(command, "")
    assert not set(escaped) & set("\\{}_&%$#~^<>|\n")


def rows_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.endswith(("\\\\", "\\\\*")) and not line.startswith("\\caption")]


@pytest.mark.parametrize("which", ["small", "big"])
@pytest.mark.parametrize("name", ["summary", "comparisons"])
def test_the_latex_tables_have_as_many_cells_in_each_row_and_closed_groups(which, name, request):
    text = (request.getfixturevalue(which) / f"report/tables/{name}.tex").read_text(encoding="utf-8")
    plain = re.sub(r"\\[\\{}&%]", "", text)
    assert plain.count("{") == plain.count("}") and text.count("\\begin") == text.count("\\end{")
    parts = re.split(r"(?=\\caption)", text)[1:]
    assert len(parts) == (1 if name == "summary" else 3)
    for part in parts:
        assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows_of(part)}) == 1
        assert r"\toprule" in part and r"\bottomrule" in part and r"\label{tab:severity-" in part
    assert ("longtable" in text.split("\n", 1)[1]) == (which == "big")


def test_captions_tell_images_patients_and_seeds(small, big):
    """The same number of patients in every table, those of the images with a true class."""
    for folder, seeds in ((small, "2 seeds, with minimum and maximum"), (big, "1 seed")):
        for name in ("summary.tex", "summary.md"):
            text = (folder / "report/tables" / name).read_text(encoding="utf-8")
            assert f"Medians over {seeds}, on 78 test images with a true class, of 42 patients" in text
            assert "hd@20 is left out" in text and ", hd@20" not in text
        words = (folder / "report/tables/comparisons.tex").read_text(encoding="utf-8")
        seeds = seeds.partition(",")[0]
        assert (
            f"78 test images with a true class, of 42 patients, means over {seeds}" in words
            and r"95 \% intervals" in words
        )


def test_the_tables_hold_the_numbers_of_the_study(small):
    table = pandas.read_csv(small / "metrics/table.csv")
    text = (small / "report/tables/summary.md").read_text(encoding="utf-8")
    lines = [line.split(" | ") for line in text.splitlines()[2 : 2 + len(table)]]
    for row, line in zip(table.to_dict("records"), lines, strict=True):
        spread = f" ({row['top1_error_min']:.3f} to {row['top1_error_max']:.3f})" if row["runs"] else ""
        assert line[4].replace("*", "") == f"{row['top1_error']:.3f}{spread}"
    assert (
        table["rule"].tolist()[-4:] == ["majority", "least_risk", "best_constant", "random"]
        and not table["runs"].iloc[-4:].any()
    )
    pairs = pandas.read_csv(small / "metrics/comparisons/losses.csv")
    text = (small / "report/tables/comparisons.tex").read_text(encoding="utf-8").replace("$-$", "-").replace("$+$", "+")
    for row in pairs.to_dict("records"):
        value = f"{row['difference']:+.3f}"
        assert (f"\\textbf{{{value}}}" if row["verdict"].startswith(("A ", "B ")) else value) in text
        if pandas.notna(row["lower"]):
            assert f"[{row['lower']:+.3f}, {row['upper']:+.3f}]" in text
    rules = pandas.read_csv(small / "metrics/comparisons/rules.csv").dropna(subset="lower")
    assert len(rules)
    for row in rules.to_dict("records"):
        assert f"[{row['lower']:+.3f}, {row['upper']:+.3f}]" in text


def test_a_comparison_without_a_value_or_an_interval_says_so():
    row = {"difference": None, "lower": None, "upper": None, "verdict": NONE}
    assert report_tables._difference(row) == ("n/a", "")
    assert report_tables._difference(row | {"difference": -1.0, "verdict": "A milder"}) == ("\\textbf{$-$1.000}", "")


@pytest.mark.parametrize("which", ["small", "big"])
def test_the_latex_tables_compile_and_fit_the_page(which, request, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex is installed")
    folder = request.getfixturevalue(which) / "report/tables"
    names = r"\par ".join(latex.escape(name) for name in (*study.HOSTILE, "a | b <c>"))
    tables = "".join(f"\\input{{{folder / name}.tex}}\n" for name in ("summary", "comparisons"))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage[a4paper,margin=2cm]{geometry}\n\\usepackage{booktabs,longtable}\n"
        f"\\begin{{document}}\n{names}\n\n{tables}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):  # The second time the widths of long tables are known.
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout or which == "big", done.stdout[-2000:]


# --- In a browser


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["small", "big"])
def test_the_page_never_scrolls_sideways_and_its_tables_do_where_they_must(which, width, request):
    page = request.getfixturevalue(which) / "report/report.html"
    seen = browser.look(
        page,
        """
        const widths = () => [innerWidth, document.documentElement.scrollWidth];
        const closed = widths();
        for (const each of document.querySelectorAll("details")) each.open = true;
        await new Promise((done) => setTimeout(done, 500));
        const boxes = Array.from(document.querySelectorAll(".scroll"));
        const cut = boxes.filter((box) => box.scrollWidth > box.clientWidth + 1);
        return {closed, open: widths(), cut: cut.length, boxes: boxes.length,
          hinted: boxes.filter((box) => box.previousElementSibling.offsetHeight > 0).length,
          wrong: cut.filter((box) => !box.previousElementSibling.offsetHeight).length};
        """,
        width=width,
    )
    for inner, scrolled in (seen["closed"], seen["open"]):
        assert inner == width and scrolled <= inner
    assert seen["boxes"] > 10 and seen["hinted"] == seen["cut"] and seen["wrong"] == 0
    assert seen["cut"] > 0 or width > 1000


def test_a_table_sorts_by_any_column_in_both_directions_missing_values_last(copy):
    table = pandas.read_csv(copy / "metrics/table.csv")
    table.loc[2, ["mistake_severity", "mistake_severity_min", "mistake_severity_max"]] = None
    files.write_csv(copy / "metrics/table.csv", table)
    write_report(copy)
    seen = browser.look(
        copy / "report/report.html",
        """
        const table = document.getElementById("summary-table"), heads = Array.from(table.tHead.rows[0].cells);
        const column = (place) => Array.from(table.tBodies[0].rows, (row) => row.cells[place].dataset.v ?? row.cells[place].textContent);
        const place = heads.findIndex((head) => head.textContent === "mistake severity"), seen = {place};
        seen.before = heads.map((head) => head.getAttribute("aria-sort"));
        heads[place].querySelector("button").click();
        seen.up = column(place), seen.ariaUp = heads.map((head) => head.getAttribute("aria-sort"));
        heads[place].querySelector("button").focus();
        seen.focused = document.activeElement.closest("th") === heads[place];
        document.activeElement.click();
        seen.down = column(place), seen.ariaDown = heads[place].getAttribute("aria-sort");
        heads[1].querySelector("button").click();
        seen.words = column(1), seen.ariaOther = heads[place].getAttribute("aria-sort");
        return seen;
        """,
        width=1280,
    )
    wanted = [f"{value:.10g}" for value in sorted(table["mistake_severity"].dropna())]
    assert seen["up"] == [*wanted, ""] and seen["down"] == [*wanted[::-1], ""] and seen["focused"]
    assert not any(seen["before"]) and [each for each in seen["ariaUp"] if each] == ["ascending"]
    assert seen["ariaUp"][seen["place"]] == "ascending" and seen["ariaDown"] == "descending"
    assert seen["words"] == sorted(seen["words"]) and seen["ariaOther"] is None


def test_a_table_is_filtered_by_words_and_by_free_text(big):
    seen = browser.look(
        big / "report/report.html",
        """
        const form = document.querySelector("form[data-table=summary-table]"), seen = {};
        const rows = Array.from(document.getElementById("summary-table").tBodies[0].rows);
        const shown = () => rows.filter((row) => row.offsetHeight > 0).map((row) => Array.from(row.cells).slice(0, 3).map((cell) => cell.textContent).join(" "));
        const set = (control, value) => { control.value = value; control.dispatchEvent(new Event("input", {bubbles: true})); };
        const [backbone, loss, rule] = form.querySelectorAll("select"), text = form.querySelector("input");
        seen.all = shown().length;
        set(loss, "hxe"); seen.loss = shown();
        set(rule, "crm"); seen.both = shown();
        set(loss, ""); set(rule, ""); set(text, "NUMBER_3"); seen.text = shown();
        seen.words = form.querySelector("output").textContent;
        set(text, "nowhere"); seen.none = shown();
        const folded = document.querySelector("form[data-table=losses-table]");
        seen.first = folded.querySelector("output").textContent;
        return seen;
        """,
        width=1280,
    )
    assert seen["all"] == 94 and seen["none"] == [] and seen["words"] == "10 of 94 rows"
    assert len(seen["loss"]) == 18 and all(" hxe " in row for row in seen["loss"])
    assert seen["both"] == [row for row in seen["loss"] if row.endswith(" crm")] != []
    assert len(seen["text"]) == 10 and all("number_3" in row for row in seen["text"])
    shown, whole = re.fullmatch(r"(\d+) of (\d+) rows", seen["first"]).groups()
    # One metric of five, until another is asked for; the AUROC has one row for both rules.
    assert int(shown) * 4 + int(shown) // 2 == int(whole)


def test_without_scripts_the_page_is_whole(big):
    page = (big / "report/report.html").read_text(encoding="utf-8")
    forms = [attributes for name, attributes, _ in Tree(page).elements if name == "form"]
    assert forms and all("hidden" in form for form in forms)  # Controls that could do nothing are not shown.
    assert not re.search(r"<tr[^>]* hidden", page)


def test_thumbnails_are_the_images_of_the_study(small):
    pixels = numpy.load(small / "data/images/images.npy")
    with study.inside(small):
        images = stage.read_images()
        assert (images(["image7", "image3"]) == pixels[[7, 3]]).all()
    thumbnail = pictures.thumbnail(pixels[7])
    content = base64.b64decode(thumbnail.src.removeprefix("data:image/png;base64,"))
    assert (numpy.asarray(Image.open(io.BytesIO(content))) == pixels[7]).all()
    wide = pictures.thumbnail(numpy.zeros((600, 600), dtype=numpy.uint8))
    assert (wide.width, wide.height) == (pictures.THUMBNAIL, pictures.THUMBNAIL)
