"""The embedded default encoder, assembled from packages that a fresh machine can install."""
