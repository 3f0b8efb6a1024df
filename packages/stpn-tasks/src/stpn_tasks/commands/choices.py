"""Choices that several subcommands offer."""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "val", "test"]
Precision = Literal["no", "bf16", "fp16"]
