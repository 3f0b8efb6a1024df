"""One folder, one comparison: what is common to all that a folder holds is written first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stpn_tasks.tables import read_json, write_json


def claim_comparison(path: Path, protocol: Mapping[str, Any]) -> None:
    """Write the protocol of a comparison, unless that of another one is there.

    Args:
        path: the json.
        protocol: sizes, precision, renderer, data: what makes numbers comparable.

    Raises:
        ValueError: if it is another comparison's; names the file and what differs.
    """
    values = json.loads(json.dumps(protocol))  # as it comes back from the file
    if path.exists():
        there = read_json(path)
        keys = sorted(values.keys() | there.keys())
        differing = [key for key in keys if there.get(key) != values.get(key)]
        if differing:
            raise ValueError(
                f"{path} tells of another comparison, which differs in {', '.join(differing)}: "
                f"choose another output folder"
            )
    write_json(path, values)
