"""The one training loop: it knows steps, precision, averages, checkpoints and ranks, but no task."""
