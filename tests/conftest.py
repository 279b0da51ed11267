"""What all tests share: settings of the property tests, and where real data may lie."""

import os
from pathlib import Path

import hypothesis
import pytest

# One thread a process: processes side by side get in each other's way otherwise. Set before torch and numpy are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

# Derandomised: a test that fails, fails for everyone. No deadline: these machines are noisy.
hypothesis.settings.register_profile("severity", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("severity")

SHARED = Path(os.environ.get("SEVERITY_SHARED_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data():
    """A function from the name of a folder of real data to its path; skips the test when it is not there."""

    def find(name: str) -> Path:
        if not (SHARED / name).is_dir():
            pytest.skip(f"no real data at {SHARED / name}; set SEVERITY_SHARED_DATA to the folder that holds {name}")
        return SHARED / name

    return find


# The files that take longest, begun first, so that no process is left with one of them when the others are done.
LONGEST = ("test_pipeline.py", "test_reruns.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
