"""The state of a trained network: what it takes to evaluate it on new inputs, and to go on with its training.

At the end of training it is taken after the last passes and before the update that they call for, so that it belongs to
the outputs recorded last, and training goes on as if it had never stopped. A run that ends early leaves the network as
it was after its last update, before the passes that were broken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flds.training.network import BackwardPass, ForwardPass, Network
from flds.training.parameters import REMEMBERED
from flds.training.records import Recorder
from solvers.ensemble.homes import home_on
from solvers.ensemble.particles import Particles
from solvers.results.arrays import communicator_of
from solvers.results.solution import Variable

if TYPE_CHECKING:
    from flds.training.options import Settings
    from flds.training.problem import TrainingProblem

_DESCRIBED = {
    "input_weights": ("trained input weights U", "input particle"),
    "readout": ("trained readout v", "output particle"),
    "feature_directions": ("orthonormal features that the weights have met", "feature_direction particle"),
    "feature_images": ("images of the feature directions", "feature_direction particle"),
    "gradient_directions": ("orthonormal gradients that the weights have met", "gradient_direction particle"),
    "gradient_images": ("images of the gradient directions", "gradient_direction particle"),
    "learned": ("learned part of the weights on the directions", "learned_row learned_column"),
    "mass": ("sum of squares seen, and dropped", "side share"),
    "share": ("share of the initial weights that is left", ""),
    "response": ("products of the gradient directions with the images of the features", "learned_row learned_column"),
    "weights": ("weights over the root of the width", "neuron other_neuron"),
    "backward_weights": ("independent backward weights over the root of the width", "neuron other_neuron"),
    "last_features": ("coordinates of the last features", "batch last_feature"),
    "last_gradients": ("coordinates of the last gradients", "active last_gradient"),
    "last_states": ("features h_L of the last batch", "batch particle"),
    "last_bottom": ("gradients g_0 of the last batch", "active particle"),
    "last_outputs": ("outputs of the last batch", "batch output"),
    "last_active": ("positions in the last batch with a slope of the loss", "active"),
    "last_weights": ("slopes of the loss there", "active"),
    "recorded_step": ("recorded training steps", "record"),
    "recorded_outputs": ("recorded outputs on training samples", "record sample output"),
    "recorded_test_outputs": ("recorded outputs on test samples", "record test_sample output"),
    "recorded_feature_variance": ("recorded mean square features", "record depth_point"),
    "recorded_gradient_variance": ("recorded mean square gradients", "record depth_point"),
    "recorded_rank": ("recorded rank, mean over depth", "record side"),
    "recorded_features": ("coordinates of the recorded features", "record batch recorded_feature"),
    "recorded_gradients": ("coordinates of the recorded gradients", "record batch recorded_gradient"),
    "batch_loss": ("loss of the batch", "step"),
    "next_step": ("step whose passes come next", ""),
    "ended_status": ("how the run ended", ""),
    "ended_step": ("last step that was recorded", ""),
    "ended_rank": ("final ranks", "layer side"),
    "ended_truncation": ("final share of squares dropped", "layer side"),
    "ended_unmatched": ("whether noise was drawn by law for lack of room", ""),
    "initial_sizes": ("loss and mean square output of the batch at step 0", "size"),
}
# Those whose rows stay as they are when others join them.
_GROWING = {
    "feature_directions",
    "feature_images",
    "gradient_directions",
    "gradient_images",
    "recorded_step",
    "recorded_outputs",
    "recorded_test_outputs",
    "recorded_feature_variance",
    "recorded_gradient_variance",
    "recorded_rank",
    "batch_loss",
}
# Those over particles that belong to no layer.
_OF_PARTICLES = {"input_weights", "readout", "last_states", "last_bottom"}
# Dimensions that differ from layer to layer.
_OF_A_LAYER = {
    "feature_direction",
    "gradient_direction",
    "learned_row",
    "learned_column",
    "last_feature",
    "last_gradient",
    "recorded_feature",
    "recorded_gradient",
}


def snapshot(network: Network, recorder: Recorder, forward: ForwardPass, backward: BackwardPass) -> dict[str, Variable]:
    """Return the state of a network after its last passes, the passes, and what was recorded."""
    arrays = (
        network.state()
        | recorder.stored()
        | {
            "last_states": forward.states[-1],
            "last_outputs": forward.outputs,
            "last_bottom": backward.bottom,
            "last_active": backward.active,
            "last_weights": backward.weights,
        }
    )
    for layer, tape, gradients in zip(network.layers, forward.tapes, backward.gradients, strict=True):
        for name, gradient in gradients.items():
            begin = f"layer_{layer.number}_{layer.prefix(name)}last_"
            if name in layer.matrices:
                arrays[f"{begin}features"] = tape[name]
            arrays[f"{begin}gradients"] = gradient
    return _fields(arrays, network)


def early_snapshot(network: Network, recorder: Recorder, step: int) -> dict[str, Variable]:
    """Return the state of a network before the passes of a step, with what was recorded by then; none at step 0."""
    if step == 0:
        return {}
    arrays = network.state() | recorder.stored(before=step) | {"next_step": np.array(step)}
    return _fields(arrays, network)


def grows(name: str) -> bool:
    """Whether an array of a state keeps its rows while training goes on, and gains some."""
    part = name.split("_", 2)[2] if name.startswith("layer_") else name
    return _described(part) in _GROWING


def ended_snapshot(recorder: Recorder) -> dict[str, Variable]:
    """Return what is kept of a run that has ended: what it recorded, and its state if that is kept."""
    arrays = {name: array for name, array in recorder.ended().items() if name not in recorder.state}
    return recorder.state | {name: _field(name, array, None) for name, array in arrays.items()}


def steps_done(state: Mapping[str, Variable]) -> int | None:
    """Return how many updates a run had made that ended early, or None if it had made all of them."""
    return int(state["next_step"].values) if "next_step" in state else None


def go_on(network: Network, recorder: Recorder, state: dict[str, Variable]) -> int:
    """Restore network and records, make the update that the last passes call for, and return the step that follows."""
    arrays = {name: item.values for name, item in state.items()}
    network.restore(arrays)
    recorder.restore(arrays)
    done = steps_done(state)
    if done is not None:
        return done
    problem, step = network.problem, len(recorder.batch_loss) - 1
    batch, none = problem.batches[step], np.empty(0)

    def last(what: str, names: Iterable[str]) -> list[dict[str, NDArray[Any]]]:
        return [
            {name: arrays[f"layer_{layer.number}_{layer.prefix(name)}last_{what}"] for name in names}
            for layer in network.layers
        ]

    branch = network.branch
    here = network.ensemble.from_state
    states = [here(arrays["last_states"])]
    forward = ForwardPass(states, last("features", branch.matrices), none, arrays["last_outputs"])
    gradients = last("gradients", [*branch.matrices, *branch.vectors])
    for layer in gradients:
        for name, vector in branch.vectors.items():
            layer[name] = network.homes[vector.space].from_state(layer[name])
    bottom = here(arrays["last_bottom"])
    backward = BackwardPass(arrays["last_active"], arrays["last_weights"], bottom, gradients, none)
    slopes = problem.loss_function.derivative(forward.outputs, problem.y[batch])
    with network.ensemble.whole():
        network.update(problem.x[batch], slopes, forward, backward, step)
    return step + 1


def predict(
    problem: TrainingProblem, settings: Settings, seed: int, state: dict[str, Variable], inputs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the outputs of a stored network on new inputs, (samples, outputs)."""
    with stored_network(problem, settings, seed, state) as network:
        return network.probe(inputs, range(problem.samples, problem.samples + len(inputs)))


