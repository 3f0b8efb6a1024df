"""What STPN does for a segmenter on generated video, with all controls."""
