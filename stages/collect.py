"""Draw the phantom collection, or check a collection from outside and write its manifest.

Reads   params.yaml; the folder datasets.<name>.root of a collection from outside
Writes  data/raw/<name>
Run     python -m stages.collect
Time    seconds: the manifest of 223,648 images of CheXpert's form took 4 s on a local disk; drawing depends on the
        phantom
"""

import inspect
from pathlib import Path

from severity import datasets
from severity.core import errors, params, stale


def main() -> None:
    settings = params.load()
    stale.mark(settings)
    name = settings["data"]["name"]
    section = settings["datasets"][name]
    out = Path("data/raw") / name
    collect = datasets.find(section.get("kind", name)).collect
    # Collections that are drawn are drawn by several processes; those of one's own may go by any name.
    known = {"workers": settings["machine"]["workers"], "section": f"datasets.{name}"}
    shared = known.keys() & inspect.signature(collect).parameters.keys()
    images = collect(section["root"], out, **section["collect"], **{key: known[key] for key in shared})
    print(f"{out}: {images} images")


if __name__ == "__main__":
    errors.run(main)
