"""Training: it learns, repeats itself to the byte, resumes where it was killed, and says what went wrong."""

import math
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch

from severity import losses
from severity.arrays import labelsets
from severity.core import files, runs
from severity.core.errors import SeverityError
from severity.core.runs import Run, seed_for
from severity.metrics import class_metrics
from severity.networks import backbones, inference, loading
from severity.networks.images import batch, mixing
from severity.training import checkpoint, training
from severity.training.optimisation import Optimiser, Schedule, Watch
from severity.tree import costs
from tests.checks import every
from tests.trees import six_classes

OPTIONS = {
    "epochs": 4,
    "keep": "validation_macro_auroc",
    "batch_size": 16,
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "warmup_epochs": 0.5,
    "gradient_clip": 1.0,
    "precision": "float32",
    "device": "cpu",
    "augmentation": {
        "flip": 0.0, "rotation": 5.0, "translation": 0.05, "scale": 0.05, "brightness": 0.05, "contrast": 0.1,
        "gamma": 0.0, "noise": 0.0, "erase": 0.0, "erase_area": 0.2,
    },
    "patience": 0,
    "accumulate": 1,
    "freeze_epochs": 0,
    "layer_decay": 1.0,
    "ema": 0.0,
    "mixup": 0.0,
    "compile": False,
}  # fmt: skip
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
        **{"cost": costs.lca_height(TREE), **OPTIONS, **changes},
    )  # fmt: skip


@pytest.mark.parametrize("name", losses.names())
def test_it_learns_with_every_loss(name, tmp_path):
    _, history = fit(tmp_path, name)
    assert history["validation_macro_auroc"].max() > 0.95
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]


def validated(weights: dict[str, torch.Tensor], own: losses.Link) -> dict[str, float]:
    """The validation columns of the history, of these weights."""
    images, _, validation = collection()
    again = network(6)
    again.load_state_dict({key: value for key, value in weights.items() if not key.startswith("loss.")})
    trained = torch.nn.ModuleDict({"network": again, "loss": own})
    cost = costs.lca_height(TREE)
    return training._validate(trained, images, validation, cost, batch_size=16, on=torch.device("cpu"))


@pytest.mark.parametrize("keep", training.CRITERIA)
def test_the_epoch_that_is_kept_is_the_criterions_and_is_marked(keep, tmp_path):
    states = []
    weights, history = fit(tmp_path, keep=keep, after_epoch=lambda trained: states.append(copy(trained["network"])))
    place = training.kept_epoch(history.to_dict("records"), keep)
    assert history["best"].tolist() == [int(number == place) for number in range(4)]
    assert every(torch.equal(weights[key], value) for key, value in states[place].items())
    best = history.iloc[place]
    assert validated(weights, loss("ce")) == {key: best[key] for key in history if key.startswith("validation_")}
    if keep == "last":
        assert place == 3
    else:
        sign = -1 if keep == "validation_macro_auroc" else 1
        assert (sign * history[keep]).idxmin() == place


