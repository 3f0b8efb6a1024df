"""What models cost and why they work."""
