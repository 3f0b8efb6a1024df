from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_core import SupportFrame, TransformerPredictor, VideoEncoder, encode_video
from stpn_core.testing import TinyBackbone


@dataclass
class Spread:
    """``num`` frames over the whole video, the same for each of its frames."""

    num: int

    def __call__(self, frame, length):
        return [i * (length - 1) // (self.num - 1) for i in range(self.num)]


@dataclass
class Near:
    """The frames before and after the current one."""

    past = future = 1

    def __call__(self, frame, length):
        return [max(frame - 1, 0), min(frame + 1, length - 1)]

    def embeds(self, frame):
        return True


SAMPLERS = st.one_of(st.builds(Spread, st.integers(2, 4)), st.builds(Near))


@settings(max_examples=30, deadline=None)
@given(
    sampler=SAMPLERS,
    length=st.integers(1, 7),
    num_videos=st.integers(1, 2),
    together=st.integers(1, 4),
    other=st.booleans(),
)
def test_every_frame_is_encoded_with_its_own_support_frames(
    sampler, length, num_videos, together, other
):
    torch.manual_seed(length)
    backbone = TinyBackbone()
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    video, support = torch.randn(2, num_videos, length, 3, 16, 24)
    support = support if other else video
    reads = []
    encoded = encode_video(
        encoder,
        sampler,
        (video[:, t] for t in range(length)),
        length,
        lambda t: (reads.append(t), support[:, t])[1],
        frames_per_pass=together,
    )
    for t, out in enumerate(encoded):
        assert out.index == t
        with torch.no_grad():
            expected = encoder(video[:, t], support[:, sampler(t, length)])
        torch.testing.assert_close(out.features[0], expected[0], atol=2e-5, rtol=1e-4)
    assert len(reads) == len(set(reads))  # each support frame is described once


def test_support_frames_out_of_reach_are_forgotten(backbone):
    encoder = VideoEncoder(backbone, None).eval()
    alive = []

    class Note:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    most = 0
    frames = (torch.zeros(1, 3, 16, 16) for _ in range(9))
    for _ in encode_video(
        encoder,
        Near(),
        frames,
        9,
        lambda t: torch.zeros(1, 3, 16, 16),
        describe=lambda images: SupportFrame(None, [Note() for _ in images]),
    ):
        most = max(most, len(alive))
    assert most <= 4


def test_a_video_that_ends_early_is_named(backbone):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    frames = [torch.zeros(1, 3, 16, 16)] * 3
    encoded = encode_video(encoder, Near(), frames, 5, lambda t: frames[0], frames_per_pass=2)
    with pytest.raises(ValueError, match="a video of 5 frames ended after 3"):
        list(encoded)


@pytest.mark.parametrize("together", [0, -1])
def test_no_frames_in_a_pass_are_refused(backbone, together):
    encoder = VideoEncoder(backbone, TransformerPredictor.for_backbone(backbone, 2)).eval()
    frames = [torch.zeros(1, 3, 16, 16)]
    encoded = encode_video(
        encoder, Spread(2), frames, 1, lambda t: frames[0], frames_per_pass=together
    )
    with pytest.raises(ValueError, match=f"frames_per_pass must be at least 1, got {together}"):
        next(encoded)
