"""Training and evaluation: two functions, on accelerate.

Devices, mixed precision, several processes and the state of random generators are
accelerate's; ``accelerate launch`` starts more than one process.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from stpn_tasks.checkpoints import Checkpoints, Progress
from stpn_tasks.order import StepSampler
from stpn_tasks.recipes import CHECKPOINT_EVERY, OptimRecipe
from stpn_tasks.termination import Terminated, TerminationWish, ignore_in_worker

Result = TypeVar("Result")


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


@contextmanager
def main_process_first(accelerator: Accelerator) -> Iterator[None]:
    """Let the other processes of a machine begin when its main one is done, or has failed.

    So what all of them need is rendered or downloaded once.
    """
    if not accelerator.is_local_main_process:
        accelerator.wait_for_everyone()
    try:
        yield
    finally:
        if accelerator.is_local_main_process:
            accelerator.wait_for_everyone()


def fast_precision(device: torch.device | str) -> Literal["no", "bf16"]:
    """Return "bf16" where a device has instructions for it, otherwise "no".

    On two cores with AVX-512 BF16 a step of the small recipe takes 0.65 of its float32 time.
    """
    if torch.device(device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    has = torch.cpu.get_capabilities()
    names = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
    return "bf16" if any(has.get(name, False) for name in names) else "no"


def parameter_groups(
    model: nn.Module, optim: OptimRecipe, undecayed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Group trained parameters by what the optimiser does to them.

    As in the authors' recipe, norms and relative-position tables do not decay; biases and the
    learned queries do. The rate of a group is that of the schedule times its ``factor``.

    Args:
        model: whose parameters are trained.
        optim: rates and decay.
        undecayed: names of further parameters that do not decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            still = "norm" in name or "relative_position_bias_table" in name or name in undecayed
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
    checkpoint_every: int = CHECKPOINT_EVERY,
    accumulate: int = 1,
    num_workers: int = 0,
    undecayed: Collection[str] = (),
    title: str = "train",
    line: int = 0,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Minimise the losses that the model returns for batches of clips.

    The losses must be means over the clips of a batch: then a step of images of one size is the
    same, but for what the model draws, however its clips are shared out over processes and
    micro-batches. Images of several sizes are padded to the largest of their micro-batch, which
    windows and convolutions near the borders see.

    Args:
        model: called with a batch; returns a dataclass of losses with ``total``; trained in
            place.
        dataset: what to train on.
        collate: makes a batch of a list of items; the batch has a method ``to(device)``.
        optim: optimiser and schedule.
        accelerator: devices and processes.
        seed: of the order of the items, and of all that the model draws.
        checkpoints: folder of the last two checkpoints; if it holds one, training goes on from
            it, to the same weights as without the break. With it, SIGTERM leaves one, too.
        checkpoint_every: steps from one checkpoint to the next; there is also one at the end of
            each epoch.
        accumulate: micro-batches that a process makes of its clips of a step, to save memory.
        num_workers: processes that load items.
        undecayed: names of parameters that do not decay, beside those of `parameter_groups`.
        title: what the progress bar says.
        line: of the terminal, where several processes show bars.
        progress: show the bar.

    Returns:
        Mean losses of every epoch, over all processes, those before the checkpoint included.

    Raises:
        FloatingPointError: if a loss, or the gradient but with fp16, is not finite, before the
            weights change; names step and losses.
        OSError: if a checkpoint cannot be written; names its folder, the reason and the last one.
        Terminated: if SIGTERM came; a checkpoint was written after the step.
        ValueError: if the data set is empty, the clips of a step cannot be shared out equally, or
            no checkpoint is whole or the last one is of another run; names files and values.
    """
    if len(dataset) == 0:
        raise ValueError("there is nothing to train on: the data set has no key frames")
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    set_seed(seed, device_specific=True)
    sampler = StepSampler(
        len(dataset),
        len(dataset) if optim.epoch_size is None else optim.epoch_size,
        optim.batch_size,
        seed,
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
        accumulate=accumulate,
    )
    loader = DataLoader(
        cast("Dataset[Any]", dataset),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=num_workers,
        pin_memory=accelerator.device.type == "cuda",
        worker_init_fn=ignore_in_worker,
        generator=torch.Generator().manual_seed(seed),  # of its own: draws nothing of the model's
    )
    optimizer = torch.optim.AdamW(parameter_groups(model, optim, undecayed), lr=optim.lr)
    model, optimizer = accelerator.prepare(model, optimizer)
    saved, done = None, Progress()
    if checkpoints is not None:
        run = {**dataclasses.asdict(optim), "seed": seed, "clips": len(dataset)}
        saved = Checkpoints(checkpoints, {**run, "accumulate": accumulate}, accelerator)
        done = saved.resume()
    steps, total = sampler.steps, sampler.steps * optim.epochs
    model.train()
    bar = tqdm(
        total=total,
        initial=done.step,
        desc=title,
        position=line,
        unit="step",
        disable=not (progress and accelerator.is_local_main_process),
    )
    with bar, TerminationWish(heeded=saved is not None) as wish:
        while done.step < total:
            epoch, first = divmod(done.step, steps)
            sampler.start(epoch, first)
            dataset.set_epoch(epoch)
            batches = iter(loader)
            for step in range(done.step, (epoch + 1) * steps):
                losses = _backward(model, islice(batches, accumulate), accumulate, accelerator)
                values, ends = _everywhere(losses, wish.came, accelerator)
                if not all(map(math.isfinite, values.values())):
                    raise FloatingPointError(f"the loss is not finite at step {step}: {values}")
                if not _limit_gradients(model, optim.clip_norm, accelerator):
                    raise FloatingPointError(
                        f"the gradient is not finite at step {step}, the losses are: {values}"
                    )
                _update(optimizer, optim.lr * learning_rate_factor(step, optim, steps))
                done = done.after(values, steps)
                bar.update()
                bar.set_postfix(loss=f"{sum(values.values()):.3f}", refresh=False)
                due = ends or done.step % steps == 0 or done.step % checkpoint_every == 0
                if saved is not None and due:
                    saved.save(done)
                if ends and done.step < total:
                    raise Terminated(
                        f"ended by SIGTERM after step {done.step} of {total}: the same command "
                        f"goes on from the checkpoint in {checkpoints}"
                    )
            del batches  # and with it the processes that load items
    accelerator.free_memory()
    return done.losses


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