@contextmanager
def stored_network(
    problem: TrainingProblem, settings: Settings, seed: int, state: dict[str, Variable]
) -> Iterator[Network]:
    """Hold the network of a state, whose threads are running, over the ranks that share it."""
    communicator = communicator_of({"": state})
    ensemble = home_on(settings.device, settings.particles, settings.threads, communicator)
    network = Network(problem, settings, seed, ensemble=ensemble)
    with network.ensemble.running():
        network.restore({name: item.values for name, item in state.items()})
        yield network


def _fields(arrays: Mapping[str, Any], network: Network) -> dict[str, Variable]:
    """Return arrays of a state, on the host, with what their axes are."""
    host = network.ensemble.to_host
    return {
        name: _field(name, array if isinstance(array, np.ndarray) else host(array), network)
        for name, array in arrays.items()
    }


def _described(part: str) -> str:
    """Return the name under which an array of a layer is described, without that of its matrix."""
    return max((known for known in _DESCRIBED if f"_{part}".endswith(f"_{known}")), key=len, default=part)


def _field(name: str, array: NDArray[Any], network: Network | None) -> Variable:
    """Return an array of a state with what its axes are; those over particles are spread as these are."""
    layer, part = "", name
    if name.startswith("layer_"):
        _, layer, part = name.split("_", 2)
    known = _described(part)
    owner = part.removesuffix(known).rstrip("_")  # the matrix or vector, where a branch has several
    axes = [f"{part}_{axis}" for axis in range(array.ndim)]
    long_name, dims = _DESCRIBED.get(known, (part.replace("_", " "), " ".join(axes)))
    named = [f"{dim}_{layer}{owner}" if dim in _OF_A_LAYER else dim for dim in dims.split()]
    spread = None
    home = None if network is None or not array.ndim else _home(name, known, owner, network)
    if home is not None:
        assert network is not None
        named[-1] = "particle" if home is network.ensemble else "hidden_particle"
        spread = home.spread(array.ndim - 1)
    said = f"{owner}: {long_name}" if owner and known in _DESCRIBED else long_name
    return Variable(tuple(named), array, said + (f", layer {int(layer) + 1}" if layer else ""), spread=spread)


def _home(name: str, known: str, owner: str, network: Network) -> Particles | None:
    """Return whose particles the last axis of an array of a state goes over, or None."""
    branch, homes = network.branch, network.homes
    if name.startswith(REMEMBERED):
        part = name.removeprefix(REMEMBERED)
        if not part.startswith("layer_"):
            return network.ensemble
        vector = branch.vectors.get(part.split("_")[2])
        return None if vector is None else homes[vector.space]
    if not name.startswith("layer_"):
        return network.ensemble if known in _OF_PARTICLES else None
    if known in branch.vectors or (known == "last_gradients" and owner in branch.vectors):
        return homes[branch.vectors[owner if known == "last_gradients" else known].space]
    matrix = branch.matrices.get(owner) or next(iter(branch.matrices.values()))
    space = {"feature_directions": matrix.inputs, "gradient_images": matrix.inputs} | {
        "feature_images": matrix.outputs, "gradient_directions": matrix.outputs
    }  # fmt: skip
    return homes[space[known]] if known in space else None
