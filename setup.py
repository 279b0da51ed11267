"""What of the package pyproject.toml cannot say: facts from CITATION.cff, their one home, and where the trees are."""

from pathlib import Path

import yaml
from setuptools import find_packages, setup

CITATION = yaml.safe_load(Path(__file__).with_name("CITATION.cff").read_text(encoding="utf-8"))

setup(
    version=CITATION["version"],
    description=CITATION["title"],
    license=CITATION["license"],
    keywords=CITATION["keywords"],
    author=", ".join(author["name"] for author in CITATION["authors"]),
    # Installed, the hand-written trees lie inside the package, where severity.read_tree finds them.
    packages=[*find_packages(include=["severity", "severity.*"]), "severity.hierarchies"],
    package_dir={"severity.hierarchies": "data/hierarchies"},
    package_data={"severity": ["**/*.html", "**/*.css", "**/*.js"], "severity.hierarchies": ["*.yaml"]},
)
