"""Training: it learns, repeats itself to the byte, resumes where it was killed, and says what went wrong."""

from pathlib import Path

import numpy
import pytest
import torch

from severity import checkpoint, costs, inference, losses, training
from severity.errors import SeverityError
from severity.images import Augmentation, batch
from severity.optimisation import Schedule
from severity.runs import Run, seed_for
from tests.trees import six_classes

OPTIONS = {
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "warmup_epochs": 0.5,
    "gradient_clip": 1.0,
    "precision": "float32",
    "device": "cpu",
    "augmentation": {"rotation": 5.0, "translation": 0.05, "scale": 0.05, "brightness": 0.05, "contrast": 0.1},
}
TREE = six_classes()


def collection(images: int = 120) -> tuple[numpy.ndarray, training.Split, training.Split]:
    """Small images whose class is where the bright bar stands; the last third is for validation."""
    random = numpy.random.default_rng(0)
    truth = random.integers(0, 6, images)
    pixels = random.integers(0, 60, (images, 12, 12), dtype=numpy.uint8)
    for image, place in zip(pixels, truth, strict=True):
        image[:, 2 * place : 2 * place + 2] += 150
    targets = numpy.eye(6, dtype=numpy.float32)[truth]
    rows = numpy.arange(images)
    cut = 2 * images // 3
    return pixels, training.Split(rows[:cut], targets[:cut]), training.Split(rows[cut:], targets[cut:])


