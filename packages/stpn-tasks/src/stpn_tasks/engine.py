"""Training and evaluation: two functions, on accelerate.

Devices, mixed precision, several processes and the state of random generators are
accelerate's; ``accelerate launch`` starts more than one process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from stpn_tasks.files import write_text
from stpn_tasks.recipes import OptimRecipe

Result = TypeVar("Result")
# In the folder of a checkpoint: the losses so far, and what the other files must be.
_PROGRESS = "progress.json"


@runtime_checkable
class TrainingSet(Protocol):
    """A map-style data set whose random draws depend on the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch."""
        ...

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, i: int) -> Any:
        """Return item i."""
        ...


@runtime_checkable
class Losses(Protocol):
    """A dataclass of scalar losses and their sum."""

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        ...


def make_accelerator(
    device: str | None = None, mixed_precision: Literal["no", "bf16", "fp16"] = "no"
) -> Accelerator:
    """Return accelerate's view of devices and processes.

    Args:
        device: "cpu", or the kind of device that must be there, such as "cuda"; accelerate's
            choice if not given.
        mixed_precision: arithmetic of the network.

    Raises:
        ValueError: if the device is not there.
    """
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)
    if device not in (None, accelerator.device.type):
        raise ValueError(
            f"device {device!r} is not there: this machine has {accelerator.device.type!r}"
        )
    return accelerator


def fast_precision(device: torch.device | str) -> Literal["no", "bf16"]:
    """Return "bf16" where a device has instructions for it, otherwise "no".

    On two cores with AVX-512 BF16 a step of the small recipe takes 0.65 of its float32 time.
    """
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    has = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
    return "bf16" if any(has.get(name, False) for name in names) else "no"


class EpochSampler(Sampler[int]):
    """The order of an epoch: a function of seed and epoch, the same on every process count.

    Args:
        num_items: size of the data set.
        epoch_size: items drawn per epoch; more than there are go round again.
        seed: of the order.
    """

    def __init__(self, num_items: int, epoch_size: int, seed: int) -> None:
        self.num_items = num_items
        self.epoch_size = epoch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of items drawn."""
        return self.epoch_size

    def __iter__(self) -> Iterator[int]:
        """Yield indices: whole permutations, one after the other, cut at the epoch's size."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        left = self.epoch_size
        while left > 0:
            order = torch.randperm(self.num_items, generator=generator).tolist()
            yield from order[:left]
            left -= len(order)


def parameter_groups(model: nn.Module, optim: OptimRecipe) -> list[dict[str, Any]]:
    """Group trained parameters by what the optimiser does to them.

    As in the authors' recipe, norms and relative-position tables do not decay; biases and the
    learned queries do. The rate of a group is that of the schedule times its ``factor``.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            still = "norm" in name or "relative_position_bias_table" in name
            decay = 0.0 if still else optim.weight_decay
            groups.setdefault((_rate_factor(name, optim), decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (factor, decay), parameters in groups.items()
    ]


def _rate_factor(name: str, optim: OptimRecipe) -> float:
    if "backbone." in name:
        return optim.backbone_factor
    return optim.predictor_factor if "predictor." in name else 1.0


def learning_rate_factor(step: int, optim: OptimRecipe, steps_per_epoch: int) -> float:
    """Return the factor of the learning rate at a step: warm-up times schedule."""
    warms_up = step < optim.warmup_steps
    warmup = 1 / 3 + 2 / 3 * step / optim.warmup_steps if warms_up else 1.0
    if optim.schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * step / (optim.epochs * steps_per_epoch)))
    return warmup * (1.0 if step < optim.decay_epoch * steps_per_epoch else 0.1)


