"""Track with exported graphs on onnxruntime, numpy and OpenCV: neither torch nor this project.

The graphs find the target in crops; what is left for a deployment is below: crops and boxes, the
online templates, and which earlier frames support a frame. tracker.json has all its numbers.

    stpn export tracking runs/tracking/model.safetensors --output exported
    python examples/track_with_onnx.py exported video.mp4 120 80 60 90
"""

import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

Image = np.ndarray
Box = tuple[float, float, float, float]


class OnnxTracker:
    """Follow a target: ``init(frame, box)``, then ``track(frame)`` for every further frame.

    Frames are (H, W, 3) uint8 RGB; boxes are x, y, width, height in pixels.
    """

    def __init__(self, folder: str | Path) -> None:
        about = json.loads((Path(folder) / "tracker.json").read_text())
        self.options, self.normalisation = about["options"], about["normalisation"]
        self.sessions = {
            name: onnxruntime.InferenceSession(
                str(Path(folder) / graph["file"]), providers=["CPUExecutionProvider"]
            )
            for name, graph in about["graphs"].items()
        }
        self.prompted = "predict_prompts" in self.sessions

    def init(self, frame: Image, box: Box) -> None:
        """Begin with the box of the target in the first frame."""
        self.number, self.box, self.size = 0, tuple(box), frame.shape[:2]
        self.template = self.candidate = self.crop(frame, "template")[0]
        self.online, self.oldest, self.best_score = [self.template], 0, -1.0
        self.embeddings, self.support, self.prompts = {}, [], {}
        self.encode_templates()
        if self.prompted:
            self.remember(self.crop(frame, "support")[0])

    def track(self, frame: Image) -> tuple[Box, float | None]:
        """Return the box of the target in the next frame, and a score from 0 to 1 (or None)."""
        self.number += 1
        search, centre, side = self.crop(frame, "search")
        if self.prompted:
            prompts = self.predict_prompts()
            found = self.run("track_prompted", search=search, **self.templates, **prompts)
        else:
            found = self.run("track_plain", search=search, **self.templates)
        x, y, width, height = (side * float(share) for share in found["box_cxcywh"][0])
        left, top = x + centre[0] - side / 2 - width / 2, y + centre[1] - side / 2 - height / 2
        self.box = self.clip((left, top, width, height))
        if self.prompted and self.number % self.options["support"]["stride"] == 0:
            around_target = self.options["support_crop"] == "target"
            self.remember(self.crop(frame, "support")[0] if around_target else search)
        score = float(found["score"][0]) if "score" in found else None
        self.renew_templates(frame, score)
        return self.box, score

    def run(self, name: str, **tensors: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of a graph by their names."""
        session = self.sessions[name]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, tensors), strict=True))

    def encode_templates(self) -> None:
        """Encode the templates until one of them is renewed."""
        online = np.stack(self.online, axis=1)  # (1, n, 3, T, T)
        self.templates = self.run("encode_templates", template=self.template, online=online)

    def remember(self, crop: np.ndarray) -> None:
        """Let a crop of every S-th frame pass without prompts, for those of later frames."""
        found = self.run("track_plain", search=crop, **self.templates)
        self.embeddings[self.number] = found["embedding"]

    def predict_prompts(self) -> dict[str, np.ndarray]:
        """Take the latest K multiples of S before this frame; frame 0 stands for missing ones."""
        stride, count = self.options["support"]["stride"], self.options["support"]["num_frames"]
        latest = (self.number - 1) // stride * stride
        support = [max(0, latest - back * stride) for back in range(count)]
        if support != self.support:
            self.support = support
            self.embeddings = {frame: self.embeddings[frame] for frame in set(support)}
            embeddings = np.stack([self.embeddings[frame] for frame in support], axis=1)
            self.prompts = self.run("predict_prompts", embeddings=embeddings)
        return self.prompts

    def renew_templates(self, frame: Image, score: float | None) -> None:
        """Make a template of an interval's best frame at its end, of the first frame if none is."""
        interval = self.options["update_interval"]
        if interval is None:
            return
        ends = self.number % interval == 0
        self.best_score *= self.options["score_decay"]
        if score is None:
            if ends:
                self.candidate = self.crop(frame, "template")[0]
        elif score > max(self.options["update_score"], self.best_score):
            self.candidate, self.best_score = self.crop(frame, "template")[0], score
        if ends:
            if len(self.online) < self.options["online_size"]:
                self.online.append(self.candidate)
            else:
                self.online[self.oldest] = self.candidate
                self.oldest = (self.oldest + 1) % len(self.online)
            self.encode_templates()
            self.candidate, self.best_score = self.template, -1.0

    def crop(self, frame: Image, kind: str) -> tuple[np.ndarray, tuple[float, float], int]:
        """Return a normalised square around the box (1, 3, size, size), its centre and side."""
        size, factor = self.options[f"{kind}_size"], self.options[f"{kind}_factor"]
        x, y, width, height = self.box
        side = math.ceil(math.sqrt(width * height) * factor)
        left, top = round(x + width / 2 - side / 2), round(y + height / 2 - side / 2)
        # The frame's last row and column count as outside, as in the released code.
        rows = slice(max(0, top), min(top + side, self.size[0] - 1))
        columns = slice(max(0, left), min(left + side, self.size[1] - 1))
        square = np.zeros((side, side, 3), np.uint8)
        place = square[rows.start - top : rows.stop - top, columns.start - left :]
        place[:, : columns.stop - columns.start] = frame[rows, columns]
        pixels = cv2.resize(square, (size, size)).astype(np.float32)
        mean, std = (np.float32(self.normalisation[name]) for name in ("mean", "std"))
        normalised = (pixels / np.float32(self.normalisation["divisor"]) - mean) / std
        tensor = np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])
        return tensor, (x + width / 2, y + height / 2), side

    def clip(self, box: Box) -> Box:
        """Keep a box on the frame, with sides of some pixels."""
        sides = []
        for start, length, limit in zip(box[:2], box[2:], self.size[::-1], strict=True):
            margin = min(self.options["clip_margin"], limit)
            stop = min(max(margin, start + length), limit)
            start = min(max(0.0, start), limit - margin)
            sides.append((start, max(margin, stop - start)))
        (left, width), (top, height) = sides
        return left, top, width, height


def main(folder: str, video: str, *box: str) -> None:
    """Print the box of every frame."""
    tracker, capture = OnnxTracker(folder), cv2.VideoCapture(video)
    number = 0
    while (image := capture.read()[1]) is not None:
        frame = np.ascontiguousarray(image[..., ::-1])  # OpenCV reads BGR
        if number == 0:
            tracker.init(frame, tuple(map(float, box)))
        else:
            (x, y, width, height), score = tracker.track(frame)
            told = "" if score is None else f", score {score:.2f}"
            print(f"frame {number}: {x:.1f} {y:.1f} {width:.1f} {height:.1f}{told}")
        number += 1


if __name__ == "__main__":
    if len(sys.argv) == 7:
        main(*sys.argv[1:])
    else:
        print(__doc__)
