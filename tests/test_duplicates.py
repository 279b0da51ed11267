"""Near-duplicates across splits: hashes and correlations against other code, laws, planted copies, real pictures."""

import hashlib
import itertools

import imagehash
import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.ndimage import gaussian_filter

from severity.collections.splits import SPLITS
from severity.core.errors import SeverityError
from severity.datacard import duplicates
from severity.decoding import decoding
from tests.checks import every

LIMITS = {"hash_distance": 10, "correlation": 0.985, "workers": 1}
SIZE = 64


def smooth(count, seed=0, size=SIZE):
    """Unrelated pictures (count, size, size) uint8 whose gray levels change slowly, as in radiographs."""
    noise = gaussian_filter(numpy.random.default_rng(seed).normal(size=(count, size, size)), (0, size / 12, size / 12))
    low, high = noise.min(axis=(1, 2), keepdims=True), noise.max(axis=(1, 2), keepdims=True)
    return (40 + 170 * (noise - low) / (high - low)).astype(numpy.uint8)


def table_of(splits):
    rows = [(f"image{row}", f"patient{row}", split) for row, split in enumerate(splits)]
    return pandas.DataFrame(rows, columns=["id", "patient", "split"])


def found_rows(found):
    return set(found.pairs[["id", "other_id"]].itertuples(index=False, name=None))


def brute_force(images, table, hash_distance, correlation):
    """All pairs one by one, by ImageHash's own distance and numpy's own correlation."""
    thumbnails = [Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS) for image in images]
    hashes = [imagehash.phash(Image.fromarray(image)) for image in images]
    rows = {}
    for i, j in itertools.combinations(range(len(images)), 2):
        if table["split"][i] != table["split"][j]:
            likeness = numpy.corrcoef(*(numpy.asarray(thumbnails[row], float).ravel() for row in (i, j)))[0, 1]
            if hashes[i] - hashes[j] <= hash_distance and likeness >= correlation:
                one, other = sorted((i, j), key=lambda row: SPLITS.index(table["split"][row]))
                rows[table["id"][one], table["id"][other]] = (hashes[i] - hashes[j], likeness)
    return rows


# Thumbnails, hashes, correlations


def test_hashes_are_those_of_the_library_and_thumbnails_those_of_pillow():
    images = smooth(20, size=100)
    found = duplicates.shrink(images, workers=2)
    assert len(found) == 20 and found.pixels.shape == (20, 1024)
    for row, image in enumerate(images):
        assert f"{found.hashes[row]:016x}" == str(imagehash.phash(Image.fromarray(image)))
        small = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS)
        numpy.testing.assert_array_equal(found.pixels[row].reshape(32, 32), numpy.asarray(small))


@given(arrays(numpy.uint8, st.tuples(st.just(2), st.integers(1, 6), st.integers(2, 40))))
def test_correlations_against_numpy(pictures):
    first, second = pictures
    found = duplicates.correlations(first, second)
    numpy.testing.assert_array_equal(found, duplicates.correlations(second, first))
    for one, other, value in zip(first, second, found, strict=True):
        flat = [len(set(each)) == 1 for each in (one, other)]
        expected = float(all(flat)) if any(flat) else numpy.corrcoef(one.astype(float), other.astype(float))[0, 1]
        assert value == pytest.approx(expected, abs=1e-12)


def test_the_brightest_pictures_do_not_overflow():
    bright = numpy.full((1, 2**15), 255, numpy.uint8)
    bright[0, 0] = 0
    other = bright[:, ::-1].copy()
    expected = numpy.corrcoef(bright[0].astype(float), other[0].astype(float))[0, 1]
    assert duplicates.correlations(bright, bright) == [1.0]
    assert duplicates.correlations(bright, other) == pytest.approx(expected, abs=1e-12)


# What is found


