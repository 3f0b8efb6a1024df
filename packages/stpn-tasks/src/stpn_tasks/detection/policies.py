"""What a choice of support frames costs when a detector runs over a video."""

from __future__ import annotations

from dataclasses import dataclass

from stpn_core import memory_capacity
from stpn_data.sampling import VideoUniformSampler
from stpn_tasks.video_encoding import TestSampler


@dataclass(frozen=True)
class PolicyCost:
    """What an inference policy costs.

    Attributes:
        passes: over the backbone per frame, with prompts and as support frames.
        delay: frames that come in after a frame before its detections are known; ``None`` where
            the whole video must be there.
        remembered: support frames whose embeddings (and regions, with SELSA) are kept.
        waiting: frames kept until they can be detected in, the current one among them.
    """

    passes: float
    delay: int | None
    remembered: int
    waiting: int


def policy_cost(sampler: TestSampler, num_frames: int, frames_per_pass: int = 1) -> PolicyCost:
    """Count what a policy costs in a video.

    Args:
        sampler: its support frames; ``None`` for the single-frame baseline.
        num_frames: T of the video.
        frames_per_pass: frames that pass the network together.
    """
    together = frames_per_pass - 1
    if sampler is None:
        return PolicyCost(1.0, together, 0, 1 + together)
    if isinstance(sampler, VideoUniformSampler):
        support = len(set(sampler(0, num_frames)))
        return PolicyCost(1 + support / num_frames, None, support, 1 + together)
    embedded = sum(sampler.embeds(t) for t in range(num_frames))
    # The pattern of support frames repeats after as many frames as it reaches, at most.
    reach = range(sampler.past, 2 * sampler.past + 1)
    delay = max(max(0, max(sampler(t, None)) - t) for t in reach) + together
    remembered = memory_capacity(sampler, frames_per_pass)
    return PolicyCost(1 + embedded / num_frames, delay, remembered, 1 + delay)
