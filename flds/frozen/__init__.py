"""The lazy limit: training with the tangent kernel as it is at initialisation, to compare features with."""
