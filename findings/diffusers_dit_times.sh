#!/usr/bin/env bash
# diffusers 0.42.1: `DiTTransformer2DModel` embeds times with other frequencies
# than DiT as released.
#
# DiT (Peebles, Xie 2022, arXiv:2212.09748) takes 10000^(-i / 128), i from 0 to
# 127; diffusers takes 10000^(-i / 127), for the same weights. At step 999 the
# 256 numbers, of [-1, 1], differ by up to 1.94. A loader that
# takes either for the other one gives a network that is a little wrong at every
# step and raises nothing.
#
# Seen with diffusers 0.42.1, torch 2.13.0 on Python 3.11, CPU:
#   i / 127: largest difference 0.0001
#   i / 128: largest difference 1.9417
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1
"$folder/venv/bin/python" - <<'PYTHON'
import diffusers
import torch

network = diffusers.DiTTransformer2DModel(
  num_attention_heads=1, attention_head_dim=8, in_channels=1, num_layers=1,
  sample_size=2, num_embeds_ada_norm=2,
)
embedded = network.transformer_blocks[0].norm1.emb.time_proj(
  torch.tensor([999.0])
)[0].double()
i = torch.arange(128, dtype=torch.float64)
apart = {}
for count in (127, 128):
  angles = 999 * 10000 ** (-i / count)
  expected = torch.cat([angles.cos(), angles.sin()])
  apart[count] = (embedded - expected).abs().max().item()
  print(f"i / {count}: largest difference {apart[count]:.4f}")
assert apart[127] < 1e-3 and apart[128] > 1, "the frequencies have changed"
PYTHON
