"""Multilevel Monte Carlo for means over the law of an equation."""
