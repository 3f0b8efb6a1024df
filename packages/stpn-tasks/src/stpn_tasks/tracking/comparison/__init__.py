"""What STPN does for a tracker on generated sequences, with all controls."""
