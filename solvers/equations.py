"""Well-known equations, ready to solve; nothing has to be compiled."""

# Pickles of version 0.1 look here for the classes behind the functions.
from solvers.sde.equations import (
    _CuckerSmale as _CuckerSmale,
)
from solvers.sde.equations import (
    _GeometricBrownianMotion as _GeometricBrownianMotion,
)
from solvers.sde.equations import (
    _Kuramoto as _Kuramoto,
)
from solvers.sde.equations import (
    _OrnsteinUhlenbeck as _OrnsteinUhlenbeck,
)
from solvers.sde.equations import cucker_smale, geometric_brownian_motion, kuramoto, ornstein_uhlenbeck

__all__ = ["cucker_smale", "geometric_brownian_motion", "kuramoto", "ornstein_uhlenbeck"]
