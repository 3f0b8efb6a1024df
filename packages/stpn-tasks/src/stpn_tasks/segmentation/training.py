"""Training of a segmenter, from data on disk to files."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from stpn_data.batch import ClipBatch
from stpn_data.videos import VideoDataset
from stpn_tasks.centring import centre_on_clips
from stpn_tasks.checkpoints import check_writable, has_checkpoint
from stpn_tasks.claims import claim_folder, claim_videos
from stpn_tasks.engine import train
from stpn_tasks.recipe_json import to_json
from stpn_tasks.recipes import CHECKPOINT_EVERY
from stpn_tasks.segmentation.build import build_segmenter
from stpn_tasks.segmentation.checkpoint import initialise, save_segmenter
from stpn_tasks.segmentation.data import build_clips, build_collate
from stpn_tasks.segmentation.losses import SegmentationLosses
from stpn_tasks.segmentation.recipes import SegmentationRecipe
from stpn_tasks.segmentation.segmenter import MinVIS
from stpn_tasks.segmentation.semantic import SemanticHead, SemanticLosses
from stpn_tasks.tables import write_training

# Of which detectron2 lets nothing decay, beside the tables of relative positions.
_UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)


def train_segmenter(
    recipe: SegmentationRecipe,
    videos: VideoDataset,
    output: Path,
    *,
    accelerator: Accelerator,
    num_workers: int = 0,
    checkpoint_every: int = CHECKPOINT_EVERY,
    accumulate: int = 1,
    title: str = "train",
    line: int = 0,
) -> Path:
    """Train the segmenter of a recipe and return the path of its weights.

    Begins where an earlier run in the same folder stopped, at its last whole checkpoint.

    Args:
        recipe: what to train and how.
        videos: annotated videos, with masks.
        output: folder for ``model.safetensors``, ``recipe.json``, ``data.json``,
            ``training.json`` and checkpoints.
        accelerator: devices and processes.
        num_workers: processes that load clips.
        checkpoint_every: steps from one checkpoint to the next.
        accumulate: micro-batches that a process makes of its clips of a step, to save memory; the
            losses of masks are divided by the objects of each, as Mask2Former divides them by
            those of a batch, so a step is not quite the same.
        title: what the progress bar says.
        line: of the terminal that it is in.

    Raises:
        FloatingPointError: if a loss or a gradient is not finite; names the step.
        OSError: if a checkpoint cannot be written; names its folder, the reason and the last one.
        ValueError: if the folder holds a run of another recipe or on other data.
    """
    check_writable(output, accelerator)
    claim_folder(output, to_json(recipe), accelerator)
    claim_videos(output, videos, accelerator)
    start, resumed = time.perf_counter(), has_checkpoint(output / "checkpoints")
    segmenter = begin(recipe, videos, accelerator)
    training = SegmentationTraining(segmenter, recipe.semantic_weight, recipe.seed)
    history = train(
        training,
        build_clips(recipe, videos),
        build_collate(recipe),
        recipe.optim,
        accelerator=accelerator,
        seed=recipe.seed,
        checkpoints=output / "checkpoints",
        checkpoint_every=checkpoint_every,
        accumulate=accumulate,
        num_workers=num_workers,
        undecayed=undecayed_parameters(training),
        title=title,
        line=line,
    )
    weights = output / "model.safetensors"
    if accelerator.is_main_process:
        save_segmenter(weights, segmenter.cpu(), recipe, videos.classes)
        write_training(output, history, start, resumed=resumed, device=accelerator.device)
    accelerator.wait_for_everyone()
    return weights


def begin(recipe: SegmentationRecipe, videos: VideoDataset, accelerator: Accelerator) -> MinVIS:
    """Return the segmenter of a recipe before its first step, its predictor centred."""
    segmenter = build_segmenter(recipe, len(videos.classes))
    if recipe.init is not None:
        differing = initialise(segmenter, recipe.init)
        names = ", ".join(differing) or "none"
        accelerator.print(f"begins from {recipe.init}; weights in only one of the two: {names}")
    segmenter.to(accelerator.device).eval()
    centre_on_clips(
        segmenter.encoder,
        recipe.prompts,
        build_clips(recipe, videos),
        build_collate(recipe),
        seed=recipe.seed,
        device=accelerator.device,
    )
    return segmenter


class SegmentationTraining(nn.Module):
    """A segmenter as the engine trains it, with what it has in training only.

    Args:
        segmenter: what is trained.
        semantic_weight: of the cross entropy of the classes of pixels; MinVIS has none.
        seed: of the weights of the layers that say these.
    """

    def __init__(self, segmenter: MinVIS, semantic_weight: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.semantic_weight = semantic_weight
        self.semantic: SemanticHead | None = None
        if semantic_weight:
            decoder = segmenter.head.pixel_decoder
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                self.semantic = SemanticHead(
                    decoder.level_embed.shape[1], decoder.num_levels, segmenter.head.num_classes
                )

    def forward(self, batch: ClipBatch) -> SegmentationLosses:
        """Return the losses of a batch of annotated clips.

        Raises:
            ValueError: the clips lack masks, or the support frames that the segmenter reads.
        """
        segmenter = self.segmenter
        if self.semantic is None:
            losses: SegmentationLosses = segmenter(batch)
            return losses
        memory, mask_features = segmenter.head.pixel_decoder(segmenter.encode(batch))
        losses = segmenter.compare(segmenter.head.decoder(memory, mask_features), batch)
        labels = [targets.labels for targets in batch.targets]
        masks = [targets.masks for targets in batch.targets]  # which `compare` has seen to be there
        semantic = self.semantic_weight * self.semantic(memory, labels, masks)
        return SemanticLosses(losses.classification, losses.mask, losses.dice, semantic)


def undecayed_parameters(model: nn.Module) -> set[str]:
    """Name the parameters of norms and embeddings, of which MinVIS lets none decay."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _UNDECAYED)
        for name, _ in module.named_parameters(recurse=False)
    }
