"""Equations and systems that people know, ready to solve: vectorized ones, and a gallery of compiled ones."""

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
from solvers.sde.gallery.consensus import consensus, rastrigin
from solvers.sde.gallery.dawson import dawson
from solvers.sde.gallery.ensemble_kalman import ensemble_kalman
from solvers.sde.gallery.fitzhugh_nagumo import fitzhugh_nagumo
from solvers.sde.gallery.inertial_kuramoto import inertial_kuramoto
from solvers.sde.gallery.integrate_and_fire import integrate_and_fire
from solvers.sde.gallery.langevin import langevin
from solvers.sde.gallery.motsch_tadmor import motsch_tadmor
from solvers.sde.gallery.system import System
from solvers.sde.gallery.vicsek import vicsek

__all__ = [
    "System",
    "consensus",
    "cucker_smale",
    "dawson",
    "ensemble_kalman",
    "fitzhugh_nagumo",
    "geometric_brownian_motion",
    "inertial_kuramoto",
    "integrate_and_fire",
    "kuramoto",
    "langevin",
    "motsch_tadmor",
    "ornstein_uhlenbeck",
    "rastrigin",
    "vicsek",
]