def test_planted_copies_are_found_and_unrelated_pictures_are_not():
    images = smooth(150)
    table = table_of(numpy.resize(["train", "train", "validation", "test"], 150))
    assert duplicates.find(images, table, **LIMITS).pairs.empty
    images[[3, 50, 99]] = images[[0, 1, 2]]  # test of train, validation of train, test of validation
    found = duplicates.find(images, table, **LIMITS)
    assert found_rows(found) == {("image0", "image3"), ("image1", "image50"), ("image2", "image99")}
    assert found.counts == {"train-validation": 1, "train-test": 1, "validation-test": 1}
    assert found.pairs["hash_distance"].tolist() == [0, 0, 0] and found.pairs["correlation"].tolist() == [1, 1, 1]
    assert tuple(found.pairs.columns) == duplicates.HEADER
    first = found.pairs.iloc[0]
    assert (first["split"], first["patient"]) == ("train", "patient0")
    assert (first["other_split"], first["other_patient"]) == ("test", "patient3")


def test_noise_is_not_found():
    images = numpy.random.default_rng(0).integers(0, 256, (300, 32, 32), dtype=numpy.uint8)
    assert duplicates.find(images, table_of(["train", "validation", "test"] * 100), **LIMITS).pairs.empty


@pytest.mark.parametrize(("hash_distance", "correlation"), [(10, 0.985), (20, 0.5), (64, 0.9), (12, 0.0)])
def test_against_brute_force(hash_distance, correlation):
    images = smooth(40, seed=1)
    noise = numpy.random.default_rng(2).integers(-6, 7, (10, SIZE, SIZE))
    images[30:] = numpy.clip(images[:10].astype(int) + noise, 0, 255)
    table = table_of([*numpy.resize(SPLITS, 30), *numpy.resize(SPLITS[::-1], 10)])
    found = duplicates.find(images, table, hash_distance=hash_distance, correlation=correlation, workers=1)
    expected = brute_force(images, table, hash_distance, correlation)
    assert expected and found_rows(found) == set(expected)
    for row in found.pairs.itertuples():
        distance, likeness = expected[row.id, row.other_id]
        assert (row.hash_distance, row.correlation) == (distance, pytest.approx(likeness, abs=1e-12))
    assert found.pairs["correlation"].is_monotonic_decreasing


def test_copies_within_a_split_are_not_told():
    images = smooth(6)
    images[3:] = images[:3]
    assert duplicates.find(images, table_of(["train"] * 6), **LIMITS).pairs.empty
    split = ["train", "validation", "test"] * 2
    found = duplicates.find(images, table_of(split), **LIMITS)
    assert found.pairs.empty and found.counts == dict.fromkeys(found.counts, 0) and len(found.counts) == 3


CHANGES = {
    "brighter": lambda image: image + 20,
    "darker": lambda image: image - 20,
    "less contrast": lambda image: 128 + 0.7 * (image - 128.0),
    "more contrast": lambda image: 128 + 1.2 * (image - 128.0),
    "moved to the right": lambda image: numpy.hstack([image[:, :1], image[:, :-1]]),
    "moved up": lambda image: numpy.vstack([image[1:], image[-1:]]),
    "half the size": lambda image: numpy.repeat(numpy.repeat(image[::2, ::2], 2, axis=0), 2, axis=1),
}
NOT_FOUND = {
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "a quarter turn": lambda image: numpy.rot90(image),
    "inverted": lambda image: 255 - image,
}


def changed(change):
    """Found pairs of 12 training pictures and as many changed test pictures, and the right ones."""
    images = smooth(12, seed=3, size=128)
    copies = numpy.stack([numpy.clip(change(image.astype(int)), 0, 255).astype(numpy.uint8) for image in images])
    table = table_of(["train"] * 12 + ["test"] * 12)
    found = duplicates.find(numpy.concatenate([images, copies]), table, **LIMITS)
    return found_rows(found), {(f"image{row}", f"image{row + 12}") for row in range(12)}


@pytest.mark.parametrize("change", CHANGES)
def test_small_changes_do_not_hide_a_copy(change):
    found, right = changed(CHANGES[change])
    assert found == right


@pytest.mark.parametrize("change", NOT_FOUND)
def test_what_the_documentation_says_is_not_found(change):
    found, _ = changed(NOT_FOUND[change])
    assert not found


