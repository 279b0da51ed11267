"""Results of another study do not look like the own ones."""

import yaml

from severity.core import files, runs, stale
from tests.checks import every
from tests.study import inside
from tests.trees import TOP

PARAMS = yaml.safe_load((TOP / "params.yaml").read_text())
OWN = runs.title(PARAMS | {"data": {"name": "own"}})
HEADLINE = {"collection": runs.title(PARAMS), "tree": "chexpert_pleural", "cost": "lca_height", "configuration": "r-ce"}
TABLE = "Collection phantom.\n\n| a |\n| --- |\n"
PAGE = "<!DOCTYPE html>\n<body>\n<header>\n<h1>Severity: phantom</h1>\n<p>runs</p>\n</body>\n"


def leave(folder):
    """What a study of the phantoms left behind."""
    files.write_json(folder / stale.HEADLINE, HEADLINE)
    files.write_text(folder / stale.TABLE, TABLE)
    files.write_text(folder / stale.PAGE, PAGE)


def texts(folder):
    return [(folder / path).read_text() for path in (stale.HEADLINE, stale.TABLE, stale.PAGE)]


def test_results_of_the_same_study_stay_as_they_are(tmp_path):
    leave(tmp_path)
    before = texts(tmp_path)
    with inside(tmp_path):
        assert stale.mark(PARAMS) == ""
        assert stale.mark(PARAMS | {"train": {"epochs": 99}}) == ""
    assert texts(tmp_path) == before


def test_another_collection_tree_or_cost_marks_headline_table_and_report(tmp_path):
    datasets = PARAMS["datasets"] | {"phantom": PARAMS["datasets"]["phantom"] | {"hierarchy": "nih14"}}
    changes = ({"data": {"name": "own"}}, {"datasets": datasets}, {"cost": {"name": "path", "file": ""}})
    for change, word in zip(changes, (f"collection {OWN}", "tree nih14", "cost path"), strict=True):
        leave(tmp_path)
        with inside(tmp_path):
            said = stale.mark(PARAMS | change)
            assert word in said and "cost lca_height" in said
            assert every(said in text for text in texts(tmp_path))
            once = texts(tmp_path)
            assert stale.mark(PARAMS | change) == said and texts(tmp_path) == once
        assert files.read_json(tmp_path / stale.HEADLINE) == {"stale": said, **HEADLINE}
        assert once[1].startswith(f"**{said}**") and once[1].endswith(TABLE)
        assert once[2].index("<h1>") < once[2].index(said) < once[2].index("<p>runs</p>")


def test_a_second_change_replaces_the_mark(tmp_path):
    leave(tmp_path)
    with inside(tmp_path):
        first, second = stale.mark(PARAMS | {"data": {"name": "own"}}), stale.mark(PARAMS | {"data": {"name": "nih14"}})
    for text in texts(tmp_path):
        assert second in text and first not in text and text.count(stale.WORDS) == 1


def test_names_are_text_in_the_page(tmp_path):
    leave(tmp_path)
    with inside(tmp_path):
        stale.mark(PARAMS | {"cost": {"name": "<b>&", "file": ""}})
    assert "<b>" not in (tmp_path / stale.PAGE).read_text() and "&lt;b&gt;&amp;" in (tmp_path / stale.PAGE).read_text()


def test_where_there_is_nothing_or_something_else_nothing_happens(tmp_path):
    with inside(tmp_path):
        assert stale.mark(PARAMS) == "" and not list(tmp_path.iterdir())
        for content in ("{", "[]", "null"):
            files.write_text(stale.HEADLINE, content)
            assert stale.mark(PARAMS) == "" and stale.HEADLINE.read_text() == content


def test_an_older_headline_that_does_not_say_what_it_is_of_is_marked(tmp_path):
    files.write_json(tmp_path / stale.HEADLINE, {"configuration": "r-ce"})
    with inside(tmp_path):
        assert "collection unknown" in stale.mark(PARAMS)
    assert "stale" in files.read_json(tmp_path / stale.HEADLINE)