def network(outputs: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(144, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(),
        torch.nn.Dropout(0.1), torch.nn.Linear(32, outputs),
    )  # fmt: skip


def loss(name: str, **params) -> losses.Link:
    torch.manual_seed(1)  # of the weights that some losses own
    return losses.build(name, hierarchy=TREE, cost=costs.lca_height(TREE), **params)


def fit(scratch: Path, name: str = "ce", data=None, params=None, **changes):
    images, train, validation = data or collection()
    chosen = loss(name, **(params or {}))
    return training.fit(
        network(chosen.outputs), chosen, images, train, validation, Run("net", name, 0), scratch,
        **{**OPTIONS, **changes},
    )  # fmt: skip


@pytest.mark.parametrize("name", losses.names())
def test_it_learns_with_every_loss(name, tmp_path):
    _, history = fit(tmp_path, name)
    assert history["validation_macro_auroc"].max() > 0.95
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def test_the_best_epoch_is_kept_and_marked(tmp_path):
    images, _, validation = collection()
    weights, history = fit(tmp_path)
    assert history["best"].sum() == 1
    best = history.loc[history["best"] == 1].iloc[0]
    assert best["validation_macro_auroc"] == history["validation_macro_auroc"].max()
    again = network(6)
    again.load_state_dict(weights)
    _, auroc = training._validate(again, loss("ce"), images, validation, batch_size=16, on=torch.device("cpu"))
    assert auroc == best["validation_macro_auroc"]


def test_the_same_arguments_give_the_same_weights(tmp_path):
    first, history = fit(tmp_path)
    second, again = fit(tmp_path)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert history.equals(again)


@pytest.mark.parametrize("name", ["barz_denzler", "haframe", "haf"])
def test_the_losss_own_weights_are_trained_kept_and_needed(tmp_path, name):
    images, _, validation = collection()
    weights, history = fit(tmp_path, name)
    again, chosen = network(6), loss(name)
    own = {key.removeprefix("loss."): value for key, value in weights.items() if key.startswith("loss.")}
    assert own.keys() == dict(chosen.named_parameters()).keys()
    assert all(not torch.equal(own[key], value) for key, value in chosen.named_parameters())
    chosen.load_state_dict(own)
    again.load_state_dict({key: value for key, value in weights.items() if not key.startswith("loss.")})
    chosen.at_epoch(3, 4)
    _, auroc = training._validate(again, chosen, images, validation, batch_size=16, on=torch.device("cpu"))
    assert auroc == history["validation_macro_auroc"].max()


def test_a_loss_hears_of_every_epoch_and_sees_the_training_targets_once(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(losses.Link, "at_epoch", lambda self, epoch, epochs: heard.append((epoch, epochs)))
    monkeypatch.setattr(losses.Link, "observe", lambda self, targets: heard.append(tuple(targets.shape)))
    fit(tmp_path, "hxe")
    assert heard == [(80, 6), (0, 4), (1, 4), (2, 4), (3, 4)]


class Killed(Exception):
    pass


def save_always(monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", -1.0)
    monkeypatch.setattr(checkpoint, "TIMES", -1)


@pytest.mark.parametrize(
    ("name", "params"),
    [("ce", {}), ("hbce", {"finetune_epochs": 2}), ("bce", {"pos_weight": "balanced"}), ("haframe", {}), ("haf", {})],
)
def test_a_killed_training_resumes_to_the_same_result(tmp_path, monkeypatch, capsys, name, params):
    whole, history = fit(tmp_path / "whole", name, params=params)
    save_always(monkeypatch)
    real = training._train_epoch

    def dies_in_the_third(*args, epoch, **rest):
        if epoch == 2:
            raise Killed
        return real(*args, epoch=epoch, **rest)

    (tmp_path / "cut").mkdir()
    monkeypatch.setattr(training, "_train_epoch", dies_in_the_third)
    with pytest.raises(Killed):
        fit(tmp_path / "cut", name, params=params)
    monkeypatch.setattr(training, "_train_epoch", real)
    resumed, continued = fit(tmp_path / "cut", name, params=params)
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert history.equals(continued)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_images_without_a_label_for_the_loss_are_left_out(tmp_path):
    images, train, validation = collection()
    targets = train.targets.copy()
    targets[:30] = 0
    targets[30:32] = numpy.nan
    kept = training.informative(loss("ce"), training.Split(train.rows, targets))
    assert kept.rows.tolist() == train.rows[32:].tolist()
    assert len(training.informative(loss("bce"), training.Split(train.rows, targets)).rows) == len(train.rows) - 2
    with pytest.raises(SeverityError, match="Only 0 of 80 training images carry a label"):
        fit(tmp_path, data=(images, training.Split(train.rows, numpy.zeros_like(targets)), validation))


def test_a_loss_that_is_no_longer_a_number_stops_with_a_mend(tmp_path):
    with pytest.raises(SeverityError, match=r"net-ce-0: in epoch 1 the training loss became (nan|inf)"):
        fit(tmp_path, learning_rate=1e30, gradient_clip=1e30, warmup_epochs=0)


def test_a_validation_split_that_cannot_choose_an_epoch_is_refused(tmp_path):
    images, train, validation = collection()
    with pytest.raises(SeverityError, match="validation_fraction"):
        fit(tmp_path, data=(images, train, training.Split(validation.rows, numpy.ones_like(validation.targets))))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 0}, "train.epochs is 0"),
        ({"batch_size": 1}, "train.batch_size is 1"),
        ({"learning_rate": 0.0}, "train.learning_rate"),
        ({"warmup_epochs": 4}, "below epochs"),
        ({"gradient_clip": 0}, "train.gradient_clip"),
        ({"precision": "float16"}, "Did you mean 'bfloat16'|Did you mean 'float32'"),
        ({"device": "gpu"}, "auto, cpu, cuda"),
        ({"augmentation": {**OPTIONS["augmentation"], "rotatoin": 3}}, "Did you mean 'rotation'"),
        ({"augmentation": {**OPTIONS["augmentation"], "scale": 1.0}}, "train.augmentation.scale"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, change, told):
    with pytest.raises(SeverityError, match=told):
        fit(tmp_path, **change)


def test_the_schedule_rises_and_falls():
    schedule = Schedule(0.1, warmup=10, total=110)
    rates = [schedule(step) for step in range(110)]
    assert rates[9] == rates[10] == max(rates) == 0.1
    assert all(numpy.diff(rates[:10]) > 0) and all(numpy.diff(rates[10:]) < 0)
    assert rates[0] == pytest.approx(0.01) and 0 < rates[-1] < 1e-4
    assert rates[60] == pytest.approx(0.05)


def test_bfloat16_trains_too(tmp_path):
    _, history = fit(tmp_path, precision="bfloat16")
    assert history["validation_macro_auroc"].max() > 0.95


class TestAugmentation:
    def images(self) -> torch.Tensor:
        return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25

    def test_all_zero_changes_nothing(self):
        none = Augmentation(rotation=0.0, translation=0.0, scale=0.0, brightness=0.0, contrast=0.0)
        assert torch.allclose(none(self.images(), torch.Generator()), self.images(), atol=1e-6)

    def test_each_image_is_moved_by_itself_and_the_seed_repeats(self):
        some = Augmentation(**OPTIONS["augmentation"])
        same = self.images()[:1].expand(6, -1, -1, -1)
        first, second = (some(same, torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(first, second)
        assert not torch.equal(first[0], first[1])
        assert first.min() >= 0 and first.max() <= 1

    def test_rotation_turns_by_the_angle_drawn(self):
        quarter = Augmentation(rotation=90.0, translation=0.0, scale=0.0, brightness=0.0, contrast=0.0)
        image = self.images()[:1]
        turned = quarter._affine(torch.tensor([[1.0, 0, 0, 0, 0, 0]]))
        grid = torch.nn.functional.affine_grid(turned, [1, 1, 16, 16], align_corners=False)
        found = torch.nn.functional.grid_sample(image, grid, align_corners=False)
        assert torch.allclose(found, torch.rot90(image, 1, (2, 3)), atol=1e-5) or torch.allclose(
            found, torch.rot90(image, -1, (2, 3)), atol=1e-5
        )


def test_inference_is_in_order_whatever_the_batch_size():
    images, train, _ = collection()
    net = network(6)
    whole = inference.logits(net, images, train.rows, batch_size=1000, on=torch.device("cpu"))
    small = inference.logits(net, images, train.rows, batch_size=7, on=torch.device("cpu"))
    assert torch.allclose(whole, small, atol=1e-5)
    assert torch.equal(batch(images, numpy.array([5, 2]), torch.device("cpu"))[1, 0], torch.from_numpy(images[2]) / 255)


def test_the_order_of_images_differs_from_epoch_to_epoch():
    assert seed_for("net-ce-0", "epoch", 0) != seed_for("net-ce-0", "epoch", 1)