def _backward(
    model: nn.Module, batches: Iterator[Any], accumulate: int, accelerator: Accelerator
) -> dict[str, Tensor]:
    """Add up the gradients of the micro-batches of a step; return its losses in this process.

    Processes exchange gradients with the last micro-batch.
    """
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(batches, start=1):
        with nullcontext() if number == accumulate else accelerator.no_sync(model):
            losses: Losses = model(batch.to(accelerator.device))
            accelerator.backward(losses.total / accumulate)
        for item in dataclasses.fields(losses):  # type: ignore[arg-type]
            value = getattr(losses, item.name).detach() / accumulate
            sums[item.name] = sums[item.name] + value if item.name in sums else value
    return sums


def _limit_gradients(model: nn.Module, clip_norm: float | None, accelerator: Accelerator) -> bool:
    """Clip the gradients of a step; return whether they may reach the weights.

    Processes have the same gradients, so that all of them go on or fail. With fp16 any may: the
    scaler leaves out steps that are not finite, and lowers its scale.
    """
    limit = math.inf if clip_norm is None else clip_norm  # which changes no finite gradient
    norm = accelerator.clip_grad_norm_(model.parameters(), limit)
    return accelerator.scaler is not None or bool(torch.isfinite(norm))


def _update(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    optimizer.zero_grad()


def _everywhere(
    losses: dict[str, Tensor], ends: bool, accelerator: Accelerator
) -> tuple[dict[str, float], bool]:
    """Return the mean losses over all processes, and whether one of them shall end.

    So all processes go on, end or fail together, for one exchange and one synchronisation.
    """
    values = torch.stack(list(losses.values()))
    mine = torch.cat((values, values.new_tensor([float(ends)])))
    *means, anyone = accelerator.reduce(mine, "mean").tolist()
    return dict(zip(losses, means, strict=True)), anyone > 0
