"""MixFormer's online tracker, and STPN in it: prompts from the search crops of earlier frames.

A frame t costs one pass of the network over its search crop. With a predictor, every S-th crop
also passes without prompts; what this pass gives is remembered and supports later frames: 1 + 1/S
passes a frame. Support frames are t's latest K multiples of S before t, so nothing is seen that a
tracker could not have seen; the first is frame 0, with the crop around the given box.

The support crop of frame s is the crop that was searched in at s, around the box of frame s - 1;
or, as an option, half of it around the box that was found in s. It is encoded with the templates
that were valid then. What a frame is supported by thus depends on where the tracker was, as its
search crop does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stpn_core import SupportMemory, memory_capacity
from stpn_data.sequences import boxes_on_frame
from stpn_tasks.tracking.crops import Box, CropWindow, Image, clip_box, to_input
from stpn_tasks.tracking.options import TrackerOptions
from stpn_tasks.tracking.protocol import TrackingNetwork


class TrackResult(NamedTuple):
    """What a tracker gives for a frame.

    Attributes:
        box_xywh: x, y, width, height of the target in pixels of the frame, on it.
        score: of the target being there, 0 .. 1; None from a network without a score.
        is_lost: the score is below `TrackerOptions.lost_score`; the box is where it might be.
    """

    box_xywh: Box
    score: float | None
    is_lost: bool


@dataclass
class TrackerState:
    """Where a tracker stands after a frame; ``copy.deepcopy`` makes a snapshot.

    Attributes:
        frame: number of the latest frame; the one with the given box is 0.
        frame_size: (height, width) of every frame.
        box: x, y, width, height of the target there.
        template: (1, 3, T, T), the initial template.
        online: the online templates, (1, 3, T, T) each.
        templates: both, as the network encoded them.
        candidate: the next online template, (1, 3, T, T).
        best_score: decayed score of the candidate; -1 for the initial template.
        oldest: which online template is replaced next.
        memory: embeddings of the support frames; None without a predictor.
        support: the support frames that `prompts` was predicted from.
        prompts: the latest prompts, reused as long as the support frames stay the same.
    """

    frame: int
    frame_size: tuple[int, int]
    box: Box
    template: Tensor
    online: list[Tensor]
    templates: Any
    candidate: Tensor
    best_score: float = -1.0
    oldest: int = 0
    memory: SupportMemory | None = None
    support: tuple[int, ...] = ()
    prompts: list[Tensor] = field(default_factory=list)


class OnlineTracker:
    """Track one target through a video, frame by frame.

        tracker = OnlineTracker(network.eval(), TrackerOptions())
        tracker.init(first_frame, (x, y, width, height))
        for frame in later_frames:
            box_xywh, score, is_lost = tracker.track(frame)

    Neither motion model, window nor smoothing: the predicted box, clipped to the frame, is where
    the next search crop lies. The score only decides which frames become online templates: of an
    interval the one with the best score above a threshold, else the initial template. Without a
    score it is the last frame of the interval.

    Args:
        network: finds the target in crops; put it in eval mode first.
        options: crops, templates and support frames.
        device: where the network is.

    Attributes:
        state: where the tracker stands; None before `init`.
    """

    def __init__(
        self,
        network: TrackingNetwork,
        options: TrackerOptions,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network
        self.options = options
        self.device = torch.device(device)
        self.state: TrackerState | None = None

    @torch.no_grad()
    def init(self, frame: Image, box_xywh: Sequence[float]) -> None:
        """Begin with a target: frame 0. What was tracked before is forgotten, unless this fails.

        Args:
            frame: (H, W, 3) uint8 RGB.
            box_xywh: x, y, width, height of the target in pixels.

        Raises:
            ValueError: another frame, or a box without an area on it, or too small or too large for
                a crop.
        """
        _check_frame(frame, 0)
        x, y, width, height = (float(value) for value in box_xywh)
        box, size = (x, y, width, height), (frame.shape[0], frame.shape[1])
        if not (np.isfinite(box).all() and boxes_on_frame(np.array([box]), size)[0]):
            raise ValueError(f"the box {list(box)} has no area on a frame of {size}")
        template = self._template(frame, box)
        state = TrackerState(
            frame=0,
            frame_size=size,
            box=box,
            template=template,
            online=[template],
            templates=self._encode(template, [template]),
            candidate=template,
        )
        self._remember(state, frame, self._search(frame, box)[1])
        self.state = state

    @torch.no_grad()
    def track(self, frame: Image) -> TrackResult:
        """Find the target in the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB, of the size of the first.

        Raises:
            ValueError: no target was given, another frame, or a network whose box or score is not
                finite; the state stays that of the frame before.
        """
        state = self.state
        if state is None:
            raise ValueError("there is no target to track: call init with a frame and its box")
        number = state.frame + 1
        _check_frame(frame, number)
        if frame.shape[:2] != state.frame_size:
            raise ValueError(
                f"frame {number} is {frame.shape[1]}x{frame.shape[0]}, the first one "
                f"{state.frame_size[1]}x{state.frame_size[0]}"
            )
        window, search = self._search(frame, state.box)
        found = self.network.track(search, state.templates, self._prompts(state, number))
        numbers = found.boxes_cxcywh[0].tolist()
        score = None if found.scores is None else float(found.scores[0].sigmoid())
        _check_found(numbers, score, number)
        state.frame = number
        margin = self.options.clip_margin
        state.box = clip_box(window.to_frame(numbers), state.frame_size, margin)
        self._remember(state, frame, search)
        self._renew_templates(state, frame, score)
        is_lost = score is not None and score < self.options.lost_score
        return TrackResult(state.box, score, is_lost)

    def _renew_templates(self, state: TrackerState, frame: Image, score: float | None) -> None:
        """Keep the best frame of the interval; at its end, let it join the templates."""
        options = self.options
        if options.update_interval is None:
            return
        ends = state.frame % options.update_interval == 0
        state.best_score *= options.score_decay
        if score is None:
            if ends:
                state.candidate = self._template(frame, state.box)
        elif score > options.update_score and score > state.best_score:
            state.candidate, state.best_score = self._template(frame, state.box), score
        if not ends:
            return
        if len(state.online) < options.online_size:
            state.online.append(state.candidate)
        else:
            state.online[state.oldest] = state.candidate
            state.oldest = (state.oldest + 1) % options.online_size
        state.templates = self._encode(state.template, state.online)
        state.candidate, state.best_score = state.template, -1.0

    def _prompts(self, state: TrackerState, number: int) -> list[Tensor] | None:
        """Return the prompts of frame `number`."""
        if state.memory is None:
            return None
        support = tuple(self.options.support(number, None))
        if support != state.support:
            state.support = support
            state.prompts = self.network.predict_prompts(state.memory.gather(support))
        return state.prompts

    def _remember(self, state: TrackerState, frame: Image, search: Tensor) -> None:
        """Encode the support crop without prompts if this frame supports later ones.

        Args:
            state: with the box that was found in the frame.
            frame: the latest.
            search: the crop that was searched in.
        """
        options, sampler = self.options, self.options.support
        if self.network.predictor is None or not sampler.embeds(state.frame):
            return
        crop = search
        if options.support_crop == "target":
            crop = self._crop(frame, state.box, options.support_factor, options.support_size)[1]
        tokens = self.network.track(crop, state.templates).search_tokens
        embedding = self.network.embed_support(tokens)  # (1, n, d)
        if state.memory is None:
            state.memory = SupportMemory.like(embedding, memory_capacity(sampler))
        state.memory.push(state.frame, embedding)

    def _encode(self, template: Tensor, online: Sequence[Tensor]) -> Any:
        return self.network.encode_templates(template, torch.stack(list(online), dim=1))

    def _search(self, frame: Image, box: Box) -> tuple[CropWindow, Tensor]:
        return self._crop(frame, box, self.options.search_factor, self.options.search_size)

    def _template(self, frame: Image, box: Box) -> Tensor:
        return self._crop(frame, box, self.options.template_factor, self.options.template_size)[1]

    def _crop(self, frame: Image, box: Box, factor: float, size: int) -> tuple[CropWindow, Tensor]:
        window = CropWindow.around(box, factor, size)
        return window, to_input([window.cut(frame)]).to(self.device)


def _check_frame(frame: Image, number: int) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
        raise ValueError(
            f"frame {number} must be (H, W, 3) uint8 RGB, got {frame.shape} {frame.dtype}"
        )


def _check_found(box: list[float], score: float | None, number: int) -> None:
    if not all(map(math.isfinite, box)):
        raise ValueError(f"the network's box in frame {number} is not finite: {box}")
    if score is not None and not math.isfinite(score):
        raise ValueError(f"the network's score in frame {number} is not finite: {score}")
