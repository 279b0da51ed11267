"""Training one network: AdamW, warm-up and cosine, gradient clipping, the best epoch by validation macro-AUROC."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pandas
import timm.optim
import torch
from tqdm import tqdm

from severity import discrimination, files, inference
from severity import params as parameters
from severity.errors import SeverityError, nearest
from severity.images import Augmentation, batch
from severity.links import LOSS_PREFIX, Link
from severity.runs import Run, seed_for

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}
# The state of an unfinished run is saved when this many seconds have passed since the last time: often enough to lose
# little, seldom enough that a short run never pays for it.
SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class Split:
    """The rows of one split: `rows` (n,) into the prepared images, `targets` (n, K) float32, NaN = masked."""

    rows: numpy.ndarray
    targets: numpy.ndarray


@dataclass
class _State:
    """What a resumed run needs beside the network and the optimiser."""

    epoch: int = 0
    best_auroc: float = -1.0
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    network: torch.nn.Module,
    loss: Link,
    images: numpy.ndarray,
    train: Split,
    validation: Split,
    run: Run,
    scratch: Path,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_epochs: float,
    gradient_clip: float,
    precision: str,
    device: str,
    augmentation: dict,
) -> tuple[dict[str, torch.Tensor], pandas.DataFrame]:
    """Train `network` with `loss` and return its best weights and the history of its epochs.

    The same arguments give the same result on the same machine, also when training was killed and resumed: order of
    images, augmentation and dropout depend on the run's name and the epoch alone.

    Args:
        network: gives ``loss.outputs`` logits for (B, 1, H, W) images in [0, 1].
        loss: what to train with; parameters of its own are trained along.
        images: (N, H, W) uint8, usually memory-mapped; only the rows of a batch are read at a time.
        run: names the random numbers. scratch: folder for the state of the unfinished run.
        epochs, batch_size, learning_rate, weight_decay: of AdamW; norms and biases do not decay.
        warmup_epochs: epochs (also a part of one) in which the learning rate rises linearly; then it falls as a cosine.
        gradient_clip: largest norm of the gradient over all weights, the loss's included.
        precision: ``float32``, or ``bfloat16`` for autocast. device: ``auto``, ``cpu``, ``cuda``, ``cuda:<n>``.
        augmentation: options of `severity.images.Augmentation`.

    Returns:
        the state dict of the network, with that of the loss under ``loss.``, in the epoch with the highest validation
        macro-AUROC (the first of equals), on the CPU; and one row an epoch: epoch, learning_rate (at its end), train_loss, validation_loss, validation_macro_auroc, best.

    Raises:
        SeverityError: an option is out of range, the loss is no longer a finite number, no training image carries
            information for the loss, or no validation label has both positive and negative images.
    """
    _check(epochs, batch_size, learning_rate, weight_decay, warmup_epochs, gradient_clip, precision)
    augment = parameters.call(Augmentation, values=augmentation, where="train.augmentation")
    on = inference.device(device)
    loss.cpu().observe(torch.from_numpy(train.targets))
    network, loss = inference.placed(network, on), loss.to(on)
    train = informative(loss, train)
    trained = torch.nn.ModuleDict({"network": network, "loss": loss})
    optimizer = torch.optim.AdamW(timm.optim.param_groups_weight_decay(trained, weight_decay), lr=learning_rate)
    steps = math.ceil(len(train.rows) / batch_size)
    schedule = Schedule(learning_rate, warmup=round(warmup_epochs * steps), total=epochs * steps)
    state, saved = _resume(scratch, trained, optimizer), time.monotonic()
    progress = tqdm(total=epochs * steps, initial=state.epoch * steps, desc=run.name, unit="batch", disable=None)
    for epoch in range(state.epoch, epochs):
        loss.at_epoch(epoch, epochs)
        train_loss = _train_epoch(
            network, loss, images, train, optimizer, schedule,
            run=run, epoch=epoch, steps=steps, clip=gradient_clip, precision=precision, augment=augment, on=on,
            progress=progress,
        )  # fmt: skip
        if not math.isfinite(train_loss):
            raise SeverityError(
                f"{run.name}: in epoch {epoch + 1} the training loss became {train_loss}. Lower train.learning_rate "
                f"({learning_rate:g}) or train.gradient_clip ({gradient_clip:g}) in params.yaml, lengthen "
                f"train.warmup_epochs, or check losses.{run.loss}."
            )
        validation_loss, auroc = _validate(network, loss, images, validation, batch_size=batch_size, on=on)
        state.history.append(
            {
                "epoch": epoch + 1,
                "learning_rate": schedule((epoch + 1) * steps - 1),
                "train_loss": train_loss,
                "validation_loss": validation_loss,
                "validation_macro_auroc": auroc,
            }
        )
        state.epoch = epoch + 1
        if auroc > state.best_auroc:
            state.best_auroc = auroc
            state.best = _copied(network.state_dict()) | _copied(loss.state_dict(prefix=LOSS_PREFIX))
        progress.set_postfix(loss=f"{train_loss:.4f}", auroc=f"{auroc:.4f}")
        if time.monotonic() - saved > SAVE_SECONDS:
            _save(scratch, trained, optimizer, state)
            saved = time.monotonic()
    progress.close()
    history = pandas.DataFrame(state.history)
    history["best"] = (history.index == history["validation_macro_auroc"].idxmax()).astype(int)
    return state.best, history


@dataclass(frozen=True)
class Schedule:
    """Learning rate of a step: linear from 0 over `warmup` steps, then half a cosine down to 0 at `total` steps."""

    peak: float
    warmup: int
    total: int

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.total - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * share))


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
            "least 2. Check the split, the label policies (prepare in params.yaml) and the labels 'excluded' in the tree."
        )
    return Split(split.rows[kept], split.targets[kept])


def _check(
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_epochs: float,
    gradient_clip: float,
    precision: str,
) -> None:
    for name, value, right, rule in (
        ("epochs", epochs, epochs >= 1, "1 or more"),
        ("batch_size", batch_size, batch_size >= 2, "2 or more"),
        ("learning_rate", learning_rate, learning_rate > 0, "above 0"),
        ("weight_decay", weight_decay, weight_decay >= 0, "0 or more"),
        ("warmup_epochs", warmup_epochs, 0 <= warmup_epochs < epochs, f"0 or more and below epochs ({epochs})"),
        ("gradient_clip", gradient_clip, gradient_clip > 0, "above 0"),
    ):
        if not right:
            raise SeverityError(f"params.yaml: train.{name} is {value}; it must be {rule}.")
    if precision not in PRECISIONS:
        raise SeverityError(f"params.yaml: train.precision is {precision!r}. {nearest(precision, PRECISIONS)}")


def _train_epoch(
    network: torch.nn.Module,
    loss: Link,
    images: numpy.ndarray,
    train: Split,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    run: Run,
    epoch: int,
    steps: int,
    clip: float,
    precision: str,
    augment: Augmentation,
    on: torch.device,
    progress: tqdm,
) -> float:
    """One pass over the training images; returns the mean loss per image."""
    seed = seed_for(run.name, "epoch", epoch)
    torch.manual_seed(seed)  # Dropout and the like.
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train.rows), generator=generator).numpy()
    network.train()
    total = torch.zeros((), device=on)
    # Batches of nearly equal size: a last batch of one image would break batch normalisation.
    for number, chosen in enumerate(numpy.array_split(order, steps)):
        for group in optimizer.param_groups:
            group["lr"] = schedule(epoch * steps + number)
        inputs = augment(batch(images, train.rows[chosen], on), generator)
        targets = torch.from_numpy(train.targets[chosen]).to(on)
        with torch.autocast(on.type, dtype=PRECISIONS[precision], enabled=PRECISIONS[precision] is not None):
            value = loss(logits=network(inputs), targets=targets)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_([*network.parameters(), *loss.parameters()], clip)
        optimizer.step()
        total += value.detach() * len(chosen)
        progress.update()
    return float(total) / len(order)


def _validate(
    network: torch.nn.Module,
    loss: Link,
    images: numpy.ndarray,
    validation: Split,
    *,
    batch_size: int,
    on: torch.device,
) -> tuple[float, float]:
    """Mean loss and macro-AUROC over the validation images."""
    logits = inference.logits(network, images, validation.rows, batch_size=4 * batch_size, on=on).to(on)
    with torch.no_grad():
        value = float(loss(logits=logits, targets=torch.from_numpy(validation.targets).to(on)))
        marginal = loss.marginal(logits).cpu().numpy()
    labels = discrimination.per_label(marginal=marginal, truth=validation.targets, classes=loss.classes)
    auroc = discrimination.macro(labels, "auroc")
    if auroc is None:
        raise SeverityError(
            f"No label has both positive and negative images among the {len(validation.rows)} validation images, so no "
            "epoch can be called the best. Raise prepare.validation_fraction in params.yaml."
        )
    return value, auroc


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _save(scratch: Path, trained: torch.nn.Module, optimizer: torch.optim.Optimizer, state: _State) -> None:
    with files.replacing(scratch / "state.pt") as beside:
        torch.save({"trained": trained.state_dict(), "optimizer": optimizer.state_dict(), **vars(state)}, beside)


def _resume(scratch: Path, trained: torch.nn.Module, optimizer: torch.optim.Optimizer) -> _State:
    path = scratch / "state.pt"
    if not path.exists():
        return _State()
    saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    trained.load_state_dict(saved.pop("trained"))
    optimizer.load_state_dict(saved.pop("optimizer"))
    print(f"resuming after epoch {saved['epoch']}")
    return _State(**saved)
