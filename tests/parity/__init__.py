"""Docker and ours, side by side."""
