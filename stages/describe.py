"""Describe the prepared collection: the data card.

Reads   params.yaml; data/images, data/prepared
Writes  metrics/data/: card.json, card.md to read, page.json for the report, labels.csv, cooccurrence.csv,
        violations.csv, near_duplicates.csv
        plots/data: of each figure <name>.png, .svg, .csv and .caption.txt (severity/figures/catalogue.py). Without
        images (severity/core/without_images.py) these say so, and metrics/data a note of it
Run     python -m stages.describe
Time    on 2 cores under a minute for 112,120 images of 64 x 64, of which 40 s go into comparing 3 billion pairs;
        thumbnails of 223,414 images of 224 x 224 take a minute
"""

from severity.collections import collection
from severity.core import errors, files, params, runs, tables, without_images
from severity.datacard import datacard, duplicates
from severity.datacard.figures import Card
from severity.drawing import pictures, short_names
from severity.figures import catalogue
from severity.prepared import decoded, prepared


def main() -> None:
    settings = params.load()
    if without_images.without_images(settings):
        why = without_images.leave_out("metrics/data")
        pictures.write_all(
            {name: pictures.left_out(name, why) for name in catalogue.of_stage("describe")}, "plots/data"
        )
        print(why)
        return
    table = prepared.read_table("data/prepared")
    summary = prepared.read_summary("data/prepared") | {"dataset": runs.title(settings)}
    boxes = tables.read("data/prepared/boxes.csv", collection.BOX, collection.BOX[2:], prepared.REMAKE)
    images = decoded.open_images("data/images")
    workers = settings["machine"]["workers"]
    near_duplicates = duplicates.find(images, table.frame, workers=workers, **settings["describe"])
    labels, together, broken = datacard.label_table(summary), datacard.cooccurrence(table), datacard.violations(summary)
    card = datacard.card(table, summary, decoded.read_summary("data/images"), boxes, near_duplicates)
    with files.replacing("metrics/data") as folder:
        folder.mkdir()
        files.write_json(folder / "card.json", card)
        page = datacard.page(card, broken, near_duplicates.pairs)
        files.write_text(folder / "card.md", page.markdown())
        page.write(folder / "page.json")
        files.write_csv(folder / "labels.csv", labels)
        files.write_csv(folder / "cooccurrence.csv", together)
        files.write_csv(folder / "violations.csv", broken)
        files.write_csv(folder / "near_duplicates.csv", near_duplicates.pairs)
    study = Card(table, labels, together, near_duplicates, images, card["dataset"])
    drawn = short_names.drawn(catalogue.draw, "describe", study, names=table.labels)
    pictures.write_all(drawn, "plots/data")
    print(datacard.sentence(card))


if __name__ == "__main__":
    errors.run(main)