def test_pictures_of_one_gray_level_are_like_each_other_alone():
    images = smooth(4)
    images[0], images[1] = 0, 90
    found = duplicates.find(images, table_of(["train", "test", "test", "validation"]), **LIMITS)
    assert found_rows(found) == {("image0", "image1")} and found.pairs["correlation"].tolist() == [1.0]


# Laws


def planted(count=90, copies=25):
    """Pictures of all splits of which the last few are noisy copies of the first."""
    images = smooth(count, seed=5)
    random = numpy.random.default_rng(6)
    images[-copies:] = numpy.clip(images[:copies] + random.integers(-6, 7, (copies, SIZE, SIZE)), 0, 255)
    return images, table_of(random.choice(SPLITS, count))


def test_the_relation_is_symmetric():
    images, table = planted()
    found = duplicates.find(images, table, **LIMITS)
    swapped = table.assign(split=table["split"].replace({"train": "test", "test": "train"}))
    other = duplicates.find(images, swapped, **LIMITS)
    values = {(row.id, row.other_id): (row.hash_distance, row.correlation) for row in found.pairs.itertuples()}
    assert len(values) > 5
    assert values == {(r.other_id, r.id): (r.hash_distance, r.correlation) for r in other.pairs.itertuples()}
    assert found.counts["train-validation"] == other.counts["validation-test"]


def test_neither_threads_nor_steps_change_the_result(monkeypatch):
    images, table = planted()
    wanted = duplicates.find(images, table, **LIMITS)
    for workers in (0, 3):
        again = duplicates.find(images, table, **(LIMITS | {"workers": workers}))
        pandas.testing.assert_frame_equal(again.pairs, wanted.pairs, check_exact=True)
    for name, value in (("ROWS", 7), ("COLUMNS", 5), ("CANDIDATES", 2), ("CHUNK", 11)):
        monkeypatch.setattr(duplicates, name, value)
    again = duplicates.find(images, table, **LIMITS)
    pandas.testing.assert_frame_equal(again.pairs, wanted.pairs, check_exact=True)
    assert again.counts == wanted.counts


@pytest.mark.parametrize("listed", [10_000, 500, 37, 1])
def test_pictures_stored_many_times_are_compared_once_and_every_pair_counts(monkeypatch, listed):
    pictures = smooth(6, seed=4)
    random = numpy.random.default_rng(5)
    images = pictures[random.integers(0, 6, 120)]
    images[7] = numpy.clip(images[7].astype(int) + 2, 0, 255)  # like its copies, not equal to them
    table = table_of([SPLITS[number] for number in random.integers(0, 3, 120)])
    expected = brute_force(images, table, LIMITS["hash_distance"], LIMITS["correlation"])
    compared = []
    search = duplicates.search
    monkeypatch.setattr(duplicates, "search", lambda *some, **limits: compared.append(some) or search(*some, **limits))
    monkeypatch.setattr(duplicates, "LISTED", listed)
    found = duplicates.find(images, table, **LIMITS)
    assert sum(found.counts.values()) == len(expected) > 500 and len(found.pairs) == min(listed, len(expected))
    assert every(len(first) <= 7 and len(second) <= 7 for first, second in compared)
    row = {id: number for number, id in enumerate(table["id"])}
    order = sorted(expected, key=lambda pair: (-round(expected[pair][1], 9), expected[pair][0], *map(row.get, pair)))
    assert list(found.pairs[["id", "other_id"]].itertuples(index=False, name=None)) == order[:listed]


def test_what_is_not_listed_is_counted(monkeypatch):
    images, table = planted()
    whole = duplicates.find(images, table, **LIMITS)
    monkeypatch.setattr(duplicates, "LISTED", 4)
    some = duplicates.find(images, table, **LIMITS)
    pandas.testing.assert_frame_equal(some.pairs, whole.pairs.head(4), check_exact=True)
    assert some.counts == whole.counts and sum(some.counts.values()) == len(whole.pairs) > 4


