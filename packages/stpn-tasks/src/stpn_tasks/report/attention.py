"""Where the queries of the prompts look in the support frames."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray

from stpn_core import AttentionPredictor, TransformerPredictor
from stpn_tasks.detection.inference import VideoInference
from stpn_tasks.draw import Image
from stpn_tasks.report.page import Html, figure, text
from stpn_tasks.report.pictures import Cell, Line, Pictures, grid, thumbnail
from stpn_tasks.video_encoding import another_video

# A map is as bright as this many times the uniform weight at least, so that one that is nearly
# uniform does not look as if it had a centre.
_LEAST_PEAK = 4.0
_MOST_FRAMES = 6


@dataclass(frozen=True)
class AttentionMaps:
    """The attention of the prompts of one frame.

    Attributes:
        support: numbers of the K support frames.
        video: the video that they are from.
        weights: ``(P, K, h, w)``, of each prompt on the tokens of each support frame; those of a
            prompt add up to 1.
        shown: height and width of the part of a map that shows the frame, from 0 to 1: the rest
            is padding.
    """

    support: tuple[int, ...]
    video: int
    weights: NDArray[np.float32]
    shown: tuple[float, float]

    @property
    def uniform(self) -> float:
        """What every token would weigh if all weighed the same: 1 / (K * h * w)."""
        return 1 / int(self.weights[0].size)


def has_attention(inference: VideoInference) -> bool:
    """Tell whether a model's prompts look at support frames by attention."""
    kinds = (TransformerPredictor, AttentionPredictor)
    return inference.sampler is not None and isinstance(inference.detector.encoder.predictor, kinds)


def attention_maps(pictures: Pictures, video: int, frame: int) -> AttentionMaps:
    """Return where the prompts of a frame look.

    Args:
        pictures: with the inference of a model for which `has_attention` is true.
        video: number of the video.
        frame: number of the frame.
    """
    inference, dataset = pictures.inference, pictures.dataset
    assert inference is not None
    assert inference.sampler is not None
    encoder, prepare = inference.detector.encoder, inference.prepare
    predictor = encoder.predictor
    assert isinstance(predictor, TransformerPredictor | AttentionPredictor)
    source = video if inference.support_video == "own" else another_video(dataset, video)
    support = inference.sampler(frame, dataset.videos[video].num_frames)
    frames = [dataset.frame(source, t) for t in support]
    with torch.no_grad():
        images = prepare(frames)  # (K, 3, H, W)
        weights = predictor.attention_map(encoder.embed(images).unsqueeze(0))[0]  # (P, K, N)
    height, width = images.shape[-2:]
    rows, columns = encoder.backbone.grid_size(height, width)
    size = prepare.resized_size(frames[0])
    return AttentionMaps(
        tuple(support),
        source,
        weights.unflatten(-1, (rows, columns)).float().cpu().numpy(),
        (size[0] / height, size[1] / width),
    )


def most_different(weights: NDArray[np.float32]) -> list[int]:
    """Return the two prompts whose maps ``(P, ...)`` differ most; the only one if P is 1."""
    flat = weights.reshape(len(weights), -1)
    distance = np.abs(flat[:, None] - flat[None]).sum(-1)  # (P, P)
    pair = np.unravel_index(distance.argmax(), distance.shape)
    return sorted({int(prompt) for prompt in pair})


def draw_attention(pictures: Pictures, video: int, frame: int) -> Html:
    """Return the support frames of a frame with the attention of its prompts laid over them."""
    maps, dataset = attention_maps(pictures, video, frame), pictures.dataset
    rows = {"all prompts": maps.weights.mean(0)} if len(maps.weights) > 1 else {}
    rows |= {f"prompt {p + 1}": maps.weights[p] for p in most_different(maps.weights)}
    place = f"frame {frame} of video {dataset.videos[video].name}"
    current = Cell(thumbnail(dataset.frame(video, frame)), f"{place}, the current frame")
    lines = [Line(str(frame), "current frame", (current, *[Cell(None)] * len(rows)))]

    name = dataset.videos[maps.video].name
    shares = next(iter(rows.values())).sum((1, 2))  # (K,)
    shown = sorted(np.argsort(-shares, kind="stable")[:_MOST_FRAMES].tolist())
    for number in shown:
        t = maps.support[number]
        image = thumbnail(dataset.frame(maps.video, t))
        cells = [Cell(image, f"video {name}, frame {t}, a support frame")]
        for row, weights in rows.items():
            share = f"{100 * float(weights[number].sum()):.0f} %"
            heat = weights[number] / max(float(weights.max()), _LEAST_PEAK * maps.uniform)
            alt = f"frame {t}: {share} of the attention of {row}"
            cells.append(Cell(overlay(image, heat, maps.shown), alt, share))
        note = f"t {t - frame:+d}".replace("-", "−") if maps.video == video else name
        lines.append(Line(str(t), note, tuple(cells)))
    caption = f"{place[0].upper()}{place[1:]} and {_caption(maps, rows, len(shown))}"
    return figure(grid(["frame", *rows], lines), text(caption))


def _caption(maps: AttentionMaps, rows: dict[str, NDArray[np.float32]], num_shown: int) -> str:
    _, num_support, height, width = maps.weights.shape
    peaks = ", ".join(f"{row} {weights.max() / maps.uniform:.1f}" for row, weights in rows.items())
    caption = (
        f"its {num_support} support frames, {height} × {width} tokens each. Equal attention would "
        f"give every token 1/{round(1 / maps.uniform)} and every frame {100 / num_support:.0f} %. "
        f"The strongest token of a row has so many times that: {peaks}."
    )
    if num_shown < num_support:
        caption += f" Shown are the {num_shown} frames of largest share."
    return caption


def overlay(
    image: Image, heat: NDArray[np.float32], shown: tuple[float, float] = (1.0, 1.0)
) -> Image:
    """Lay a map over a frame in grey: the more weight, the more colour.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        heat: ``(h, w)`` from 0 to 1.
        shown: height and width of the part of the map that shows the frame, from 0 to 1.
    """
    height, width = image.shape[:2]
    whole = (round(width / shown[1]), round(height / shown[0]))
    smooth = cv2.resize(heat, whole, interpolation=cv2.INTER_LINEAR)[:height, :width, None]
    smooth = smooth.clip(0, 1)
    grey = image.mean(-1, keepdims=True) * 0.6
    colour = 255 * mpl.colormaps["inferno"](0.25 + 0.65 * smooth[..., 0])[..., :3]
    strength = 0.85 * smooth**0.7
    blend: Image = ((1 - strength) * grey + strength * colour).round().astype(np.uint8)
    return blend