def copy(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def test_of_equal_epochs_the_first_is_kept_and_one_without_a_number_never():
    rows = [
        {"epoch": 1, "validation_loss": math.nan, "validation_macro_auroc": 0.6, "validation_hd_at_1": 1.5},
        {"epoch": 2, "validation_loss": 0.25, "validation_macro_auroc": math.nan, "validation_hd_at_1": 0.5},
        {"epoch": 3, "validation_loss": 0.25, "validation_macro_auroc": 0.8, "validation_hd_at_1": 0.5},
        {"epoch": 4, "validation_loss": 0.5, "validation_macro_auroc": 0.8, "validation_hd_at_1": 0.75},
    ]
    kept = {keep: training.kept_epoch(rows, keep) for keep in training.CRITERIA}
    assert kept == {"last": 3, "validation_loss": 1, "validation_macro_auroc": 2, "validation_hd_at_1": 1}
    assert training.kept_epoch(rows[:1], "validation_loss") is None


def test_the_validation_distance_is_that_of_the_metrics_under_argmax(tmp_path):
    images, train, validation = collection()
    targets = validation.targets.copy()
    targets[:12, 1] = 1  # several true labels
    targets[12:15] = 0  # none
    targets[15:18, 0] = numpy.nan
    trainings = []
    _, history = fit(
        tmp_path, data=(images, train, training.Split(validation.rows, targets)), epochs=1,
        after_epoch=lambda trained: trainings.append(trained),
    )  # fmt: skip
    network_, own = trainings[0]["network"], trainings[0]["loss"]
    logits = inference.logits(network_, images, validation.rows, batch_size=16, on=torch.device("cpu"))
    ranking = (-own.posterior(logits)).argsort(dim=1).numpy()
    truth = labelsets.most_specific(targets == 1, TREE)
    scores = class_metrics.single_decision(ranking=ranking, truth=truth, cost=costs.lca_height(TREE))
    assert scores["without_truth"] >= 3
    assert history["validation_hd_at_1"][0] == pytest.approx(scores["hierarchical_distance_at_1"])


def test_the_same_arguments_give_the_same_weights(tmp_path):
    first, history = fit(tmp_path)
    second, again = fit(tmp_path)
    assert every(torch.equal(first[name], second[name]) for name in first)
    assert history.equals(again)


@pytest.mark.parametrize("name", ["barz_denzler", "haframe", "haf"])
def test_the_losss_own_weights_are_trained_kept_and_needed(tmp_path, name):
    weights, history = fit(tmp_path, name)
    chosen = loss(name)
    own = {key.removeprefix("loss."): value for key, value in weights.items() if key.startswith("loss.")}
    assert own.keys() == dict(chosen.named_parameters()).keys()
    assert every(not torch.equal(own[key], value) for key, value in chosen.named_parameters())
    chosen.load_state_dict(own)
    chosen.at_epoch(3, 4)
    assert validated(weights, chosen)["validation_macro_auroc"] == history["validation_macro_auroc"].max()


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
    real = training.train_epoch

    def dies_in_the_third(*args, epoch, **rest):
        if epoch == 2:
            raise Killed
        return real(*args, epoch=epoch, **rest)

    (tmp_path / "cut").mkdir()
    monkeypatch.setattr(training, "train_epoch", dies_in_the_third)
    with pytest.raises(Killed):
        fit(tmp_path / "cut", name, params=params)
    monkeypatch.setattr(training, "train_epoch", real)
    resumed, continued = fit(tmp_path / "cut", name, params=params)
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert history.equals(continued)
    assert every(torch.equal(whole[name], resumed[name]) for name in whole)


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
    with pytest.raises(SeverityError, match=r"net-ce-0: in epoch 1, step 2 of 5, the training loss became (nan|inf)"):
        fit(tmp_path, learning_rate=1e30, gradient_clip=1e30, warmup_epochs=0)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_the_step_and_its_images_are_named_when_loss_or_gradient_is_no_number(tmp_path, monkeypatch, part):
    images, train, validation = collection()
    train = training.Split(train.rows, train.targets, numpy.array([f"image {row}" for row in train.rows]))
    guilty = 40
    real = losses.Link.forward

    def forward(self, *, logits, targets):
        value = real(self, logits=logits, targets=targets)
        if targets.shape[0] > 16 or not (targets[:, 0] == 0.25).any():
            return value
        # A root has a finite value and no finite slope at 0.
        return value * torch.nan if part == "loss" else value + (logits.sum() * 0).sqrt()

    train.targets[guilty, 0] = 0.25
    monkeypatch.setattr(losses.Link, "forward", forward)
    with pytest.raises(SeverityError) as raised:
        fit(tmp_path, "bce", data=(images, train, validation))
    plan = loading.epoch(Run("net", "bce", 0), 0, 80, batch_size=16, accumulate=1)
    number, batch_of_it = next((n, chosen) for n, chosen in enumerate(plan.batches) if guilty in chosen)
    assert f"in epoch 1, step {number + 1} of 5" in str(raised.value)
    assert ", ".join(f"image {row}" for row in batch_of_it) + "." in str(raised.value)
    assert ("loss became nan" in str(raised.value)) == (part == "loss")
    assert "the norm of its gradient nan" in str(raised.value)


def test_a_watch_reports_the_first_bad_step_when_it_is_time_to_look():
    watch = Watch(torch.device("cpu"))
    watch.every = 3
    fine, bad = torch.tensor(1.0), torch.tensor(math.inf)
    found = []
    for number, (value, norm) in enumerate([(fine, fine), (fine, bad), (bad, bad), (fine, fine)]):
        watch.see(number, value, norm)
        found.append(watch.spoiled(number, last=False))
    assert found == [None, None, (1, 1.0, math.inf), None]
    assert watch.spoiled(3, last=True) == (1, 1.0, math.inf)


@pytest.mark.parametrize(
    ("keep", "value"), [("validation_macro_auroc", 1), ("validation_hd_at_1", 0), ("validation_macro_auroc", 0)]
)
def test_a_validation_split_that_cannot_choose_an_epoch_is_refused(tmp_path, keep, value):
    images, train, validation = collection()
    data = images, train, training.Split(validation.rows, numpy.full_like(validation.targets, value))
    with pytest.raises(SeverityError, match=f"train.keep is {keep}: .* 40 validation images.*validation_fraction"):
        fit(tmp_path, data=data, keep=keep)
    _, history = fit(tmp_path, data=data, keep="last", epochs=2)
    assert history["best"].tolist() == [0, 1] and history["validation_macro_auroc"].isna().all()


def plain_loop(
    name: str = "ce", *, epochs: int = 1, after_step=lambda net, own, number: None, augmentation=None, batch_size=16
) -> dict[str, torch.Tensor]:
    """Training written down in the plainest way, without any of the options; returns the weights after the last step."""
    ranges = {**OPTIONS["augmentation"], **(augmentation or {})}
    images, train, _ = collection()
    own = loss(name)
    net = network(own.outputs).to(memory_format=torch.channels_last)
    both = torch.nn.ModuleDict({"network": net, "loss": own})
    decaying = [value for value in both.parameters() if value.dim() > 1]
    others = [value for value in both.parameters() if value.dim() <= 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decaying, "weight_decay": OPTIONS["weight_decay"]}]
    adamw = torch.optim.AdamW(groups, lr=OPTIONS["learning_rate"])
    steps = math.ceil(len(train.rows) / batch_size)
    for epoch in range(epochs):
        own.at_epoch(epoch, epochs)
        seed = seed_for(f"net-{name}-0", "epoch", epoch)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(train.rows), generator=generator).numpy()
        net.train()
        for number, chosen in enumerate(numpy.array_split(order, steps), start=epoch * steps):
            warm = round(OPTIONS["warmup_epochs"] * steps)
            share = (number - warm) / (epochs * steps - warm)
            rising = OPTIONS["learning_rate"] * (number + 1) / warm
            for group in adamw.param_groups:
                falling = OPTIONS["learning_rate"] * 0.5 * (1 + math.cos(math.pi * share))
                group["lr"] = rising if number < warm else falling
            inputs = torch.from_numpy(images[train.rows[chosen]]).unsqueeze(1).to(torch.float32).div_(255)
            inputs = plain_augmentation(inputs, generator, ranges)
            value = own(logits=net(inputs), targets=torch.from_numpy(train.targets[chosen]))
            adamw.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_([*net.parameters(), *own.parameters()], OPTIONS["gradient_clip"])
            adamw.step()
            after_step(net, own, number)
    return {**net.state_dict(), **own.state_dict(prefix="loss.")}


