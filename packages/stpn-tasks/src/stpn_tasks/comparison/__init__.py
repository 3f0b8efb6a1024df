"""The comparison with the baseline and its controls: protocol, stages, runs."""
