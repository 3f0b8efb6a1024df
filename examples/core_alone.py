"""Use ``stpn-core`` alone: video prompts for a transformer that another project already has.

Only torch and stpn-core are imported. The other project makes its features as it always did; a
predictor turns those of the support frames into prompts, and they join the sequence.

    pip install ./kernels ./packages/stpn-core
    python examples/core_alone.py
"""

import sys

import torch
from torch import nn

from stpn_core import MixerPredictor, SupportMemory


def main() -> None:
    """Predict prompts from the last frames of a running video and prepend them."""
    torch.manual_seed(0)
    patches = nn.Conv2d(3, 32, 8, 8)  # the other project's model
    transformer = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True), 2
    )
    transformer.eval()
    predictor = MixerPredictor(embed_dim=32, prompt_dims=(32,), num_prompts=4).eval()

    memory = None
    for index, image in enumerate(torch.rand(6, 1, 3, 64, 64)):
        with torch.no_grad():
            tokens = patches(image).flatten(2).transpose(1, 2)  # (1, 64, 32)
            sequence = tokens
            if index > 0:
                assert memory is not None
                past = range(max(0, index - 3), index)
                (prompts,) = predictor.predict(memory.gather(past))  # (1, 4, 32)
                sequence = torch.cat((prompts, tokens), dim=1)  # (1, 68, 32)
            features = transformer(sequence)[:, -tokens.shape[1] :]  # (1, 64, 32)
            embedding = predictor.embed(transformer(tokens), (8, 8))  # (1, 49, 32)
            memory = memory or SupportMemory.like(embedding, capacity=3)
            memory.push(index, embedding)
        print(f"frame {index}: sequence {tuple(sequence.shape)}, features {tuple(features.shape)}")

    others = {
        "stpn_backbones",
        "stpn_data",
        "stpn_tasks",
        "timm",
        "torchvision",
    } & sys.modules.keys()
    print(f"also imported: {', '.join(sorted(others)) or 'nothing else'}")


if __name__ == "__main__":
    main()
