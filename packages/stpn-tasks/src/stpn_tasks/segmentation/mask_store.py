"""Keep the masks of all tracks of a video until its end, when it is known which are wanted.

Only the sign of an interpolated mask matters. Where a value and its neighbours have one sign, that
sign is all that is kept; beside a border it is the value, so that masks that are enlarged from the
store are what they would be otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from tempfile import SpooledTemporaryFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

MEMORY_BYTES = 256 * 2**20
"""What a store holds in memory; beyond, all of it lies in a file of the folder for such ones."""
# Enlarging to the padded size reads 2 neighbours; resizing that reads 2 results, side by side: the
# values that one pixel depends on are at most 2 apart.
_REACH = 2


class MaskStore:
    """Append frames, and read some tracks of a frame again.

    A frame takes Q h w / 8 bytes for signs and 4 for each value within 2 of a border. Measured with
    100 tracks of 96 x 160: 0.25 MB where 20 of them hold a blob, 0.47 MB where all do, in place of
    the 6.14 MB of float32; noise without any shape takes 6.34 MB.
    """

    def __init__(self) -> None:
        """Begin a video."""
        self._file = SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115
        self._starts = [0]
        self._shape: tuple[int, int, int] | None = None

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._starts) - 1

    @property
    def num_bytes(self) -> int:
        """Return the size of what is stored."""
        return self._starts[-1]

    def append(self, masks: Float[Tensor, "Q h w"]) -> None:
        """Keep the mask logits of the tracks in the next frame.

        Raises:
            ValueError: another shape than in the frame before.
        """
        shape = tuple(masks.shape)
        if self._shape not in (None, shape):
            raise ValueError(f"frame {len(self)}: masks {shape}, before {self._shape}")
        self._shape = (shape[0], shape[1], shape[2])
        masks = masks.detach().float()
        positive = masks > 0
        near = _near_border(positive)
        blocks = (
            np.packbits(positive.flatten(1).cpu().numpy(), axis=1),  # (Q, ceil(h w / 8))
            near.flatten(1).sum(1).cpu().numpy(),  # (Q,) int64
            masks[near].cpu().numpy(),  # track after track
        )
        self._file.seek(self._starts[-1])
        for block in blocks:
            self._file.write(block.tobytes())
        self._starts.append(self._file.tell())

    def read(self, frame: int, tracks: Sequence[int]) -> Float[Tensor, "n h w"]:
        """Return logits of some tracks in a frame, on the CPU: 1 or -1 away from borders."""
        if self._shape is None:
            raise IndexError(f"frame {frame}: the store is empty")
        num_tracks, height, width = self._shape
        self._file.seek(self._starts[frame])
        data = self._file.read(self._starts[frame + 1] - self._starts[frame])
        row = -(-height * width // 8)
        bits = np.frombuffer(data, np.uint8, num_tracks * row).reshape(num_tracks, row)
        signs = np.unpackbits(bits[list(tracks)], axis=1, count=height * width)
        positive = torch.from_numpy(signs.reshape(-1, height, width).view(np.bool_))
        counts = np.frombuffer(data, np.int64, num_tracks, bits.nbytes)
        values = np.frombuffer(data, np.float32, -1, bits.nbytes + counts.nbytes)
        ends = np.cumsum(counts)
        masks = torch.where(positive, 1.0, -1.0)
        masks[_near_border(positive)] = torch.from_numpy(
            np.concatenate(
                [np.zeros(0, np.float32), *(values[ends[i] - counts[i] : ends[i]] for i in tracks)]
            )
        )
        return masks


def _near_border(positive: Tensor) -> Tensor:
    """Return where masks (n, h, w) have both signs within reach."""
    signs = torch.stack((positive, ~positive), dim=1).float()  # (n, 2, h, w)
    size = 2 * _REACH + 1
    signs = max_pool2d(signs, (size, 1), 1, (_REACH, 0))
    signs = max_pool2d(signs, (1, size), 1, (0, _REACH))
    return signs.min(dim=1).values > 0
