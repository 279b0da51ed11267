"""The benchmarks of training run in small, on a CPU, and write no page for one."""

import re

import numpy
import pytest
import torch
from PIL import Image

from benchmarks import gpu
from benchmarks import training as benchmark
from tests.checks import every

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
    assert every(float(each.replace(",", "")) > 0 for each in numbers.groups())


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


@pytest.mark.parametrize(("form", "ending"), [(form, ending) for form, (_, ending, _) in benchmark.FORMS.items()])
def test_both_ways_of_reading_give_as_many_images_as_they_say(tmp_path, monkeypatch, form, ending):
    monkeypatch.setitem(benchmark.FORMS, form, ((60, 50), ending, 3))
    paths = benchmark.files(tmp_path, form)
    assert benchmark.image_by_image(paths, 32, "L")() == benchmark.image_by_image(paths, 32, "RGB")() == 3
    with Image.open(paths[0]) as image:
        assert image.size == (60, 50) and image.mode == "L"
    seen = []
    count = benchmark.from_map(benchmark.mapped(tmp_path, 20, 32), lambda block: seen.append(len(block)))()
    assert sum(seen) == count


def test_ratios_are_those_of_the_turns(monkeypatch):
    spent = [0, 9, 9, 99, 100, 102, 102, 105, 200, 202, 202, 206]
    for name, ticks in (("process_time", spent), ("perf_counter", [10 * tick**2 for tick in spent])):
        monkeypatch.setattr(benchmark.time, name, iter(ticks).__next__)
    runs = []
    clock, processor = benchmark.compared(runs.append, runs.append, 2, torch.device("cpu"))
    assert processor == (2, 3.5, pytest.approx(1.75)) and runs == [0, 0, 1, 1, 2, 2]
    first, second = (4040, 8040), (6210, 16320)  # 10 (102^2 - 100^2), 10 (202^2 - 200^2); and so on
    assert clock == (6040, 11265, pytest.approx((second[0] / first[0] + second[1] / first[1]) / 2))


def test_rates_are_taken_in_turns_without_the_warm_up(monkeypatch):
    ticks = iter([0, 1, 1, 3, 10, 12, 12, 13, 20, 21, 21, 26])
    monkeypatch.setattr(benchmark.time, "process_time", lambda: next(ticks))
    ran = []
    found = benchmark.per_second({"a": lambda: ran.append("a") or 6, "b": lambda: ran.append("b") or 10}, 2)
    assert ran == ["a", "b"] * 3 and found == {"a": [3, 6], "b": [10, 2]}
