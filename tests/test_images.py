"""Augmentation: laws of every step of it; and batches read ahead from a memory map."""

import itertools
import threading

import numpy
import pytest
import torch

from severity.networks import loading
from severity.networks.images import Augmentation, scaled

OFF = {
    "flip": 0.0, "rotation": 0.0, "translation": 0.0, "scale": 0.0, "brightness": 0.0, "contrast": 0.0,
    "gamma": 0.0, "noise": 0.0, "erase": 0.0, "erase_area": 0.3,
}  # fmt: skip
# Each step by itself, strongly; and all together.
SOME = {
    "flip": {"flip": 0.5}, "rotation": {"rotation": 90.0}, "translation": {"translation": 0.3}, "scale": {"scale": 0.3},
    "brightness": {"brightness": 0.3}, "contrast": {"contrast": 0.6}, "gamma": {"gamma": 1.0}, "noise": {"noise": 0.2},
    "erase": {"erase": 0.5},
}  # fmt: skip
SOME["all"] = {name: value for each in SOME.values() for name, value in each.items()}


def images(count: int = 40, height: int = 16, width: int = 16) -> torch.Tensor:
    """Grey levels away from black and white, so that nothing is clipped that should be seen."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(90, 166, (count, height, width), dtype=torch.uint8, generator=generator)


def apply(batch: torch.Tensor, seed: int = 3, **ranges: float) -> torch.Tensor:
    return Augmentation(**{**OFF, **ranges})(batch, torch.Generator().manual_seed(seed))


def test_off_is_the_identity():
    assert torch.equal(apply(images()), scaled(images()))


@pytest.mark.parametrize("ranges", SOME.values(), ids=SOME)
def test_the_seed_repeats_images_differ_and_shape_and_range_stay(ranges):
    same = images(1, 16, 24).expand(40, -1, -1)
    first, second = apply(same, **ranges), apply(same, **ranges)
    assert torch.equal(first, second) and first.shape == (40, 1, 16, 24)
    assert not torch.equal(first, apply(same, seed=4, **ranges))
    assert any(not torch.equal(first[0], other) for other in first)
    assert first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("ranges", SOME.values(), ids=SOME)
def test_no_image_depends_on_the_others(ranges):
    batch = images()
    others = batch.roll(1, dims=0).clone()
    others[7] = batch[7]
    assert torch.equal(apply(batch, **ranges)[7], apply(others, **ranges)[7])


@pytest.mark.parametrize("ranges", [{**SOME["all"], "noise": 0.0}], ids=["all but noise"])
def test_few_images_at_a_time_are_the_same_as_all_at_once(monkeypatch, ranges):
    batch = images(23, 24, 40)
    whole = apply(batch, **ranges)
    monkeypatch.setattr("severity.networks.images.AT_ONCE", 4000)
    assert torch.equal(apply(batch, **ranges), whole)
    monkeypatch.setattr("severity.networks.images.AT_ONCE", 10)  # less than one image
    assert torch.equal(apply(batch, **ranges), whole)


@pytest.mark.parametrize(("later", "earlier"), [("gamma", "rotation"), ("noise", "contrast"), ("erase", "flip")])
def test_a_step_that_comes_later_does_not_move_an_earlier_one(later, earlier):
    # Outside the rectangle, for noise on the mean, for a power after undoing it: the earlier step is seen unchanged.
    before = apply(images(), **SOME[earlier])
    after = apply(images(), **SOME[earlier], **SOME[later])
    if later == "gamma":
        exponent = after[:, :, 8, 8].log() / before[:, :, 8, 8].log()
        assert torch.allclose(before ** exponent.view(-1, 1, 1, 1), after, atol=1e-4)
    elif later == "noise":
        assert (after - before).mean().abs() < 0.01
    else:
        assert 0.5 < (after == before).float().mean() < 1


def test_flip_mirrors_left_and_right_about_as_often_as_asked():
    batch = images(400)
    found, kept_as_given = apply(batch, flip=0.25)[:, 0], batch.clone()
    grey = scaled(batch)[:, 0]
    mirrored = torch.tensor([torch.equal(new, old.flip(1)) for new, old in zip(found, grey, strict=True)])
    kept = torch.tensor([torch.equal(new, old) for new, old in zip(found, grey, strict=True)])
    assert (mirrored | kept).all()
    assert 0.18 < mirrored.float().mean() < 0.32
    assert torch.equal(apply(batch, flip=1.0), scaled(batch.flip(2)))
    assert torch.equal(batch, kept_as_given)


def test_geometry_is_torchs_own_affine_grid():
    augment = Augmentation(**{**OFF, **SOME["rotation"], **SOME["translation"], **SOME["scale"]})
    for height, width in ((16, 16), (17, 31), (64, 40)):
        batch = images(5, height, width)
        draws = torch.rand(5, 6, generator=torch.Generator().manual_seed(3)).mul_(2).sub_(1)
        grid = torch.nn.functional.affine_grid(augment._affine(draws), [5, 1, height, width], align_corners=False)
        expected = torch.nn.functional.grid_sample(scaled(batch), grid, padding_mode="border", align_corners=False)
        assert torch.equal(augment(batch, torch.Generator().manual_seed(3)), expected)


def test_rotation_turns_by_the_angle_drawn():
    quarter = Augmentation(**{**OFF, "rotation": 90.0})
    image = scaled(images(1))
    turned = quarter._affine(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
    grid = torch.nn.functional.affine_grid(turned, [1, 1, 16, 16], align_corners=False)
    found = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    assert torch.allclose(found, torch.rot90(image, 1, (2, 3)), atol=1e-5) or torch.allclose(
        found, torch.rot90(image, -1, (2, 3)), atol=1e-5
    )


def test_brightness_shifts_contrast_spreads_about_the_mean_gamma_is_a_power():
    block = images()
    batch = scaled(block)
    shift = apply(block, brightness=0.2) - batch
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-6)
    assert -0.2 <= shift.min() < -0.1 and 0.1 < shift.max() <= 0.2
    mean = batch.mean(dim=(2, 3), keepdim=True)
    spread = apply(block, contrast=0.5)
    factor = (spread - mean)[:, :, 0, 0] / (batch - mean)[:, :, 0, 0]
    assert torch.allclose(spread, (batch - mean) * factor.view(-1, 1, 1, 1) + mean, atol=1e-4)
    assert 0.5 <= factor.min() < 0.8 and 1.2 < factor.max() <= 1.5
    exponent = apply(block, gamma=1.0)[:, :, 0, 0].log() / batch[:, :, 0, 0].log()
    assert 0.5 <= exponent.min() < 0.7 and 1.5 < exponent.max() <= 2.0


def test_noise_has_at_most_the_deviation_asked_and_is_not_the_same_twice():
    flat = torch.full((60, 64, 64), 128, dtype=torch.uint8)
    noise = apply(flat, noise=0.1) - scaled(flat)
    deviations = noise.std(dim=(1, 2, 3))
    assert deviations.max() < 0.105 and deviations.max() > 0.08 and deviations.min() < 0.02
    assert noise.mean().abs() < 1e-3
    first, second = noise[:2].flatten(1) / deviations[:2, None]
    assert (first * second).mean().abs() < 0.1


def test_erasing_covers_one_rectangle_with_the_mean():
    block = images(300, 32, 48)
    batch, found = scaled(block), apply(block, erase=0.5, erase_area=0.3)
    covered = found != batch
    touched = covered.flatten(1).any(dim=1)
    assert 0.4 < touched.float().mean() < 0.6
    for new, old, where in itertools.islice(zip(found[touched], batch[touched], covered[touched], strict=True), 40):
        rows, columns = where[0].any(dim=1).nonzero().flatten(), where[0].any(dim=0).nonzero().flatten()
        assert where[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert torch.allclose(new[where], old.mean().expand(int(where.sum())), atol=1e-6)
    shares = covered.flatten(1).float().mean(dim=1)[touched]
    assert 0.2 < shares.max() < 0.36 and shares.min() < 0.05


class TestReadAhead:
    CPU = torch.device("cpu")

    def arrays(self, folder) -> tuple[numpy.ndarray, numpy.ndarray]:
        random = numpy.random.default_rng(0)
        numpy.save(folder / "images.npy", random.integers(0, 256, (50, 5, 7), dtype=numpy.uint8))
        return numpy.load(folder / "images.npy", mmap_mode="r"), random.random((30, 4), dtype=numpy.float32)

    def test_every_batch_comes_in_order_and_whole(self, tmp_path):
        images, targets = self.arrays(tmp_path)
        random = numpy.random.default_rng(1)
        picks = [(random.integers(0, 50, size), random.integers(0, 30, size)) for size in (4, 9, 1, 6, 9, 3, 0, 2)]
        found = loading.read_ahead((images, targets), picks, self.CPU)
        for (rows, places), (block, labels) in zip(picks, found, strict=True):
            assert numpy.array_equal(block.numpy(), images[rows]) and block.dtype == torch.uint8
            assert numpy.array_equal(labels.numpy(), targets[places])

    @pytest.mark.parametrize("count", [0, 1, 2, 3])
    def test_fewer_batches_than_are_read_ahead(self, tmp_path, count):
        images, _ = self.arrays(tmp_path)
        picks = [(numpy.array([number]),) for number in range(count)]
        found = [int(block[0, 0, 0]) for (block,) in loading.read_ahead((images,), picks, self.CPU)]
        assert found == images[:count, 0, 0].tolist()

    @pytest.mark.parametrize("row", [-1, 50])
    def test_a_row_that_is_not_there_is_an_error(self, tmp_path, row):
        images, _ = self.arrays(tmp_path)
        with pytest.raises(IndexError, match="an array that has 50"):
            list(loading.read_ahead((images,), [(numpy.array([3, row]),)], self.CPU))

    def test_one_left_half_way_leaves_no_thread(self, tmp_path):
        images, _ = self.arrays(tmp_path)
        before = threading.active_count()
        found = loading.read_ahead((images,), [(numpy.array([number]),) for number in range(9)], self.CPU)
        next(found)
        assert threading.active_count() == before + 1
        found.close()
        assert threading.active_count() == before
