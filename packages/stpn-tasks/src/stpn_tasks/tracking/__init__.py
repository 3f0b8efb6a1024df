"""Single-object tracking: results and their plot."""