def test_search_finds_exactly_the_hashes_within_the_distance():
    random = numpy.random.default_rng(0)
    hashes = random.integers(0, 2**64, 3000, dtype=numpy.uint64)
    near = hashes[:50].copy()
    for row in range(50):
        for bit in random.choice(64, row % 14, replace=False):
            near[row] ^= numpy.uint64(1) << numpy.uint64(bit)
    pixels = numpy.tile(numpy.arange(1024, dtype=numpy.uint8), (3000, 1))  # All alike: the hash alone decides.
    first, second = duplicates.Thumbnails(pixels, hashes), duplicates.Thumbnails(pixels[:50], near)
    steps = list(duplicates.search(first, second, hash_distance=10, correlation=1.0))
    found = {(i, j, distance) for rows in steps for i, j, distance, _ in zip(*rows, strict=True)}
    expected = {(row, row, row % 14) for row in range(50) if row % 14 <= 10}
    assert expected <= found
    for i, j, distance in found:
        assert (int(hashes[i]) ^ int(near[j])).bit_count() == distance <= 10


def test_images_mapped_from_a_file_are_only_read(tmp_path):
    images, table = planted()
    path = tmp_path / "images.npy"
    numpy.save(path, images)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    found = duplicates.find(numpy.load(path, mmap_mode="r+"), table, **LIMITS)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    read_only = duplicates.find(numpy.load(path, mmap_mode="r"), table, **LIMITS)
    pandas.testing.assert_frame_equal(found.pairs, read_only.pairs, check_exact=True)
    numpy.save(path, numpy.concatenate([images[:1], images]))
    part = duplicates.find(numpy.load(path, mmap_mode="r")[1:], table, **LIMITS)
    pandas.testing.assert_frame_equal(part.pairs, found.pairs, check_exact=True)


# What is refused


def test_images_of_another_table_are_refused():
    with pytest.raises(SeverityError, match="data/images holds 3 images, but the table of data/prepared 2 rows"):
        duplicates.find(smooth(3), table_of(["train", "test"]), **LIMITS)


# Real pictures


def read_folder(folder, size):
    """Names, patients and pictures of a folder of ChestX-ray14 images."""
    table = pandas.read_csv(folder / "labels.csv", dtype=str)
    pictures = [decoding.read_gray(folder / "images" / name) for name in table["Image Index"]]
    images = numpy.stack([numpy.asarray(each.resize((size, size), Image.Resampling.BILINEAR)) for each in pictures])
    return table["Image Index"].tolist(), table["Patient ID"].tolist(), images


@pytest.mark.parametrize("size", [64, 224])
def test_real_images_stored_at_two_resolutions_are_found_and_nothing_else(shared_data, size):
    small, small_patients, small_images = read_folder(shared_data("nih_cxr14_64"), size)
    large, large_patients, large_images = read_folder(shared_data("nih_cxr14_256"), size)
    table = pandas.DataFrame(
        {
            "id": [*(f"64/{name}" for name in small), *(f"256/{name}" for name in large)],
            "patient": [*small_patients, *large_patients],
            "split": ["train"] * len(small) + ["test"] * len(large),
        }
    )
    found = duplicates.find(numpy.concatenate([small_images, large_images]), table, **LIMITS)
    both = set(small) & set(large)
    assert len(both) == 5
    assert found_rows(found) == {(f"64/{name}", f"256/{name}") for name in both}


def test_pneumoniamnist_has_ten_training_images_among_its_validation_images(shared_data):
    stored = numpy.load(shared_data("pneumoniamnist_28") / "pneumoniamnist_rebuilt.npz")
    parts = [stored[f"{name}_images"] for name in ("train", "val", "test")]
    images = numpy.concatenate(parts)
    table = table_of(numpy.repeat(SPLITS, [len(part) for part in parts]))
    found = duplicates.find(images, table, **LIMITS)
    assert found.counts == {"train-validation": 10, "train-test": 0, "validation-test": 0}
    row_of = dict(zip(table["id"], images, strict=True))
    identical = [numpy.array_equal(row_of[row.id], row_of[row.other_id]) for row in found.pairs.itertuples()]
    assert sum(identical) == 10
