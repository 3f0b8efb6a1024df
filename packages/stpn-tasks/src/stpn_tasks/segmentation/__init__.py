"""Video instance segmentation: Mask2Former on any backbone, frame by frame, as in MinVIS."""
