"""A tracker and sequences that cost next to nothing; tests have a fixture of that name."""

import math
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from stpn_core import TransformerPredictor
from stpn_data.sequences import TrackingSequence


class ToyNetwork(nn.Module):
    """Tokens that templates and prompts move, a box near the middle, and notes on every pass."""

    def __init__(self, *, prompted, scored=True):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.box, self.score = nn.Linear(8, 4), nn.Linear(8, 1)
        self.predictor = TransformerPredictor(8, (8,), 3, num_heads=2) if prompted else None
        self.scored = scored
        self.passes, self.predictions, self.encoded = [], 0, []

    def encode_templates(self, template, online):
        assert template.shape == (1, 3, 16, 16)
        assert online.shape[2:] == (3, 16, 16)
        self.encoded.append(online)
        images = torch.cat([template, online[0]])
        return self.embed(images).mean((0, 2, 3))

    def track(self, search, templates, prompts=None):
        self.passes.append(prompts)
        tokens = self.embed(search).flatten(2).mT + templates  # (1, N, C)
        if prompts is not None:
            tokens = tokens + prompts[0].mean(1, keepdim=True)
        pooled = tokens.tanh().mean(1)
        boxes = torch.tensor([0.5, 0.5, 0.25, 0.25]) + 0.1 * self.box(pooled)
        scores = self.score(pooled)[:, 0] if self.scored else None
        return SimpleNamespace(boxes_cxcywh=boxes, scores=scores, search_tokens=tokens)

    def embed_support(self, search_tokens):
        side = math.isqrt(search_tokens.shape[1])
        return self.predictor.embed(search_tokens, (side, side))

    def predict_prompts(self, embeddings):
        self.predictions += 1
        return self.predictor.predict(embeddings)


class MovingTargets:
    """Sequences of a bright square that moves over noise; all in memory."""

    def __init__(self, lengths=(5, 7), size=(40, 50)):
        self.sequences = []
        for number, length in enumerate(lengths):
            boxes = np.array([[10 + t % 20, 8 + t % 10, 12, 10] for t in range(length)], float)
            seen = np.ones(length, bool)
            self.sequences.append(TrackingSequence(f"s{number}", size, boxes, seen, seen.copy()))
        self.read = []

    def frame(self, sequence, index):
        self.read.append((sequence, index))
        one = self.sequences[sequence]
        random = np.random.default_rng([sequence, index])
        pixels = random.integers(0, 120, (*one.size, 3)).astype(np.uint8)
        x, y, w, h = np.nan_to_num(one.boxes_xywh[index]).astype(int)
        pixels[y : y + h, x : x + w] += 100
        return pixels

    def frames(self, sequence):
        return (self.frame(sequence, t) for t in range(self.sequences[sequence].num_frames))
