"""Training one network: AdamW, warm-up and cosine, gradient clipping, and which epoch's weights are kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pandas
import timm.layers
import torch
from tqdm import tqdm

from severity.arrays import discrimination, distances
from severity.core.errors import SeverityError
from severity.core.runs import Run, seed_for
from severity.links.links import LOSS_PREFIX, Link
from severity.networks import inference, loading
from severity.networks.group import Group
from severity.networks.images import Augmentation, mixing
from severity.training.checkpoint import Checkpoint
from severity.training.optimisation import Optimiser, Schedule, Watch, averaged

# What an epoch can be kept for: train.keep -> what is to be small, from a row of the history.
CRITERIA: dict[str, Callable[[Mapping[str, float]], float]] = {
    "last": lambda row: -row["epoch"],
    "validation_loss": lambda row: row["validation_loss"],
    "validation_macro_auroc": lambda row: -row["validation_macro_auroc"],
    "validation_hd_at_1": lambda row: row["validation_hd_at_1"],
}
# Why a criterion may have no number, and what to do.
WITHOUT_NUMBER = {
    "validation_loss": "The validation loss is no finite number so far. Lower train.learning_rate in params.yaml.",
    "validation_macro_auroc": "No label has both positive and negative images among the {images} validation images. "
    "Raise prepare.validation_fraction in params.yaml.",
    "validation_hd_at_1": "None of the {images} validation images has a true label. Raise "
    "prepare.validation_fraction in params.yaml.",
}


def kept_epoch(history: Sequence[Mapping[str, float]], keep: str) -> int | None:
    """The place in `history` of the epoch that the criterion `keep` keeps, the first of equals.

    None where no epoch has the number.
    """
    values = [CRITERIA[keep](row) for row in history]
    candidates = [place for place, value in enumerate(values) if math.isfinite(value)]
    return min(candidates, key=values.__getitem__, default=None)


@dataclass(frozen=True)
class Split:
    """The rows of one split: `rows` (n,) into the prepared images, `targets` (n, K) float32, NaN = masked.

    `ids` (n,) names the images in messages; without it their rows do.
    """

    rows: numpy.ndarray
    targets: numpy.ndarray
    ids: numpy.ndarray | None = None

    def part(self, places: numpy.ndarray) -> "Split":
        """Some of the images, by place or by mask."""
        return Split(self.rows[places], self.targets[places], None if self.ids is None else self.ids[places])


@dataclass
class _Progress:
    """What a resumed run needs besides the network and the optimiser."""

    epoch: int = 0
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def stalled(self, patience: int, keep: str) -> bool:
        """Whether the last `patience` epochs brought nothing better."""
        kept = kept_epoch(self.history, keep)
        return bool(patience) and kept is not None and len(self.history) - 1 - kept >= patience


@dataclass(frozen=True)
class Engine:
    """What is the same in every epoch: `trained` holds network and loss, `forward` is the network to train with.

    The other fields are what `fit` makes of its options.
    """

    run: Run
    on: torch.device
    trained: torch.nn.ModuleDict
    forward: Callable[[torch.Tensor], torch.Tensor]
    optimiser: Optimiser
    average: Any
    augment: Augmentation
    batch_size: int
    accumulate: int
    mixup: float
    precision: str
    group: Group = Group()


def fit(
    network: torch.nn.Module,
    loss: Link,
    images: numpy.ndarray,
    train: Split,
    validation: Split,
    run: Run,
    scratch: Path | None,
    group: Group | None = None,
    *,
    cost: numpy.ndarray,
    epochs: int,
    keep: str,
    patience: int = 0,
    batch_size: int,
    accumulate: int = 1,
    learning_rate: float,
    weight_decay: float,
    warmup_epochs: float,
    gradient_clip: float,
    freeze_epochs: int = 0,
    layer_decay: float = 1.0,
    ema: float = 0.0,
    mixup: float = 0.0,
    precision: str,
    compile: bool = False,
    device: str,
    augmentation: dict,
    sync_batchnorm: bool = False,
    after_epoch: Callable[[torch.nn.ModuleDict], None] | None = None,
) -> tuple[dict[str, torch.Tensor], pandas.DataFrame]:
    """Train `network` with `loss` and return the weights of the epoch to keep and the history of all epochs.

    The same arguments give the same result on the same machine, also when training was killed and resumed: order of
    images, augmentation and dropout depend only on the run's name and the epoch.

    The processes of a `group` divide every batch among them and all return the same. Up to rounding it is what one
    process returns, except for what a network does with a part of a batch: statistics of batch norms, and dropout.

    Args:
        network: gives ``loss.outputs`` logits for (B, 1, H, W) images in [0, 1].
        loss: what to train with; parameters of its own are trained as well.
        images: (N, H, W) uint8, usually memory-mapped; only the rows of a batch are read at a time.
        run: names the random numbers.
        scratch: folder for the state of the unfinished run; of a group's processes the first alone uses it.
        cost: (K, K) cost[decision, truth] of the validation images' hierarchical distance.
        epochs: at most. keep: what an epoch is kept for, one of `CRITERIA`. patience: so many epochs that are no better
            end the training; 0 never does.
        batch_size: images at a time. accumulate: so many batches make one step of the optimiser.
        learning_rate, weight_decay: of AdamW; norms and biases do not decay.
        warmup_epochs: epochs (also a part of one) in which the learning rate rises linearly; then it falls as a cosine.
        gradient_clip: largest norm of the gradient over all weights, the loss's included.
        freeze_epochs: how many epochs at the start train only the classifier (and the loss), with the rest of the
            network as in inference; for pretrained networks, which `severity.networks.backbones` builds.
        layer_decay: the learning rate of a layer is this times that of the layer behind it; 1 treats all alike.
        ema: decay of the moving average of all weights, which is then what is validated and kept; 0: none.
        mixup: alpha of MixUp, see `severity.networks.images.mixing`; 0: none.
        precision: ``float32``, or ``bfloat16`` for autocast. compile: with torch.compile, where it works.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:<n>``.
        augmentation: options of `severity.networks.images.Augmentation`.
        sync_batchnorm: batch norms of several GPUs take their statistics from the whole batch.
        after_epoch: is called with the network and the loss that an epoch gave, as they would be kept.

    Returns:
        the state dict of the network, with that of the loss under ``loss.``, of the epoch that `keep` names (the first
        of equals), on the CPU; and one row an epoch: epoch, learning_rate (at its end), train_loss, and of the
        validation images validation_loss, validation_macro_auroc (NaN where no label has positive and negative images)
        and validation_hd_at_1 (NaN where none has a true label); best is 1 for the kept epoch, else 0.

    Raises:
        SeverityError: an option does not fit network, loss or device; loss or gradient is no longer a finite number; a
            batch is too small for the group; no training image carries information for the loss; or the validation
            images do not have the number that `keep` names.
    """
    augment = Augmentation(**augmentation)
    group = group or Group()
    on = inference.device(device, group)
    _check_fit(network, loss, on, run, precision, mixup=mixup, parts=freeze_epochs > 0 or layer_decay < 1)
    loss.cpu().observe(torch.from_numpy(train.targets))
    if sync_batchnorm and group.size > 1:
        network = _synchronised(network, on)
    network, loss = inference.placed(network, on), loss.to(on)
    train = informative(loss, train)
    trained = torch.nn.ModuleDict({"network": network, "loss": loss})
    steps = loading.steps_in_epoch(len(train.rows), batch_size=batch_size, accumulate=accumulate)
    schedule = Schedule(learning_rate, warmup=round(warmup_epochs * steps), total=epochs * steps)
    optimiser = Optimiser(
        trained, schedule, weight_decay=weight_decay, layer_decay=layer_decay, gradient_clip=gradient_clip
    )
    engine = Engine(
        run, on, trained, inference.compiled(network, on) if compile else network, optimiser,
        averaged(trained, ema), augment, batch_size, accumulate, mixup, precision, group,
    )  # fmt: skip
    kept = engine.average.module if engine.average else trained
    checkpoint = Checkpoint(scratch) if group.first else None
    done = _resume(checkpoint, engine)
    progress = tqdm(
        total=epochs * steps, initial=done.epoch * steps, desc=run.name, unit="step",
        disable=None if group.first else True,
    )  # fmt: skip
    for epoch in range(done.epoch, epochs):
        if done.stalled(patience, keep):
            break
        for each in {loss, kept["loss"]}:
            each.at_epoch(epoch, epochs)
        network.train()
        if freeze_epochs:
            _freeze(network, epoch < freeze_epochs)
        train_loss = train_epoch(engine, images, train, epoch=epoch, progress=progress)
        for each in (trained, *([kept] if engine.average else [])):
            group.average_buffers(each)
        measured = _validate(kept, images, validation, cost, batch_size=batch_size, on=on, group=group)
        rate = schedule((epoch + 1) * steps - 1)
        done.history.append({"epoch": epoch + 1, "learning_rate": rate, "train_loss": train_loss, **measured})
        done.epoch = epoch + 1
        best = kept_epoch(done.history, keep)
        if best is None:
            raise SeverityError(f"train.keep is {keep}: {WITHOUT_NUMBER[keep].format(images=len(validation.rows))}")
        if best == epoch:
            done.best = _copied(kept["network"].state_dict()) | _copied(kept["loss"].state_dict(prefix=LOSS_PREFIX))
        if after_epoch:
            after_epoch(kept)
        progress.set_postfix(loss=f"{train_loss:.4f}", auroc=f"{measured['validation_macro_auroc']:.4f}")
        if checkpoint and checkpoint.due():
            checkpoint.save({**_states(engine), "progress": vars(done)})
    progress.close()
    history = pandas.DataFrame(done.history)
    history["best"] = (history.index == kept_epoch(done.history, keep)).astype(int)
    return done.best, history


def informative(loss: Link, split: Split) -> Split:
    """The rows of `split` whose targets say something for this loss (a softmax loss needs a positive label)."""
    device = next(iter(loss.buffers()), torch.empty(0)).device
    counts = []
    for start in range(0, len(split.rows), 1024):
        targets = torch.from_numpy(split.targets[start : start + 1024]).to(device)
        counts.append(loss.per_image(targets.new_zeros(len(targets), loss.outputs), targets)[1].cpu().numpy())
    kept = numpy.concatenate(counts) if counts else numpy.zeros(0, dtype=bool)
    if kept.sum() < 2:
        raise SeverityError(
            f"Only {int(kept.sum())} of {len(kept)} training images carry a label for this loss; training needs at "
            "least 2. Check the split, the label policies (prepare in params.yaml) and the labels 'excluded' in the "
            "tree."
        )
    return split.part(kept)


def _check_fit(
    network: torch.nn.Module, loss: Link, on: torch.device, run: Run, precision: str, *, mixup: float, parts: bool
) -> None:
    """What depends on more than one option."""
    if precision == "bfloat16" and on.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SeverityError(
            f"params.yaml: train.precision is bfloat16, which {torch.cuda.get_device_name(on)} does not support. Set "
            "it to float32."
        )
    if mixup and not loss.mixes:
        raise SeverityError(
            f"params.yaml: train.mixup is {mixup}, but with the loss {run.loss} an image's loss depends on the other "
            "images of its batch, so two targets cannot be mixed. Set train.mixup to 0 or take this loss out of the "
            "grid."
        )
    if parts and not hasattr(network, "classifiers"):
        raise SeverityError(
            "params.yaml: train.freeze_epochs and train.layer_decay need a network of severity.networks.backbones, "
            "which says what its classifier is. Set them to 0 and 1."
        )


def _synchronised(network: torch.nn.Module, on: torch.device) -> torch.nn.Module:
    if on.type != "cuda":
        raise SeverityError(
            f"params.yaml: train.sync_batchnorm is true, but torch has that only for GPUs, and this is {on}. Set it to "
            "false, or machine.devices to 1."
        )
    return timm.layers.convert_sync_batchnorm(network)  # torch's own would lose the activations in timm's norms.


def _freeze(network: torch.nn.Module, frozen: bool) -> None:
    """Train only the classifier, with the rest as in inference; or train everything."""
    network.train(not frozen).requires_grad_(not frozen)
    for classifier in network.classifiers():
        classifier.train().requires_grad_()


def train_epoch(engine: Engine, images: numpy.ndarray, train: Split, *, epoch: int, progress: tqdm) -> float:
    """One pass over the training images; returns the mean loss per image."""
    plan = loading.epoch(engine.run, epoch, len(train.rows), batch_size=engine.batch_size, accumulate=engine.accumulate)
    group = engine.group
    _check_shares(plan, group)
    if not group.first:
        torch.manual_seed(seed_for(engine.run.name, "epoch", epoch, "process", group.rank))  # of its own dropout
    picks = [(train.rows[chosen[group.share(len(chosen))]], chosen) for chosen in plan.batches]
    batches = loading.read_ahead((images, train.targets), picks, engine.on)
    total, watch = torch.zeros((), device=engine.on), Watch(engine.on)
    for number, parts in enumerate(plan.steps):
        values = []
        for chosen in parts:
            share = len(chosen) / sum(map(len, parts))
            block, targets = next(batches)
            inputs = engine.augment(block, plan.generator, len(chosen), group.share(len(chosen)))
            value = gradient(engine, inputs, targets, plan.generator, share)
            total += value * len(chosen)
            values.append(value)
        group.sum_gradients(engine.trained)
        step = epoch * len(plan.steps) + number
        norm = engine.optimiser.step(step)
        if engine.average:
            engine.average.update(engine.trained, step + 1)
        watch.see(number, sum(values), norm)
        spoiled = watch.spoiled(number, last=number + 1 == len(plan.steps))
        if spoiled:
            _stop(engine, train.part(numpy.concatenate(plan.steps[spoiled[0]])), epoch, len(plan.steps), *spoiled)
        progress.update()
    return float(total) / len(train.rows)


def _check_shares(plan: loading.Epoch, group: Group) -> None:
    smallest = min(map(len, plan.batches))
    if group.size > 1 and smallest < 2 * group.size:
        raise SeverityError(
            f"A batch of {smallest} images cannot be shared by {group.size} processes, of which each needs 2. Lower "
            "machine.devices (or start fewer processes), or raise train.batch_size in params.yaml."
        )


def gradient(
    engine: Engine, inputs: torch.Tensor, targets: torch.Tensor, generator: torch.Generator, share: float
) -> torch.Tensor:
    """Add `share` times the gradient of a batch's mean loss to the weights' gradients; returns that mean loss.

    `inputs` are this process's share of the batch and `targets` the whole batch's: the loss is always that of the
    whole.
    """
    dtype = None if engine.precision == "float32" else getattr(torch, engine.precision)
    group, images = engine.group, len(targets)
    others = weights = None
    if engine.mixup:
        partners, weights = (each.to(engine.on) for each in mixing(images, engine.mixup, generator))
        own = group.share(images)
        inputs = torch.lerp(group.gathered(inputs, images)[partners[own]], inputs, weights[own].view(-1, 1, 1, 1))
        others = targets[partners]
    with torch.autocast(engine.on.type, dtype=dtype, enabled=dtype is not None):
        logits = engine.forward(inputs)
    logits = group.gathered(logits, images)
    if others is None:
        value = engine.trained["loss"](logits=logits, targets=targets)
    else:
        value = engine.trained["loss"].mixed(logits=logits, targets=targets, others=others, shares=weights)
    (value if share == 1 else value * share).backward()
    return value.detach()


def _stop(engine: Engine, batch: Split, epoch: int, steps: int, number: int, loss: float, norm: float) -> None:
    names = [str(name) for name in (batch.rows if batch.ids is None else batch.ids)]
    listed = ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
    rate, clip = engine.optimiser.schedule(epoch * steps + number), engine.optimiser.gradient_clip
    in_full = "" if engine.precision == "float32" else " Set train.precision to float32."
    raise SeverityError(
        f"{engine.run.name}: in epoch {epoch + 1}, step {number + 1} of {steps}, the training loss became {loss:g} and "
        f"the norm of its gradient {norm:g}. Lower train.learning_rate (here {rate:g}) or train.gradient_clip "
        f"({clip:g}) in params.yaml, or lengthen train.warmup_epochs.{in_full} Check losses.{engine.run.loss}. Look at "
        f"the {len(names)} images of that step: {listed}."
    )


def _validate(
    trained: torch.nn.ModuleDict,
    images: numpy.ndarray,
    validation: Split,
    cost: numpy.ndarray,
    *,
    batch_size: int,
    on: torch.device,
    group: Group = Group(),  # noqa: B008 - immutable
) -> dict[str, float]:
    """The columns of the history that are of the validation images, the same in all processes of a group."""
    network, loss, targets = trained["network"], trained["loss"], validation.targets
    logits = inference.logits(network, images, validation.rows, batch_size=4 * batch_size, on=on, group=group).to(on)
    with torch.no_grad():
        value = float(loss(logits=logits, targets=torch.from_numpy(targets).to(on)))
        scores = loss.label_logits(logits).cpu().numpy()
        decided = loss.log_posterior(logits).argmax(dim=1).cpu().numpy()
    auroc = discrimination.macro(discrimination.per_label(scores=scores, truth=targets, classes=loss.classes), "auroc")
    distance = distances.mean_distance(decided=decided, labels=targets, cost=cost, hierarchy=loss.hierarchy)
    return group.agreed(
        {
            "validation_loss": value,
            "validation_macro_auroc": math.nan if auroc is None else auroc,
            "validation_hd_at_1": math.nan if distance is None else distance,
        }
    )


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _states(engine: Engine) -> dict[str, dict[str, Any]]:
    states = {"trained": engine.trained.state_dict(), "optimiser": engine.optimiser.adamw.state_dict()}
    return states | ({"average": engine.average.state_dict()} if engine.average else {})


def _resume(checkpoint: Checkpoint | None, engine: Engine) -> _Progress:
    saved = engine.group.agreed(checkpoint.load() if checkpoint else None)
    if saved is None:
        return _Progress()
    engine.trained.load_state_dict(saved["trained"])
    engine.optimiser.adamw.load_state_dict(saved["optimiser"])
    if engine.average:
        engine.average.load_state_dict(saved["average"])
    if checkpoint:
        print(f"resuming after epoch {saved['progress']['epoch']}")
    return _Progress(**saved["progress"])