def train(
    model: nn.Module,
    dataset: TrainingSet,
    collate: Callable[[Sequence[Any]], Any],
    optim: OptimRecipe,
    *,
    accelerator: Accelerator,
    seed: int,
    checkpoints: Path | None = None,
    num_workers: int = 0,
    title: str = "train",
    line: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Minimise the losses that the model returns for batches of clips.

    Args:
        model: called with a batch; returns a dataclass of losses with ``total``; trained in
            place.
        dataset: what to train on.
        collate: makes a batch of a list of items; the batch has a method ``to(device)``.
        optim: optimiser and schedule.
        accelerator: devices and processes.
        seed: of the order of the items, and of all that the model draws.
        checkpoints: folder of the checkpoint of the last epoch; if it holds one, training goes
            on from it, to the same weights as without the break.
        num_workers: processes that load items.
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.

    Returns:
        Mean losses of every epoch, those before the checkpoint included.

    Raises:
        FloatingPointError: if a loss is not finite; names step and losses.
        ValueError: if the data set is empty, or the checkpoint is damaged or of another run;
            names its file.
    """
    if len(dataset) == 0:
        raise ValueError("there is nothing to train on: the data set has no key frames")
    set_seed(seed, device_specific=True)
    num_drawn = len(dataset) if optim.epoch_size is None else optim.epoch_size
    order = EpochSampler(len(dataset), num_drawn, seed)
    loader = DataLoader(
        cast("Dataset[Any]", dataset),
        optim.batch_size,
        sampler=order,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=accelerator.device.type == "cuda",
        drop_last=len(order) >= optim.batch_size * accelerator.num_processes,
        generator=torch.Generator().manual_seed(seed),  # of its own: draws nothing of the model's
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, optim), lr=optim.lr)
    module = model
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    history = _resume(accelerator, checkpoints, len(dataset))
    first = len(history)
    model.train()
    steps = len(loader)
    bar = tqdm(
        total=optim.epochs * steps,
        initial=first * steps,
        desc=title,
        position=line,
        unit="step",
        disable=not (progress and accelerator.is_local_main_process),
    )
    with bar:
        for epoch in range(first, optim.epochs):
            loader.set_epoch(epoch)  # and with it the order; else accelerate counts from zero
            dataset.set_epoch(epoch)
            sums: dict[str, float] = {}
            for index, batch in enumerate(loader):
                step = epoch * steps + index
                rate = optim.lr * learning_rate_factor(step, optim, steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["factor"]
                losses = model(batch)
                values = _finite(losses, step)
                accelerator.backward(losses.total)
                if optim.clip_norm is not None:
                    accelerator.clip_grad_norm_(module.parameters(), optim.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
                sums = {name: sums.get(name, 0.0) + value for name, value in values.items()}
                bar.update()
                bar.set_postfix(loss=f"{sum(values.values()):.3f}", refresh=False)
            history.append({name: total / steps for name, total in sums.items()})
            _checkpoint(accelerator, checkpoints, history, len(dataset))
    accelerator.free_memory()
    return history


def evaluate(
    run: Callable[[Sequence[int]], list[Result]],
    groups: Sequence[Sequence[int]],
    *,
    accelerator: Accelerator,
    title: str = "evaluate",
    line: int = 0,
    progress: bool = True,
) -> dict[int, Result]:
    """Run something on every video once, videos shared out over the processes.

    Args:
        run: takes the numbers of some videos, returns a result of each.
        groups: videos to run together.
        accelerator: devices and processes.
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.

    Returns:
        The result of each video, by its number, on every process.
    """
    mine = groups[accelerator.process_index :: accelerator.num_processes]
    results: list[tuple[int, Result]] = []
    bar = tqdm(
        total=sum(map(len, mine)),
        desc=title,
        position=line,
        unit="video",
        disable=not (progress and accelerator.is_local_main_process),
    )
    with bar, torch.no_grad(), accelerator.autocast():
        for group in mine:
            results += zip(group, run(group), strict=True)
            bar.update(len(group))
    if accelerator.num_processes > 1:
        results = gather_object(results)
    return dict(sorted(results, key=lambda pair: pair[0]))


def _finite(losses: Losses, step: int) -> dict[str, float]:
    names = [item.name for item in dataclasses.fields(losses)]  # type: ignore[arg-type]
    scalars = torch.stack([getattr(losses, name).detach() for name in names])
    values = dict(zip(names, scalars.tolist(), strict=True))  # one synchronisation
    if not all(map(math.isfinite, values.values())):
        raise FloatingPointError(f"the loss is not finite at step {step}: {values}")
    return values


def _checkpoint(
    accelerator: Accelerator, folder: Path | None, history: list[dict[str, float]], num_items: int
) -> None:
    """Write the state after an epoch, then remove older ones, so that one is always whole."""
    if folder is None:
        return
    final = folder / f"epoch-{len(history)}"
    partial = final.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        digests = {path.name: _digest(path) for path in sorted(partial.iterdir())}
        progress = {"num_items": num_items, "losses": history, "sha256": digests}
        write_text(partial / _PROGRESS, json.dumps(progress, indent=2) + "\n")
        os.replace(partial, final)
        for older in folder.glob("epoch-*"):
            if older != final:
                shutil.rmtree(older)
    accelerator.wait_for_everyone()


def _resume(
    accelerator: Accelerator, folder: Path | None, num_items: int
) -> list[dict[str, float]]:
    """Load the last whole checkpoint, if there is one; return the losses of its epochs."""
    whole = [] if folder is None else list(folder.glob("epoch-*[0-9]"))
    if not whole:
        return []
    latest = max(whole, key=lambda path: int(path.name.removeprefix("epoch-")))
    progress = _verified_progress(latest)
    if progress["num_items"] != num_items:
        raise ValueError(
            f"{latest} is of a run on {progress['num_items']} clips, this data set has "
            f"{num_items}: choose another folder"
        )
    try:
        accelerator.load_state(str(latest))
    except RuntimeError as error:  # how torch reports keys and shapes
        raise ValueError(f"{latest} is of another model: {error}") from error
    return cast("list[dict[str, float]]", progress["losses"])


def _verified_progress(checkpoint: Path) -> dict[str, Any]:
    """Read how far a checkpoint is, after a check that its files are as they were written."""
    path = checkpoint / _PROGRESS
    advice = f"remove {checkpoint} to train from the beginning"
    try:
        progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digests = progress["sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {advice}") from error
    for name, digest in digests.items():
        if not (checkpoint / name).is_file() or _digest(checkpoint / name) != digest:
            raise ValueError(f"{checkpoint / name} is missing or damaged; {advice}")
    return progress


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
