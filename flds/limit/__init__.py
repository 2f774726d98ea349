"""The limit of infinite width and depth, with intervals."""
