"""Interactions of pairs: what is summed, over which partners, and what becomes of the sums."""