def plain_augmentation(images: torch.Tensor, generator: torch.Generator, ranges: dict) -> torch.Tensor:
    draws = torch.rand(len(images), 6, generator=generator).mul_(2).sub_(1)
    angle, scale = draws[:, 0] * math.radians(ranges["rotation"]), 1 + ranges["scale"] * draws[:, 1]
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = 2 * ranges["translation"] * draws[:, 2:4]
    affine = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = (1 + ranges["contrast"] * draws[:, 4]).view(-1, 1, 1, 1)
    brightness = (ranges["brightness"] * draws[:, 5]).view(-1, 1, 1, 1)
    mean = moved.mean(dim=(2, 3), keepdim=True)
    return (moved * contrast + ((1 - contrast) * mean + brightness)).clamp(0, 1)  # to the same rounding


@pytest.mark.parametrize("name", ["ce", "bce", "hxe", "haf"])
def test_without_options_every_byte_is_that_of_a_plain_loop(name, tmp_path):
    weights, _ = fit(tmp_path, name, epochs=1)
    plain = plain_loop(name)
    assert weights.keys() == plain.keys()
    assert every(torch.equal(value, plain[key]) for key, value in weights.items())


def test_the_default_arithmetic_is_that_of_earlier_versions(tmp_path):
    # Losses of an earlier version, whose last digits differ with processor and number of threads. A change beyond that
    # changes every published result.
    _, history = fit(tmp_path)
    assert history["train_loss"].tolist() == pytest.approx([1.103318, 0.531589, 0.237812, 0.230632], rel=5e-3)
    assert history["learning_rate"].tolist() == pytest.approx([9.6984631e-3, 6.7101007e-3, 2.5e-3, 7.5961235e-5])


