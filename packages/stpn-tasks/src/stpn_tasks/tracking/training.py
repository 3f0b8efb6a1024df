"""Two-stage training of a tracker: everything but the score module, then the score module."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stpn_data.sequences import TrackingDataset
from stpn_tasks.checkpoints import check_writable, has_checkpoint
from stpn_tasks.claims import claim_folder, claim_sequences
from stpn_tasks.engine import train
from stpn_tasks.recipe_json import to_json
from stpn_tasks.recipes import CHECKPOINT_EVERY, OptimRecipe
from stpn_tasks.tables import write_training
from stpn_tasks.tracking.batch import TrackBatch, collate_tracks
from stpn_tasks.tracking.build import Stage, build_network, build_samples
from stpn_tasks.tracking.checkpoint import save_tracker
from stpn_tasks.tracking.losses import (
    BoxLosses,
    PlacedBoxLosses,
    ScoreLosses,
    box_losses,
    place_loss,
    score_losses,
)
from stpn_tasks.tracking.mixformer import MixFormer, Tracked
from stpn_tasks.tracking.recipes import TrackingRecipe
from stpn_tasks.tracking.samples import TrainingCrops

_Stage: TypeAlias = (
    "tuple[Stage, OptimRecipe, Callable[[MixFormer], _StageTraining], TrainingCrops]"
)


def train_tracker(
    recipe: TrackingRecipe,
    sequences: TrackingDataset,
    output: Path,
    *,
    accelerator: Accelerator,
    num_workers: int = 0,
    checkpoint_every: int = CHECKPOINT_EVERY,
    accumulate: int = 1,
    title: str = "train",
    line: int = 0,
) -> Path:
    """Train the tracker of a recipe in its two stages and return the path of its weights.

    Begins where an earlier run in the same folder stopped, at its last whole checkpoint.

    Args:
        recipe: what to train and how.
        sequences: annotated sequences.
        output: folder for ``model.safetensors``, ``recipe.json``, ``data.json``,
            ``training.json`` and checkpoints.
        accelerator: devices and processes.
        num_workers: processes that load samples.
        checkpoint_every: steps from one checkpoint to the next.
        accumulate: micro-batches that a process makes of its samples of a step, to save memory.
        title: what progress bars say.
        line: of the terminal that they are in.

    Raises:
        DataError: if the sequences do not serve a stage.
        FloatingPointError: if a loss or a gradient is not finite; names the step.
        OSError: if a checkpoint cannot be written; names its folder, the reason and the last one.
        ValueError: if the folder holds a run of another recipe or on other data.
    """
    stages = _stages(recipe, sequences)
    check_writable(output, accelerator)
    claim_folder(output, to_json(recipe), accelerator)
    claim_sequences(output, sequences, accelerator)
    start, resumed = time.perf_counter(), has_checkpoint(output / "checkpoints")
    weights: dict[str, Tensor] = {}
    history = {}
    for stage, optim, training, samples in stages:
        network = build_network(recipe, score=stage == "score", load_weights=_loads(recipe, stage))
        network.load_state_dict(weights, strict=False)  # all but the score module's
        if stage == "box":
            centre_on_samples(network, recipe, samples, accelerator.device)
        history[stage] = train(
            training(network),
            samples,
            collate_tracks,
            optim,
            accelerator=accelerator,
            seed=recipe.seed,
            checkpoints=output / "checkpoints" / stage,
            checkpoint_every=checkpoint_every,
            accumulate=accumulate,
            num_workers=num_workers,
            title=f"{title}, {stage}",
            line=line,
        )
        weights = network.cpu().state_dict()
    path = output / "model.safetensors"
    if accelerator.is_main_process:
        save_tracker(path, network, recipe)
        write_training(output, history, start, resumed=resumed, device=accelerator.device)
    accelerator.wait_for_everyone()
    return path


def _stages(recipe: TrackingRecipe, sequences: TrackingDataset) -> list[_Stage]:
    """Return the stages with their samples, so that what one lacks is told before the first."""
    box_training = partial(BoxTraining, place_weight=recipe.place_weight)
    stages: list[_Stage] = [
        ("box", recipe.box, box_training, build_samples(recipe, sequences, "box", recipe.box))
    ]
    if recipe.has_score:
        samples = build_samples(recipe, sequences, "score", recipe.score)
        stages.append(("score", recipe.score, ScoreTraining, samples))
    return stages


def _loads(recipe: TrackingRecipe, stage: Stage) -> bool:
    """Tell whether a stage reads the recipe's weights: the second one for a tracker's score."""
    return stage == "box" or recipe.network.mixformer is not None


@torch.no_grad()
def centre_on_samples(
    network: MixFormer, recipe: TrackingRecipe, samples: TrainingCrops, device: torch.device
) -> None:
    """Centre the network's predictor on as many training samples as its recipe says.

    Args:
        network: moved to the device, and put in eval mode.
        recipe: of the network.
        samples: their support crops are encoded beside their templates.
        device: where to encode them.

    Raises:
        ValueError: if there is nothing to centre.
    """
    number = min(recipe.prompts.centre_samples, len(samples))
    if number == 0:
        return
    predictor = network.predictor
    if predictor is None or not predictor.can_centre:
        raise ValueError(
            f"prompts.centre_samples must be 0 for the predictor {recipe.prompts.predictor!r}: "
            "it has no reduction"
        )
    network.to(device).eval()
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(recipe.seed))
    means = []
    for index in order[:number].tolist():
        batch = collate_tracks([samples[index]]).to(device)
        assert batch.support is not None
        templates = network.encode_templates(batch.template, batch.online)
        crops = batch.support.flatten(0, 1)  # (K, 3, C, C)
        found = network.track(crops, templates.repeat_interleave(len(crops)))
        means.append(found.search_tokens.mean((0, 1)))  # (C,)
    predictor.centre(torch.stack(means).mean(0))


class _StageTraining(nn.Module):
    """A network as the engine trains it: called with a batch, it returns losses."""

    def __init__(self, network: MixFormer) -> None:
        super().__init__()
        self.network = network

    def track(self, batch: TrackBatch, score_boxes: Tensor | None = None) -> Tracked:
        """Encode templates, predict prompts if there is a predictor, and search."""
        network = self.network
        templates = network.encode_templates(batch.template, batch.online)
        prompts = None
        if network.predictor is not None:
            if batch.support is None:
                raise ValueError("this tracker reads support crops, but the samples have none")
            embeddings = network.embed_support_crops(batch.support, templates)
            prompts = network.predict_prompts(embeddings)
        return network.track(batch.search, templates, prompts, score_boxes)


class BoxTraining(_StageTraining):
    """The first stage: all weights but the score module's, on the losses of boxes.

    Args:
        network: what is trained.
        place_weight: of the cross entropy of the corners' cells; MixFormer has none.
    """

    def __init__(self, network: MixFormer, place_weight: float = 0.0) -> None:
        super().__init__(network)
        self.place_weight = place_weight

    def forward(self, batch: TrackBatch) -> BoxLosses:
        """Return the losses of the boxes found."""
        found = self.track(batch)
        losses = box_losses(found.boxes_cxcywh, batch.boxes_xyxy)
        if not self.place_weight:
            return losses
        place = self.place_weight * place_loss(found.corner_logits, batch.boxes_xyxy)
        return PlacedBoxLosses(losses.ciou, losses.l1, place)


class ScoreTraining(_StageTraining):
    """The second stage: the score module alone, on scores of the annotated boxes.

    All else is frozen, norms and stochastic depth included.
    """

    def __init__(self, network: MixFormer) -> None:
        super().__init__(network)
        network.requires_grad_(False)
        self._score_head.requires_grad_(True)

    @property
    def _score_head(self) -> nn.Module:
        if self.network.score_head is None:
            raise ValueError("the second stage trains the score module, which is not there")
        return self.network.score_head

    def train(self, mode: bool = True) -> ScoreTraining:
        """Set the score module's mode; all else stays in that of testing."""
        super().train(False)
        self._score_head.train(mode)
        return self

    def forward(self, batch: TrackBatch) -> ScoreLosses:
        """Return the loss of the scores of the annotated boxes."""
        start, end = batch.boxes_xyxy[:, :2], batch.boxes_xyxy[:, 2:]
        boxes_cxcywh = torch.cat([(start + end) / 2, end - start], dim=1)
        scores = self.track(batch, boxes_cxcywh).scores
        assert scores is not None
        return score_losses(scores, batch.is_positive)
