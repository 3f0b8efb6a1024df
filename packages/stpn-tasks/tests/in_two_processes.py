"""What each of several processes does in ``test_processes.py``; leaves what it saw as json."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import tiny
import torch

from stpn_tasks.detection.build import build_detector
from stpn_tasks.detection.checkpoint import SavedDetector
from stpn_tasks.detection.data import build_clips, build_collate
from stpn_tasks.detection.run import evaluate_saved
from stpn_tasks.engine import evaluate, make_accelerator, train
from stpn_tasks.recipes import SupportOptions
from stpn_tasks.termination import Terminated

VIDEOS = ((6, 64, 96), (6, 64, 96), (4, 64, 64), (5, 48, 96), (6, 64, 96))


def exhaustive_recipe():
    """A recipe that draws nothing: every anchor and every region enters the loss."""
    recipe = tiny.recipe()
    head = replace(recipe.head, rpn_samples=10_000, roi_samples=10_000)
    optim = replace(recipe.optim, batch_size=4, epochs=2, epoch_size=12)
    return replace(recipe, head=head, optim=optim)


def train_detector(accumulate=1):
    """Return losses and weights of a detector trained on frames of one size."""
    recipe, videos = exhaustive_recipe(), tiny.MovingSquares(VIDEOS[:2])
    detector = build_detector(recipe, 2)
    losses = train(
        detector,
        build_clips(recipe, videos),
        build_collate(recipe),
        recipe.optim,
        accelerator=make_accelerator("cpu"),
        seed=0,
        accumulate=accumulate,
        progress=False,
    )
    return losses, {name: tensor.tolist() for name, tensor in detector.state_dict().items()}


def evaluate_detector(batch_size):
    """Return precision, and boxes and scores of all frames, as text that tells every bit."""
    recipe, videos = tiny.recipe(), tiny.MovingSquares(VIDEOS)
    saved = SavedDetector(tiny.detector(recipe), recipe, videos.classes)
    evaluation = evaluate_saved(
        saved,
        videos,
        accelerator=make_accelerator("cpu"),
        support=SupportOptions(),
        batch_size=batch_size,
    )
    found = {
        number: [(one.boxes_xyxy.tolist(), one.scores.tolist()) for one in frames]
        for number, frames in evaluation.detections.items()
    }
    return repr((evaluation.precision, evaluation.num_frames, found))


def message_of(error, run):
    """Run something that must fail; return what it says."""
    try:
        run()
    except error as raised:
        return str(raised)
    raise AssertionError(f"no {error.__name__}")


class BadPoints(tiny.PointSet):
    """Points of which one has no place."""

    def __getitem__(self, i):
        inputs, target = super().__getitem__(i)
        return (inputs * float("nan") if i == 5 else inputs), target


class BadGradient(tiny.Line):
    """A line whose loss is finite, but whose gradient is not."""

    def forward(self, batch):
        self.layers[0].weight.register_hook(lambda gradient: gradient * float("nan"))
        return super().forward(batch)


def share_points(folder, process):
    """Train on points: as it is, with a bad loss or gradient in one process, with SIGTERM to one.

    What fails, fails in both.
    """
    whole, dataset = tiny.Line(), tiny.PointSet()
    losses = tiny.fit(whole, dataset)
    no_loss = message_of(FloatingPointError, lambda: tiny.fit(tiny.Line(), BadPoints()))
    bad = (tiny.Line, BadGradient)[process]
    no_gradient = message_of(FloatingPointError, lambda: tiny.fit(bad(), tiny.PointSet()))
    signalled = tiny.PointSet(when_read=end if process == 1 else lambda number: None)
    ended = message_of(Terminated, lambda: tiny.fit(tiny.Line(), signalled, checkpoints=folder))
    resumed = tiny.Line()
    assert tiny.fit(resumed, tiny.PointSet(), checkpoints=folder) == losses
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    files = sorted(path.name for path in (folder / "step-12").iterdir())
    failed = {"no_loss": no_loss, "no_gradient": no_gradient}
    return {"items": dataset.seen, **failed, "ended": ended, "files": files}


def end(number):
    """Ask to end while the third step is loaded."""
    if number == 5:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    output = Path(sys.argv[1])
    accelerator = make_accelerator("cpu")
    rank = accelerator.process_index
    quietly = {"accelerator": accelerator, "progress": False}
    losses, weights = train_detector()
    saw = {
        "losses": losses,
        "accumulated": train_detector(accumulate=2)[0],
        "weights": weights,
        "evaluation": [evaluate_detector(size) for size in (1, 2)],
        "who": evaluate(
            lambda numbers: [rank for _ in numbers], [[i] for i in range(5)], **quietly
        ),
    }
    if accelerator.num_processes > 1:
        saw |= share_points(output / "checkpoints", rank)
    (output / f"{rank}.json").write_text(json.dumps(saw))
