"""The report: one HTML page with everything a study found, each number with the file that it comes from.

The page needs nothing beside it: no network, no library; images are part of it. The same study gives the same bytes, so it
tells neither date nor machine.
"""

import base64
import io
import math
import os
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import yaml
from PIL import Image

from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.metrics import catalogue
from severity.report import best_rows, contents, markup
from severity.report.best_rows import AXES, Leader
from severity.report.contents import Figure, Findings
from severity.report.markup import Html, join, tag

TEMPLATE = Path(__file__).with_name("report.html")
FOLDER = "report"  # where the page lies: links are relative to it
DPI = 150  # of the figures
OPEN = 40  # nodes of a tree that are shown without being asked for
CASES = 24  # explained images that are part of the page; others are named
WIDEST = 1200  # pixels of the picture of a case
THUMBNAIL = 224  # pixels
# The sections of params.yaml that say what was run; of the data sets only the one that was used.
PARAMS = ("data", "decode", "prepare", "describe", "cost", "grid", "train", "predict", "evaluate", "compare", "plot")
PARAMS += ("explain", "external")
# What the stage writes beside the page.
TABLES = ("report/tables/summary.tex", "report/tables/summary.md", "report/tables/comparisons.tex")
ENDS = {"least": "Least severe mistakes", "most": "Most severe mistakes"}
# How the axes of the grid are headed.
AXIS = {"backbone": "Backbones", "loss": "Losses", "seed": "Seeds"}
# How the columns of the comparisons are headed.
HEADINGS = {
    "value_A": "value of A",
    "value_B": "value of B",
    "difference": "A − B",
    "lower": "from",
    "upper": "to",
    "percent": "%",
    "effect_size": "effect size",
    "p_holm": "corrected p",
    "seed_min": "seeds from",
    "seed_median": "seeds, median",
    "seed_max": "seeds to",
}


def page(found: Findings, images: Any = None) -> str:
    """The whole page.

    Args:
        found: what there is.
        images: a function from ids of images to (n, S, S) uint8; without it mistakes are told without pictures.
    """
    sections = {
        "run": ("What was run", _what_was_run(found)),
        "missing": ("What is missing", _what_is_missing(found)),
        "summary": ("Summary", _summary(found)),
        "comparisons": ("Comparisons", _comparisons(found)),
        "figures": ("Figures", [_figure(each) for each in found.figures if each.stem.name != "mistakes"]),
        "mistakes": ("Mistakes", _mistakes(found, images)),
        "cases": ("Explained decisions", _cases(found)),
        "data": ("Data card", _card(found)),
        "runs": ("Runs", _runs(found)),
    }
    if not found.images:
        del sections["cases"], sections["data"]
    body = [
        tag("section", tag("h2", heading, id=f"{name}-heading"), *parts, id=name, aria_labelledby=f"{name}-heading")
        for name, (heading, parts) in sections.items()
    ]
    contents = tag("ul", *(tag("li", tag("a", heading, href=f"#{name}")) for name, (heading, _) in sections.items()))
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=markup.escape(f"Severity: {found.settings['data']['name']}"),
        lead=join(_lead(found), "\n"),
        contents=tag("nav", contents, aria_label="Contents"),
        body=join(body, "\n"),
    )


def _source(*paths: Path | str, keys: str = "") -> Html:
    """The line that says where numbers come from: links to files, and what of them."""
    links = join(map(_link, paths), ", ")
    return tag("p", "Source: ", links, f": {keys}" if keys else "", class_="source")


def _link(path: Path | str) -> Any:
    """A link to a file of the study; its name alone where there is none."""
    written = path in TABLES or Path(path).exists()
    return tag("a", path, href=Path(os.path.relpath(path, FOLDER)).as_posix()) if written else str(path)


