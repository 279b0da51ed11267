"""The benchmarks of training run in small, on a CPU, and write no page for one."""

import re

import numpy
import pytest
import torch

from benchmarks import gpu
from benchmarks import training as benchmark

SMALL = "--images 40 --size 32 --batch 8 --batches 2 --repeats 1 --precision float32 --device cpu --models test_resnet"


def test_the_page_of_a_card_is_written_where_it_is_told_and_nowhere_else(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "TOP", tmp_path)
    gpu.main([*SMALL.split(), "--scratch", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []
    gpu.main([*SMALL.split(), "--scratch", str(tmp_path), "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert page in capsys.readouterr().out
    assert page.startswith("# CPU\n") and "batch 8" in page
    numbers = re.search(r"\| `test_resnet` \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|", page)
    assert all(float(each.replace(",", "")) > 0 for each in numbers.groups())


def test_a_backbone_that_does_not_fit_is_said_so_and_the_others_go_on(tmp_path, monkeypatch):
    def full(made, images, batches):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(benchmark, "real", full)
    gpu.main([*SMALL.split(), "--scratch", str(tmp_path), "--out", str(tmp_path / "page.md")])
    assert "| `test_resnet` | out of memory |" in (tmp_path / "page.md").read_text()


def test_the_real_loop_and_the_resident_batch_make_the_same_number_of_steps(tmp_path, monkeypatch):
    images = benchmark.mapped(tmp_path, 50, 32)
    made = benchmark.engine("test_resnet", batch_size=8, precision="float32", on=torch.device("cpu"), compile=False)
    taken = []
    step = made.optimiser.step
    monkeypatch.setattr(made.optimiser, "step", lambda number: taken.append(number) or step(number))
    benchmark.real(made, images, 3)(0)
    assert len(taken) == 3
    benchmark.resident(made, 32, 3)(0)
    assert len(taken) == 6


def test_the_map_holds_what_was_asked_for(tmp_path):
    images = benchmark.mapped(tmp_path, 2100, 8)
    assert images.shape == (2100, 8, 8) and images.dtype == numpy.uint8 and images.std() > 50
    assert numpy.array_equal(images[2048:], images[:52])


def test_both_ways_of_reading_give_as_many_images_as_they_say(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FILES", 3)
    paths = benchmark.files(tmp_path)
    assert benchmark.image_by_image(paths, 32, "L")() == benchmark.image_by_image(paths, 32, "RGB")() == 3
    seen = []
    count = benchmark.from_map(benchmark.mapped(tmp_path, 20, 32), lambda block: seen.append(len(block)))()
    assert sum(seen) == count


def test_ratios_are_those_of_the_turns(monkeypatch):
    clock = iter([0, 9, 9, 99, 100, 102, 102, 105, 200, 202, 202, 206])
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(clock))
    runs = []
    found = benchmark.compared(runs.append, runs.append, 2, torch.device("cpu"))
    assert found == (2, 3.5, pytest.approx(1.75)) and runs == [0, 0, 1, 1, 2, 2]
