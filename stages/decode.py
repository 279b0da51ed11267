"""Decode and resize every image once.

Reads   params.yaml; data/collection/images.csv, data/raw/<name>; the folder datasets.<name>.root
Writes  data/images (see severity/prepared/decoded.py); meanwhile data/unfinished, from which a stopped run resumes.
        Without images (severity/core/without_images.py): a note of that
Run     python -m stages.decode
Time    on 2 cores, 224 px: CheXpert-v1.0-small 2 to 3 minutes (1,500 images/s and more), ChestX-ray14's 1024 px
        originals 10 to 20 minutes; 11 GB of disk for 223,648 images. A stopped run resumes where it was
"""

from severity.collections import collection
from severity.core import errors, params, stale, without_images
from severity.decoding import storage


def main() -> None:
    settings = params.load()
    stale.mark(settings)
    if without_images.without_images(settings):
        print(without_images.leave_out("data/images"))
        return
    name = settings["data"]["name"]
    summary = storage.decode(
        "data/images",
        collection.read_images("data/collection"),
        dataset=name,
        root=settings["datasets"][name]["root"],
        workers=settings["machine"]["workers"],
        scratch="data/unfinished",
        **settings["decode"],
    )
    print(storage.sentence(summary))


if __name__ == "__main__":
    errors.run(main)