def _facts(rows: Iterable[tuple[str, Any]]) -> Html:
    return tag("dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in rows))


def _more(summary: str, *children: Any, open_: bool = False) -> Html:
    return tag("details", tag("summary", summary), *children, open=open_)


def _digits(value: Any, digits: int = 4) -> str:
    """A number for people: whole ones with separators, others with so many significant digits, n/a for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "n/a"
    if isinstance(value, (int, numpy.integer)) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.{digits}g}".replace("e-0", "e-")


def _number(value: Any, text: Any = None, **attributes: Any) -> Html:
    """A cell with a number; it sorts by the whole number, not by the digits shown."""
    known = value is not None and not pandas.isna(value)
    shown = _digits(value) if text is None else text
    return tag("td", shown, **{"class_": "n", "data_v": f"{value:.10g}" if known else "", **attributes})


def _name(words: str) -> Html:
    """Words that may be broken after a low line."""
    return join(words.split("_"), join(["_", tag("wbr")]))


def _fixed(value: float | None) -> Html:
    """A cell with three decimals, as in the summary."""
    return _number(value, None if value is None else f"{value:.3f}")


# --- What was run


def _lead(found: Findings) -> Iterator[Html]:
    """The page in a few sentences."""
    axes = found.settings["grid"]
    counts = ", ".join(
        f"{len(axes[axis])} {words if len(axes[axis]) > 1 else words.removesuffix('s').removesuffix('e')}"
        for axis, words in (("backbone", "backbones"), ("loss", "losses"), ("seed", "seeds"))
    )
    rules = ", ".join(found.settings["evaluate"]["rules"])
    adopted = len(found.scored) - len(found.trained)
    counts = " and ".join([f"{counts} trained"] * bool(found.trained) + [f"{adopted} external"] * bool(adopted))
    yield tag("p", f"{len(found.metrics)} of {len(found.scored)} runs: {counts}; decision rules: {rules}.")
    headline = found.headline
    if headline:
        decided = [
            f"under {rule} a top-1 error of {_digits(headline[f'{rule}_top1_error'], 3)}, a mistake severity of "
            f"{_digits(headline[f'{rule}_mistake_severity'], 3)} and a hierarchical distance of "
            f"{_digits(headline[f'{rule}_hd_at_1'], 3)}"
            for rule in found.settings["evaluate"]["rules"]
            if f"{rule}_hd_at_1" in headline
        ]
        yield tag(
            "p",
            "Chosen: " if "chosen" in headline else "Chosen on validation images: ",
            tag("strong", headline["configuration"]),
            f", {headline['chosen']}" if "chosen" in headline else "",
            f". On test images, as medians over seeds: macro-AUROC {_digits(headline['macro_auroc'], 3)}; "
            f"{'; '.join(decided)}.",
        )
        yield _source("metrics/headline.json")
    yield tag("p", "For research only; not for diagnosis.")


def _what_was_run(found: Findings) -> Iterator[Html]:
    settings, tree = found.settings, found.hierarchy
    name = settings["data"]["name"]
    about = settings["datasets"][name]
    classes = f"{len(tree.classes)}, in the tree {about['hierarchy']} of {len(tree.names)} nodes"
    yield _facts(
        [
            ("Data set", name),
            ("Classes", classes),
            ("Class hash", tag("code", tree.class_hash)),
            ("Cost of a mistake", settings["cost"]["name"]),
            *((words, ", ".join(map(str, settings["grid"][axis]))) for axis, words in AXIS.items() if found.trained),
            *([("external", ", ".join(settings["external"]["runs"]))] if settings["external"]["runs"] else []),
            ("Decision rules", ", ".join(settings["evaluate"]["rules"])),
        ]
    )
    yield _source("params.yaml", "data/hierarchy/hierarchy.json")
    if found.counts:
        rows = [
            tag("tr", tag("th", split, scope="row"), _number(counts["images"]), _number(counts["patients"]))
            for split, counts in found.counts.items()
        ]
        yield markup.table([("split", False), ("images", True), ("patients", True)], rows, about="Images of each split")
        yield _source("data/prepared/summary.json", keys="counts")
    yield tag("h3", "The label tree")
    positives = contents.label_positives(found, "train")
    yield tag("p", f"Classes are bold{', with their number of positive training images' if positives else ''}.")
    drawn = _tree(tree, positives)
    big = len(tree.names) > OPEN
    yield _more(f"All {len(tree.names)} nodes", drawn) if big else drawn
    if positives:
        yield _source("data/hierarchy/hierarchy.json", "data/prepared/summary.json", keys="counts.train.labels")
    else:
        yield _source("data/hierarchy/hierarchy.json")
    if found.images:
        yield from _versions(found)
    chosen = {section: settings[section] for section in PARAMS if section in settings}
    chosen["datasets"] = {name: about}
    told = yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True, width=72)
    yield _more("All parameters of the study", tag("pre", told, tabindex="0"), _source("params.yaml"))


def _tree(tree: Hierarchy, positives: dict[str, int]) -> Html:
    """The tree as nested lists, without recursion: a tree may be a long chain."""
    names = dict(zip(tree.class_nodes.tolist(), tree.classes, strict=True))
    items: dict[int, Html] = {}
    for node in reversed(tree.top_down):
        words: list[Any] = [tree.names[node]]
        if node in names:
            own = positives.get(names[node])
            words = [tag("strong", tree.names[node]), "" if own is None else f" ({own:,})"]
        below = [items.pop(child) for child in tree.children[node]]
        items[node] = tag("li", *words, tag("ul", *below) if below else "")
    return tag("ul", items[tree.root], class_="tree")


def _versions(found: Findings) -> Iterator[Html]:
    yield tag("h3", "Libraries and data")
    versions: dict[str, list[str]] = {}
    hashes: dict[str, list[str]] = {}
    for run, record in found.records.items():
        told = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        versions.setdefault(told, []).append(run.name)
        told = ", ".join(f"{name} {digest}" for name, digest in record["prepared"].items())
        hashes.setdefault(told, []).append(run.name)
    everyone = len(found.records)
    rows: list[tuple[str, Any]] = []
    for words, found_of in (("Trained with", versions), ("Trained on (SHA-256)", hashes)):
        for told, names in found_of.items():
            of = "all runs" if len(names) == everyone else ", ".join(names)
            rows.append((words, join([tag("code", told), f" ({of})"])))
    rows += [(f"{out} (MD5)", tag("code", digest)) for out, digest in found.locked.items()]
    if found.decoded:
        about = found.decoded
        told = f"{about['images']:,} at {about['size']} x {about['size']} pixels ({about['aspect']}); "
        rows.append(("Images", f"{told}{about['unreadable']:,} could not be read"))
    yield _facts(rows)
    sources = ["data/models/<run>/record.json: versions, prepared"]
    sources += ["data/images/summary.json"] * bool(found.decoded) + ["dvc.lock: md5"] * bool(found.locked)
    yield tag("p", f"Source: {'; '.join(sources)}", class_="source")


def _what_is_missing(found: Findings) -> Iterator[Html]:
    if found.missing:
        yield tag("ul", *(tag("li", sentence) for sentence in found.missing))
    else:
        yield tag("p", "Nothing: every run has its metrics, every figure and table is there.")


# --- Summary


def _summary(found: Findings) -> Iterator[Html]:
    table, columns = found.table, best_rows.columns(found.table)
    if table.empty:
        yield tag("p", "There is no table of configurations.")
        return
    best = best_rows.leaders(table, found.compared)
    more = [columns[key] for key in best_rows.MORE if key in columns]
    yield tag(
        "p",
        "Median over the seeds of a configuration, with minimum and maximum, on test images. Less is better"
        + (f", of {', '.join(more)} more" if more else "")
        + ". ",
        tag("strong", "★ Bold"),
        ": the best median of the column, shown to be better in every comparison that was made of it. ",
        tag("span", "☆ underlined", class_="lead"),
        ": the best median, but no difference is shown in at least one of them, or none was made; the list below the table "
        "says which. A tie has no mark. The best of many rows on the same test images is always a little flattered.",
    )
    rows = [_summary_row(row, number, columns, best) for number, row in enumerate(table.to_dict("records"))]
    heads = [*((axis, False) for axis in AXES), ("runs", True), *((words, True) for words in columns.values())]
    yield _filtered(
        markup.table(heads, rows, about="Summary of all configurations", id="summary-table"),
        "summary-table",
        [(axis, place, list(dict.fromkeys(table[axis]))) for place, axis in enumerate(AXES)],
        len(rows),
    )
    yield tag("ul", *(_standing(table, number, columns[key], each) for (number, key), each in best.items()))
    yield _source(
        contents.TABLE,
        "metrics/comparisons/comparisons.md",
        keys=f"columns {', '.join(columns)}; each with _min and _max",
    )
    yield tag(
        "p",
        "For a paper: ",
        join(map(_link, TABLES), ", "),
        class_="source",
    )
    yield from _baselines(found)


def _standing(table: pandas.DataFrame, number: int, heading: str, leader: Leader) -> Html:
    name = "-".join(table.loc[number, list(AXES)])
    return tag("li", f"{heading}: {name}. {leader.words}")


def _summary_row(
    row: dict[str, Any], number: int, columns: dict[str, str], best: dict[tuple[int, str], Leader]
) -> Html:
    line = [
        tag("th", _name(row["backbone"]), scope="row"),
        tag("td", _name(row["loss"])),
        tag("td", _name(row["rule"])),
    ]
    line.append(_number(row["runs"]))
    for key in columns:
        leader = best.get((number, key))
        source = f"{contents.TABLE}, line {number + 2}, column {key}"
        if pandas.isna(row[key]):
            line.append(_number(None, title=source))
            continue
        words = f"{row[key]:.3f}"
        value = (
            words
            if leader is None
            else tag("strong", f"★ {words}")
            if leader.shown
            else tag("span", f"☆ {words}", class_="lead")
        )
        spread = tag("small", f"{row[f'{key}_min']:.3f} to {row[f'{key}_max']:.3f}") if row["runs"] > 1 else ""
        line.append(_number(row[key], join([value, " ", spread]), title=source))
    return tag("tr", *line)


def _filtered(
    table: Html,
    name: str,
    choices: Sequence[tuple[str, int, list[str]]],
    rows: int,
    chosen: dict[str, str] | None = None,
) -> Html:
    """A table with a row of controls above it: for each choice heading, column and words; and free text."""
    chosen = chosen or {}
    controls = []
    for heading, column, words in choices:
        options = [tag("option", "all", value="")]
        options += [tag("option", word, value=word, selected=word == chosen.get(heading)) for word in words]
        controls.append(tag("label", f"{heading} ", tag("select", *options, data_column=column)))
    controls.append(tag("label", "containing ", tag("input", type="search", autocomplete="off")))
    told = tag("output", f"{rows:,} rows", aria_live="polite")
    return join([tag("form", *controls, told, class_="filter", hidden=True, data_table=name), table])


def _baselines(found: Findings) -> Iterator[Html]:
    """What deciding without looking at the image would give."""
    if not found.metrics:
        return
    run, record = next(iter(found.metrics.items()))
    rules = record.get("baselines", {}).get("single_decision", {})
    if not rules:
        return
    headings = {metric.name: metric.heading for metric in catalogue.baselines()}
    rows = [
        tag("tr", tag("th", rule.replace("_", " "), scope="row"), *(_fixed(values[key]) for key in headings))
        for rule, values in rules.items()
    ]
    yield tag("h3", "Decisions that look at no image")
    yield tag("p", "To hold the table above against: a rule that beats none of these has learnt nothing.")
    heads = [("decision", False), *((heading, True) for heading in headings.values())]
    yield markup.table(heads, rows, about="Baselines")
    yield _source(f"metrics/runs/{run.name}.json", keys="baselines.single_decision")


# --- Comparisons


def _comparisons(found: Findings) -> Iterator[Html]:
    if found.page:
        without_title = found.page.split("\n", 1)[1] if found.page.startswith("# ") else found.page
        yield markup.from_markdown(without_title, level=2, source="metrics/comparisons/comparisons.md")
        yield _source(contents.PAGE)
    if found.compared:
        yield tag("h3", "All numbers of the comparisons")
        yield tag("p", "Each line is one of a CSV file; point at a line to see which.")
    for name, frame in found.compared.items():
        path = contents.PAGE.with_name(f"{name}.csv")
        yield _more(
            f"{contents.COMPARISONS[name]}: {len(frame):,} rows of {path}", _frame(frame, path, f"{name}-table")
        )


def _frame(frame: pandas.DataFrame, path: Path, name: str) -> Html:
    """A whole CSV file as a table that can be sorted and filtered."""
    words = [column for column in frame if column in contents.WORDS]
    empty = [column for column in frame if frame[column].isna().all() or (frame[column] == "").all()]
    shown = [column for column in frame if column not in empty]
    rows = []
    for number, row in enumerate(frame[shown].to_dict("records")):
        line = [tag("td", _name(row[column])) if column in words else _number(row[column]) for column in shown]
        rows.append(tag("tr", *line, title=f"{path}, line {number + 2}"))
    heads = []
    for column in shown:
        number = column not in words
        told = HEADINGS.get(column, column.replace("_", " "))
        heads.append((tag("th", told, scope="col", class_="n" if number else None, title=column), number))
    choices = [
        (column, shown.index(column), list(dict.fromkeys(frame[column])))
        for column in ("backbone", "loss", "rule", "label", "metric", "verdict", "reading")
        if column in shown
    ]
    first = {"metric": frame["metric"].iloc[0]} if "metric" in shown and len(frame) > markup.LONGEST else {}
    table = markup.table(heads, rows, about=str(path), id=name)
    return join([_filtered(table, name, choices, len(rows), first), _source(path, keys=", ".join(shown))])


# --- Pictures


def _embedded(content: bytes, kind: str, **attributes: Any) -> Html:
    code = base64.b64encode(content).decode()
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    return tag("img", src=f"data:image/{kind};base64,{code}", **{"width": width, "height": height, **attributes})


def _figure(figure: Figure) -> Html:
    with Image.open(figure.png) as image:
        width, height = (round(side * 96 / DPI) for side in image.size)
    picture = _embedded(
        figure.png.read_bytes(),
        "png",
        alt=f"{figure.title}. The numbers are in {figure.csv}.",
        width=width,
        height=height,
    )
    caption = tag("figcaption", tag("strong", f"{figure.title}. "), figure.caption)
    return join(
        [
            tag("figure", markup.scrolling(picture, figure.title), caption, id=f"figure-{_anchor(figure.stem)}"),
            _source(figure.csv, figure.png),
        ]
    )


def _anchor(stem: Path) -> str:
    return "-".join(stem.parts[1:])


def _shrunk(path: Path) -> bytes:
    """A picture as WebP, no wider than WIDEST."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80, method=4)
    return out.getvalue()


def _thumbnail(pixels: numpy.ndarray) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _mistakes(found: Findings, images: Any) -> Iterator[Html]:
    run = contents.shown_run(found)
    if run is None:
        yield tag("p", "No run to take mistakes from.")
        return
    record = found.metrics[run]
    yield tag(
        "p", f"Of the run {run.name}: the configuration of the headline, and of its seeds the best on validation images. The least "
        f"severe are mistakes all the same. Severity is measured in {record['cost']}."
        f"{'' if found.images else ' There are no images to show.'}",
    )  # fmt: skip
    for rule, told in record["rules"].items():
        yield tag("h3", f"Rule {rule}")
        for end, heading in ENDS.items():
            yield tag("h4", heading)
            mistakes = told[end]
            if not mistakes:
                yield tag("p", "None: every decision was right.")
                continue
            pictures = images([each["id"] for each in mistakes]) if images else [None] * len(mistakes)
            yield tag(
                "ul",
                *(tag("li", _mistake(each, picture)) for each, picture in zip(mistakes, pictures, strict=True)),
                class_="gallery",
            )
            yield _source(f"metrics/runs/{run.name}.json", keys=f"rules.{rule}.{end}")
    figure = next((each for each in found.figures if each.stem.name == "mistakes"), None)
    if figure:
        yield _more("As one picture", _figure(figure))


def _mistake(mistake: dict[str, Any], pixels: numpy.ndarray | None) -> Html:
    truth = ", ".join(mistake["truth"])
    caption = tag(
        "figcaption",
        tag("strong", mistake["decision"]),
        f" for {truth}. Severity {_digits(mistake['severity'])}. ",
        tag("small", mistake["id"]),
    )
    if pixels is None:
        return tag("figure", caption)
    alt = f"Image of {truth}, taken for {mistake['decision']}"
    return tag("figure", _embedded(_thumbnail(pixels), "png", alt=alt), caption)


def _cases(found: Findings) -> Iterator[Html]:
    if not found.explained:
        yield tag("p", "None.")
    for run, told in found.explained.items():
        folder = contents.EXPLAINED / run
        rule = told["rule"].iloc[0] if len(told) else ""
        yield tag("p", f"{len(told)} images of the run {run} under {rule}.")
        for case in told.head(CASES).to_dict("records"):
            yield _case(case, folder)
        left = told["case"].iloc[CASES:]
        if len(left):
            yield tag("p", f"{len(left)} more are in {folder}: {', '.join(left)}.")
        yield _source(folder / "index.csv")


def _case(case: dict[str, Any], folder: Path) -> Html:
    heading = f"{case['case'].replace('_', ' ')}: {case['decision']} for {case['truth']}, severity {_digits(case['severity'])}"
    parts: list[Any] = [tag("p", f"Image {case['id']} ({case['split']}); probability {_digits(case['posterior'], 3)}.")]
    for suffix, words in (("", "paths in the tree and Grad-CAM"), ("_maps", "feature maps")):
        path = folder / f"{case['case']}{suffix}.png"
        if path.exists():
            alt = f"{heading}: {words}. The numbers are in {path.with_suffix('.csv')}."
            parts.append(markup.scrolling(_embedded(_shrunk(path), "webp", alt=alt, loading="lazy"), words))
            parts.append(_source(path, path.with_suffix(".csv")))
    return _more(heading, *parts)


# --- Data card and runs


def _card(found: Findings) -> Iterator[Html]:
    if not found.card:
        yield tag("p", "There is none.")
        return
    yield join(_figure(each) for each in found.card_figures)
    without_title = found.card.split("\n", 1)[1] if found.card.startswith("# ") else found.card
    yield _more("The whole card", markup.from_markdown(without_title, level=2, source=str(contents.CARD)))
    yield _source(contents.CARD, contents.CARD.with_name("card.json"))


def _runs(found: Findings) -> Iterator[Html]:
    for run in found.scored:
        yield _more(run.name, *_run(found, run))


def _run(found: Findings, run: Run) -> Iterator[Html]:
    metrics, record = found.metrics.get(run), found.records.get(run)
    if metrics:
        counts = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in metrics["counts"].items())
        yield _facts(
            [
                ("Data set, tree, cost", f"{metrics['dataset']}, {metrics['hierarchy']}, {metrics['cost']}"),
                ("Test images", counts),
                ("Class hash", tag("code", metrics["class_hash"])),
                ("Macro-AUROC", _digits(metrics["macro_auroc"])),
                ("Macro-AUROC, validation", _digits(metrics["validation"]["macro_auroc"])),
                *(
                    (
                        rule,
                        ", ".join(
                            f"{metric.name.replace('_', ' ')} {_digits(told[metric.name])}"
                            for metric in catalogue.per_run()
                        ),
                    )
                    for rule, told in metrics["rules"].items()
                ),
            ]
        )
        yield _source(f"metrics/runs/{run.name}.json", keys="counts, class_hash, macro_auroc, validation, rules")
    else:
        yield tag("p", "No metrics.")
    if record:
        own = {key: record[key] for key in ("backbones", "losses", "train", "prepared", "versions") if key in record}
        told = yaml.safe_dump(own, sort_keys=False, allow_unicode=True, width=72)
        yield tag("pre", told, tabindex="0")
        yield _source(f"data/models/{run.name}/record.json")
    elif run in found.trained:
        yield tag("p", "No record of its training.")
    else:
        yield tag("p", "external, not trained here.")
        yield _source(f"metrics/runs/{run.name}.json", keys="external")