def bare_network(outputs: int) -> torch.nn.Module:
    """No batch statistics, nothing random."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(144, 16), torch.nn.Tanh(), torch.nn.Linear(16, outputs)
    )


def test_two_batches_accumulated_are_one_of_twice_the_size(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.network", bare_network)
    whole, one = fit(tmp_path, batch_size=32)
    halves, two = fit(tmp_path, batch_size=16, accumulate=2)
    other, _ = fit(tmp_path, batch_size=16)
    assert every(torch.allclose(whole[key], halves[key], atol=1e-5) for key in whole)
    assert not all(torch.allclose(whole[key], other[key], atol=1e-3) for key in whole)
    assert two["train_loss"].tolist() == pytest.approx(one["train_loss"].tolist(), rel=1e-4)


@pytest.mark.parametrize(
    ("images", "batch_size", "accumulate"),
    [(80, 16, 1), (81, 16, 3), (5, 2, 1), (3, 2, 4), (7, 64, 2), (2, 2, 1), (1000, 7, 5)],
)
def test_an_epoch_has_every_image_once_and_no_batch_of_one(images, batch_size, accumulate):
    plan = loading.epoch(Run("a", "b", 0), 3, images, batch_size=batch_size, accumulate=accumulate)
    assert sorted(numpy.concatenate(plan.batches).tolist()) == list(range(images))
    assert len(plan.steps) == loading.steps_in_epoch(images, batch_size=batch_size, accumulate=accumulate)
    sizes = [len(batch) for batch in plan.batches]
    assert min(sizes) >= 2 and max(sizes) <= max(batch_size, 3)
    assert max(len(step) for step in plan.steps) <= accumulate
    assert max(sizes) - min(sizes) <= max(1, batch_size // 2)


def test_the_moving_average_is_what_is_kept(tmp_path):
    seen = []

    def remember(net, own, number):
        seen.append({key: value.clone() for key, value in net.state_dict().items()})

    plain_loop(after_step=remember)
    expected = seen[0]
    for number, weights in enumerate(seen[1:], start=1):
        decay = min(0.7, 1 - (1 + number) ** (-2 / 3))
        for key, value in weights.items():
            mixed = value if key.endswith("tracked") else decay * expected[key] + (1 - decay) * value
            expected[key] = mixed
    kept, _ = fit(tmp_path, epochs=1, ema=0.7)
    assert every(torch.allclose(kept[key], value, atol=1e-6) for key, value in expected.items())
    assert not torch.allclose(kept["1.weight"], seen[-1]["1.weight"], atol=1e-6)


def test_frozen_epochs_train_the_classifier_alone(tmp_path, monkeypatch):
    def small(outputs):
        torch.manual_seed(0)
        return backbones.build(model="test_resnet", pretrained=False, outputs=outputs)

    monkeypatch.setattr(f"{__name__}.network", small)
    start = {key: value.clone() for key, value in small(6).state_dict().items()}
    frozen, _ = fit(tmp_path, epochs=2, freeze_epochs=2)
    changed = {key for key, value in frozen.items() if not torch.equal(value, start[key])}
    assert changed == {"network.fc.weight", "network.fc.bias"}
    validation_gives(monkeypatch, "validation_macro_auroc", [0.5, 0.6])
    freed, _ = fit(tmp_path, epochs=2, freeze_epochs=1)
    assert every(not torch.equal(freed[key], value) for key, value in start.items())


@pytest.mark.parametrize("model", ["test_resnet", "shufflenet_v2_x1_0", "googlenet"])
def test_layers_further_from_the_classifier_learn_more_slowly(model):
    net = backbones.build(model=model, pretrained=False, outputs=6)
    own = loss("haf")
    both = torch.nn.ModuleDict({"network": net, "loss": own})
    optimiser = Optimiser(both, Schedule(1.0, 0, 10), weight_decay=0.1, layer_decay=0.5, gradient_clip=1.0)
    sum(value.sum() for value in both.parameters()).backward()
    optimiser.step(0)
    rates = {value: group["lr"] for group in optimiser.adamw.param_groups for value in group["params"]}
    decays = {value: group["weight_decay"] for group in optimiser.adamw.param_groups for value in group["params"]}
    assert rates.keys() == set(both.parameters())
    assert every(rates[value] == 1.0 for value in own.parameters())
    (classifier,) = net.classifiers()
    assert {rates[value] for value in classifier.parameters()} == {1.0}
    assert rates[next(net.parameters())] == min(rates.values()) < 0.3
    assert every((decays[value] > 0) == (value.dim() > 1) for value in both.parameters())


def test_what_needs_a_classifier_is_refused_where_none_is_known(tmp_path):
    for change in ({"freeze_epochs": 1}, {"layer_decay": 0.5}):
        with pytest.raises(SeverityError, match="a network of severity.networks.backbones"):
            fit(tmp_path, **change)


def validation_gives(monkeypatch, name: str, values: list[float]) -> None:
    """Epoch by epoch one number of the validation images is what is given here, and the others stay the same."""
    given = iter(values)
    same = {"validation_loss": 0.1, "validation_macro_auroc": 0.5, "validation_hd_at_1": 0.1}
    monkeypatch.setattr(training, "_validate", lambda *args, **rest: {**same, name: next(given)})


@pytest.mark.parametrize(
    ("keep", "values"),
    [
        ("validation_macro_auroc", [0.5, 0.7, 0.7, 0.6, 0.9]),
        ("validation_loss", [0.5, 0.3, 0.3, 0.4, 0.1]),
        ("validation_hd_at_1", [1.5, 0.3, 0.3, 0.4, 0.1]),
    ],
)
def test_patience_ends_a_training_that_gets_no_better_by_its_criterion(tmp_path, monkeypatch, keep, values):
    save_always(monkeypatch)
    validation_gives(monkeypatch, keep, values)
    options = {"epochs": 5, "patience": 2, "keep": keep}
    (tmp_path / "state").mkdir()
    _, history = fit(tmp_path / "state", **options)
    assert history[keep].tolist() == values[:4]
    assert history["best"].tolist() == [0, 1, 0, 0]
    _, again = fit(tmp_path / "state", **options)  # Resumed after it ended: no further epoch.
    assert again.equals(history)


class TestMixUp:
    def test_shares_and_partners(self):
        partners, shares = mixing(1000, 0.4, torch.Generator().manual_seed(0))
        assert sorted(partners.tolist()) == list(range(1000))
        # Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
        assert shares.mean() == pytest.approx(0.5, abs=0.05) and shares.var() == pytest.approx(1 / 7.2, abs=0.02)
        assert shares.min() >= 0 and shares.max() <= 1 and shares.dtype == torch.float32
        again = mixing(1000, 0.4, torch.Generator().manual_seed(0))
        assert torch.equal(partners, again[0]) and torch.equal(shares, again[1])

    def test_a_mixed_loss_is_the_loss_of_the_mixed_targets(self):
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(9, 6, generator=generator)
        truth, other = (
            torch.nn.functional.one_hot(torch.randint(6, (9,), generator=generator), 6).float() for _ in "ab"
        )
        shares = torch.rand(9, generator=generator)
        targets = shares[:, None] * truth + (1 - shares[:, None]) * other
        given = {"logits": logits, "targets": truth, "others": other, "shares": shares}
        assert torch.allclose(loss("ce").mixed(**given), torch.nn.functional.cross_entropy(logits, targets))
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        assert torch.allclose(loss("bce").mixed(**given), expected)

    @pytest.mark.parametrize("name", [name for name in losses.names() if name != "haf"])
    def test_mixed_with_itself_or_with_no_share_of_the_other_nothing_changes(self, name):
        generator, own = torch.Generator().manual_seed(0), loss(name)
        logits = torch.randn(9, own.outputs, generator=generator)
        truth, other = (
            torch.nn.functional.one_hot(torch.randint(6, (9,), generator=generator), 6).float() for _ in "ab"
        )
        plain = own(logits=logits, targets=truth)
        shares = torch.rand(9, generator=generator)
        assert torch.allclose(own.mixed(logits=logits, targets=truth, others=truth, shares=shares), plain)
        ones = torch.ones(9)
        assert torch.allclose(own.mixed(logits=logits, targets=truth, others=other, shares=ones), plain)

    def test_an_image_without_a_label_has_no_weight(self):
        own, truth = loss("ce"), torch.eye(6)[:3].clone()
        truth[1] = 0
        logits, shares = torch.randn(3, 6), torch.tensor([0.25, 0.5, 0.75])
        each = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0, 2]), reduction="none")
        mixed = own.mixed(logits=logits, targets=truth, others=truth, shares=shares)
        assert torch.allclose(mixed, (each[0] + each[2]) / 2)
        none = torch.zeros_like(truth)
        assert own.mixed(logits=logits, targets=none, others=none, shares=shares) == 0

    def test_it_trains(self, tmp_path):
        _, history = fit(tmp_path, mixup=0.3, epochs=8)
        assert history["validation_macro_auroc"].max() > 0.95

    def test_a_loss_of_pairs_of_images_refuses_it(self, tmp_path):
        with pytest.raises(SeverityError, match="train.mixup is 0.3, but with the loss haf"):
            fit(tmp_path, "haf", mixup=0.3)


def test_a_compiler_that_fails_is_a_warning_and_changes_nothing(tmp_path, monkeypatch):
    def broken(module):
        def call(*args):
            raise RuntimeError("no compiler here\nand more")

        return call

    plain, _ = fit(tmp_path, epochs=1)
    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(UserWarning, match=r"torch.compile fails on cpu \(no compiler here\)"):
        weights, _ = fit(tmp_path, epochs=1, compile=True)
    assert every(torch.equal(weights[key], value) for key, value in plain.items())


def test_a_compiled_network_shares_its_weights(tmp_path, monkeypatch):
    compiled = []

    def marked(module):
        return lambda *args: compiled.append(len(args[0])) or module(*args)

    plain, _ = fit(tmp_path, epochs=1)
    monkeypatch.setattr(torch, "compile", marked)
    weights, _ = fit(tmp_path, epochs=1, compile=True)
    assert compiled == [16] * 5
    assert every(torch.equal(weights[key], value) for key, value in plain.items())


def test_a_failure_of_the_network_itself_is_no_compilers(monkeypatch):
    def broken(images):
        raise ValueError("the network's own")

    monkeypatch.setattr(torch, "compile", lambda module: module)
    with pytest.raises(ValueError, match="the network's own"):
        inference.compiled(broken, torch.device("cpu"))(torch.zeros(1))


# --- killed at any moment -------------------------------------------------------------------------------------------

KILLED_OPTIONS = {"epochs": 40, "ema": 0.9, "mixup": 0.2}


def _train_and_write(folder: Path, dies_while_saving: int | None) -> None:
    """A process of its own: train, saving after every epoch, and write the weights; perhaps die half through a save."""
    torch.set_num_threads(1)
    checkpoint.SECONDS = checkpoint.TIMES = -1
    real, saves = torch.save, []

    def save(state, path):
        saves.append(path)
        real(state, path)
        if len(saves) == dies_while_saving:
            with open(path, "r+b") as file:
                file.truncate(file.seek(0, os.SEEK_END) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save
    with runs.scratch(Run("net", "ce", 0), {}, root=folder / "unfinished") as scratch:
        (folder / "started").touch()
        weights, history = fit(scratch, **KILLED_OPTIONS)
        with files.replacing(folder / "weights.safetensors") as beside:
            safetensors.torch.save_file(weights, beside)
        files.write_csv(folder / "history.csv", history)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(name: str, dies_while_saving: int | None = None):
        (tmp_path / name).mkdir(exist_ok=True)
        process = context.Process(target=_train_and_write, args=(tmp_path / name, dies_while_saving))
        process.start()
        return process

    whole = start("whole")
    whole.join()
    assert whole.exitcode == 0
    for save in (1, 3, 2):
        process = start("cut", dies_while_saving=save)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    random = numpy.random.default_rng()
    for _ in range(8):
        (tmp_path / "cut/started").unlink(missing_ok=True)
        process = start("cut")
        while process.is_alive() and not (tmp_path / "cut/started").exists():
            time.sleep(0.001)
        process.join(random.uniform(0, 0.1))
        process.kill()
        process.join()
    last = start("cut")
    last.join()
    assert last.exitcode == 0
    for name in ("weights.safetensors", "history.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert list((tmp_path / "cut/unfinished").iterdir()) == []


def test_a_state_that_cannot_be_read_starts_afresh(tmp_path, monkeypatch, capsys):
    whole, _ = fit(tmp_path)
    save_always(monkeypatch)
    fit(tmp_path)
    good = (tmp_path / "state.pt").read_bytes()
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in (len(good) // 3, len(good) // 2, -1)]
    for content in (b"", b"half a file", good[:-700], *flipped):
        (tmp_path / "state.pt").write_bytes(content)
        again, _ = fit(tmp_path)
        said = capsys.readouterr().out
        assert "state.pt" in said and "damaged" in said and "scratch" in said
        assert every(torch.equal(whole[key], again[key]) for key in whole)


def test_saving_takes_a_fiftieth_of_the_time_at_most(tmp_path, monkeypatch):
    clock = iter([0.0, 19.0, 21.0, 21.0, 24.0, 100.0, 173.0, 175.0])
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
    kept = checkpoint.Checkpoint(tmp_path)
    assert not kept.due() and kept.due()
    kept.save({"a": 1})  # from 21 to 24: three seconds
    assert not kept.due() and not kept.due() and kept.due()
    assert kept.load() == {"a": 1}


def test_the_schedule_rises_and_falls():
    schedule = Schedule(0.1, warmup=10, total=110)
    rates = [schedule(step) for step in range(110)]
    assert rates[9] == rates[10] == max(rates) == 0.1
    assert every(numpy.diff(rates[:10]) > 0) and all(numpy.diff(rates[10:]) < 0)
    assert rates[0] == pytest.approx(0.01) and 0 < rates[-1] < 1e-4
    assert rates[60] == pytest.approx(0.05)


def test_bfloat16_trains_too(tmp_path):
    _, history = fit(tmp_path, precision="bfloat16")
    assert history["validation_macro_auroc"].max() > 0.95


def test_inference_is_in_order_whatever_the_batch_size():
    images, train, _ = collection()
    net = network(6)
    whole = inference.logits(net, images, train.rows, batch_size=1000, on=torch.device("cpu"))
    small = inference.logits(net, images, train.rows, batch_size=7, on=torch.device("cpu"))
    assert torch.allclose(whole, small, atol=1e-5)
    assert torch.equal(batch(images, numpy.array([5, 2]), torch.device("cpu"))[1, 0], torch.from_numpy(images[2]) / 255)


def test_the_order_of_images_differs_from_epoch_to_epoch():
    assert seed_for("net-ce-0", "epoch", 0) != seed_for("net-ce-0", "epoch", 1)
