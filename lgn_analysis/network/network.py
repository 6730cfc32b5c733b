"""Logic gate networks as PyTorch modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.memory import require_memory
from lgn_analysis.base.validation import positive, seed_number, whole
from lgn_analysis.gates.footprint import network_bytes
from lgn_analysis.gates.noise import NoiseKey, Purpose, fresh_key
from lgn_analysis.gates.parametrisations import GATES16, get_parametrisation
from lgn_analysis.gates.relaxations import Relaxation, relaxation_config
from lgn_analysis.kernels import Backend, NetworkBackend, select_backend, select_network_backend
from lgn_analysis.kernels.interface import NetworkSpec
from lgn_analysis.network import parts
from lgn_analysis.network.calling import call_layer, draws_noise, watched_outputs
from lgn_analysis.network.departures import (
    departure,
    hand_changes,
    hook_departure,
    make_spec,
    structural_departure,
)
from lgn_analysis.network.group_sum import GroupSum
from lgn_analysis.network.inputs import (
    as_bits,
    check_arguments,
    check_features,
    flat_values,
    network_arguments,
)
from lgn_analysis.network.layer import (
    LogicLayer,
    check_choices,
    check_dtype,
    check_relaxation,
    common_attribute,
    temperatures,
)
from lgn_analysis.network.modes import Mode, chooses_gates, is_fusible, resolve_mode


@parts.unpatched
class LogicNetwork(nn.Module):
    """``depth`` logic layers of ``width`` gates and a group sum, [batch, n_features] -> logits.

    Args:
        n_features: number of input bits.
        width: gates a layer, divisible by the number of groups.
        depth: number of layers.
        n_classes: number of classes.
        group_tau: group-sum temperature; the scale of a sum's own noise is about
            ``½·sqrt(width / n_classes)``, and a much smaller group_tau drowns the signal in it.
        relaxation: default ``GumbelST(tau=1.0)``.
        parametrisation: a gate's trainable numbers: sixteen logits, ``"gates16"``, or four that give its
            truth table; see :mod:`lgn_analysis.gates.parametrisations`.
        wiring: ``"random"`` or ``"unique"``.
        init: ``"normal"`` or ``"residual"``.
        seed: draws wiring and initial logits, and names the noise of an integer ``draw``.
        n_groups: number of output groups, at least ``n_classes``, by default equal to it; the
            paper's code keeps 100 for CIFAR-10, 90 of them idle.
        grad_factor: multiplies the gradient at each layer's input in the training forward only; it
            compounds with depth and is no part of the loss.
        backend: force a kernel backend by name; None chooses by device.
        dtype: dtype of the logits; None is torch's default.
        gradient_dtype: dtype in which the CUDA backend keeps the gradients of activations, float32
            or bfloat16 (half the traffic); sums are float32 in both.

    Raises:
        InvalidInputError: sizes that do not fit, with the numbers and a way out.

    >>> model = LogicNetwork(n_features=8, width=20, depth=2, n_classes=10, group_tau=1.0)
    >>> model(torch.zeros(3, 8)).shape
    torch.Size([3, 10])
    """

    layers: Sequence[LogicLayer]

    def __init__(
        self,
        n_features: int,
        width: int,
        depth: int,
        n_classes: int,
        group_tau: float,
        *,
        relaxation: Relaxation | None = None,
        parametrisation: str = GATES16,
        wiring: str = "random",
        init: str = "normal",
        seed: int = 0,
        n_groups: int | None = None,
        grad_factor: float = 1.0,
        backend: str | None = None,
        dtype: torch.dtype | None = None,
        gradient_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        relaxation = check_relaxation(relaxation, parametrisation)
        n_features = whole("n_features", n_features)
        width, depth = whole("width", width), whole("depth", depth, least=1)
        n_classes = whole("n_classes", n_classes)
        n_groups = n_classes if n_groups is None else whole("n_groups", n_groups)
        seed = seed_number(seed)
        check_arguments(wiring, width, n_classes, n_groups, gradient_dtype)
        dtype = check_dtype(dtype)
        require_memory(
            network_bytes(
                n_features, width, depth, dtype, get_parametrisation(parametrisation).n_parameters
            ),
            f"the logits and the wiring of {depth} x {width} gates",
            "lower width or depth",
        )
        # Plain numbers: NumPy's do not go into a file's JSON.
        self._drawn = {"wiring": wiring, "init": init, "seed": seed}
        layers = nn.ModuleList(
            LogicLayer(
                n_features if index == 0 else width,
                width,
                relaxation=relaxation,
                parametrisation=parametrisation,
                wiring=wiring,
                init=init,
                seed=seed,
                index=index,
                grad_factor=grad_factor,
                backend=backend,
                dtype=dtype,
            )
            for index in range(depth)
        )
        self.layers = cast("Sequence[LogicLayer]", layers)  # type checkers see plain modules
        self.group_sum = GroupSum(n_groups, group_tau)
        self.gradient_dtype = gradient_dtype
        self.n_features, self.n_classes = n_features, n_classes
        self.width, self.depth = width, depth
        self.seed = seed

    @classmethod
    def from_config(cls, config: dict[str, Any], **overrides: Any) -> LogicNetwork:
        """Return a network built from :attr:`config`, the inverse of reading it."""
        arguments = network_arguments(cls, {**config, **overrides})
        return cls(**arguments)

    def forward(
        self, x: Tensor, *, mode: Mode | None = None, draw: int | NoiseKey | None = None
    ) -> Tensor:
        """Return class logits [batch, n_groups] for x [batch, n_features].

        Args:
            x: bool, integer or float in [0, 1]; discrete mode refuses what is not exactly 0 or 1.
            mode: ``"soft"``, ``"noisy"`` or ``"discrete"``; None follows ``train()``/``eval()``.
            draw: which noise, where the mode draws any: a :class:`NoiseKey`, or an integer, the
                number of an evaluation draw of this network's seed. None takes a fresh key from
                torch's own generator.

        Raises:
            InvalidInputError: an unknown mode, noisy mode without noise, inputs that do not fit, or
                a gate that is to be chosen by logits that are NaN. (Where gates are mixed, NaN in
                the logits is NaN in the outputs, and so is +inf; -inf is an option never taken.)
        """
        discrete = mode == "discrete" or (mode is None and not self.training)
        if (
            torch.compiler.is_compiling()
            or structural_departure(self, LogicNetwork, discrete=discrete)
            or hook_departure(self, inside=True)
        ):
            return self._forward_by_layers(x, mode, draw)
        check_features(x, self.n_features)
        relaxation = self.layers[0].relaxation
        resolved = resolve_mode(mode, self.training, relaxation)
        whole = self._network_backend()
        logits = [layer.logits for layer in self.layers]
        if whole is None or not is_fusible(resolved, x, logits, relaxation):
            if discrete:
                return self._forward_packed(x)
            return self._forward_by_layers(x, mode, draw)
        if chooses_gates(resolved, relaxation):
            check_choices(self.layers)
        return self._forward_whole(whole, x, resolved, draw)

    def as_spec(self, resolved: str = "train") -> NetworkSpec:
        """Return the specification of a pass for a backend; ``resolved``: train, noisy or soft."""
        return make_spec(self, resolved)

    def set_tau(self, tau: float) -> None:
        """Set the gate temperature of every layer, for training and for soft mode."""
        tau = positive("tau", tau)
        for layer in self.logic_layers:
            moved = replace(layer.relaxation, tau=tau)
            layer.relaxation = check_relaxation(moved, layer.parametrisation)

    def set_backend(self, backend: str | None) -> None:
        """Force a kernel backend by name; None chooses by device."""
        select_backend(self.device, backend)  # refuses an unknown name now, not later
        self.backend = backend

    def packed_activations(self, x: Tensor) -> Iterator[Tensor]:
        """Yield each layer's discrete outputs for bits x [batch, n_features], packed as int64.

        Each item is [n_out, ceil(batch / 64)]; see ``kernels.Backend.unpack_bits``. Of a network that
        was changed by hand they are what its layers return in ``model(x, mode="discrete")``.
        """
        if hand_changes(self, LogicNetwork, discrete=True):
            for outputs in watched_outputs(self, x):
                yield self._kernels.pack_bits(as_bits(outputs).reshape(-1, outputs.shape[-1]).T)
            return
        check_features(x, self.n_features)
        yield from self._packed_layers(as_bits(x))

    def _packed_layers(self, bits: Tensor) -> Iterator[Tensor]:
        words = self._kernels.pack_bits(bits.T)
        for layer in self.layers:
            words = layer.forward_packed(words)
            yield words

    def _forward_by_layers(
        self, x: Tensor, mode: Mode | None, draw: int | NoiseKey | None
    ) -> Tensor:
        """Return class logits as PyTorch computes them: by calling every layer and the group sum."""
        key = None
        if any(draws_noise(layer, mode) for layer in self.layers):
            key = self._noise_key(draw)
        for layer in self.layers:
            x = call_layer(layer, x, mode, key)
        outputs: Tensor = self.group_sum(x)
        return outputs

    def _forward_whole(
        self, whole: NetworkBackend, x: Tensor, resolved: str, draw: int | NoiseKey | None
    ) -> Tensor:
        """Return class logits by a backend that runs the whole network at once."""
        logits = [layer.logits for layer in self.layers]
        if resolved == "discrete":
            bits = as_bits(x.reshape(-1, self.n_features))
            counts = whole.discrete_forward(self.as_spec(), logits, bits)
            outputs = counts.to(self.dtype) / self.group_sum.group_tau
        else:
            network = self.as_spec(resolved)
            if resolved == "train":
                network = replace(network, taus=temperatures(self.layers))
            key = self._noise_key(draw) if network.relaxation.noisy else None
            outputs = whole.training_forward(network, logits, flat_values(x), key)
        return outputs.reshape(*x.shape[:-1], self.group_sum.n_groups)

    def _forward_packed(self, x: Tensor) -> Tensor:
        """Return class logits of the discrete network by packed bits, layer by layer."""
        bits = as_bits(x.reshape(-1, self.n_features))
        *_, words = self._packed_layers(bits)
        outputs = self._kernels.unpack_bits(words, len(bits)).T.to(self.dtype)
        return self.group_sum.forward(outputs).reshape(*x.shape[:-1], self.group_sum.n_groups)

    def _noise_key(self, draw: int | NoiseKey | None) -> NoiseKey:
        if draw is None:
            if torch.compiler.is_exporting() or torch._C._is_tracing():
                raise InvalidInputError(
                    "a program that is exported or traced would draw the same noise in every call; "
                    'export model.eval() or mode="soft", or name the draw: draw=0'
                )
            return fresh_key(Purpose.TRAINING)
        if isinstance(draw, NoiseKey):
            return draw
        return NoiseKey(self.seed, Purpose.EVALUATION, whole("draw", draw))

    @property
    def logic_layers(self) -> list[LogicLayer]:
        """Its layers, without modules that replaced one by hand."""
        return [layer for layer in self.layers if isinstance(layer, LogicLayer)]

    @property
    def confidences(self) -> tuple[Tensor, ...]:
        """The buffers that layers of CAGE keep, [] each; none of other layers."""
        layers = [layer for layer in self.logic_layers if layer.relaxation.adaptive]
        kept = [layer._buffers.get("confidence") for layer in layers]
        return tuple(confidence for confidence in kept if confidence is not None)

    @property
    def relaxation(self) -> Relaxation:
        """The relaxation of every layer; setting it sets that of every layer.

        Raises:
            InvalidInputError: the layers mix relaxations.
        """
        return cast(Relaxation, self._common("relaxation"))

    @relaxation.setter
    def relaxation(self, relaxation: Relaxation) -> None:
        for layer in self.logic_layers:
            layer.relaxation = check_relaxation(relaxation, layer.parametrisation)

    @property
    def parametrisation(self) -> str:
        """The parametrisation of every layer, by name; refused where they differ."""
        return cast(str, self._common("parametrisation"))

    @property
    def n_parameters(self) -> int:
        """Trainable numbers of a gate."""
        return get_parametrisation(self.parametrisation).n_parameters

    @property
    def relaxation_kind(self) -> type[Relaxation]:
        """The class of every layer's relaxation, whatever their temperatures.

        Raises:
            InvalidInputError: the layers mix relaxations.
        """
        kinds = {type(layer.relaxation) for layer in self.logic_layers}
        return kinds.pop() if len(kinds) == 1 else type(self.relaxation)

    @property
    def backend(self) -> str | None:
        """The kernel backend that every layer forces, None for a choice by device."""
        return cast("str | None", self._common("backend"))

    @backend.setter
    def backend(self, backend: str | None) -> None:
        for layer in self.logic_layers:
            layer.backend = backend

    @property
    def config(self) -> dict[str, Any]:
        """The arguments by which :meth:`from_config` builds a network of this shape and kind.

        Raises:
            InvalidInputError: the network was changed by hand to one that no configuration describes.
        """
        group_sum = self.group_sum
        if not isinstance(group_sum, GroupSum):
            raise InvalidInputError(
                f"a network whose group sum is a {type(group_sum).__name__} has no configuration"
            )
        return {
            "n_features": self.n_features,
            "width": self.width,
            "depth": self.depth,
            "n_classes": self.n_classes,
            "group_tau": group_sum.group_tau,
            **relaxation_config(self.relaxation),
            "parametrisation": self.parametrisation,
            **self._drawn,
            "n_groups": group_sum.n_groups,
            "grad_factor": self._common("grad_factor"),
        }

    def _common(self, name: str) -> Any:
        """Return the attribute that all layers agree in."""
        return common_attribute([self._first, *self.logic_layers[1:]], name)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the logits and of every output."""
        return self._first.logits.dtype

    @property
    def device(self) -> torch.device:
        """The device of the logits."""
        return self._first.logits.device

    @property
    def _first(self) -> LogicLayer:
        layers = self.logic_layers
        if not layers:
            raise InvalidInputError("no layer of this network is a LogicLayer any more")
        return layers[0]

    @property
    def _kernels(self) -> Backend:
        return select_backend(self.device, self.logic_layers[0].backend)

    @property
    def network_backend(self) -> NetworkBackend | None:
        """The backend if it runs this network whole; None also where it was changed by hand."""
        return self.backend_for("train")

    def backend_for(self, resolved: str) -> NetworkBackend | None:
        """Return the backend that runs a pass over the whole network; see :func:`specify`."""
        if departure(self, LogicNetwork, resolved):
            return None
        return self._network_backend()

    def _network_backend(self) -> NetworkBackend | None:
        return select_network_backend(
            self.device, self.backend, parametrisation=self.parametrisation
        )

    @property
    def n_gates(self) -> int:
        """Gates in the whole network."""
        return self.width * self.depth

    def extra_repr(self) -> str:
        n = self.n_gates * self.n_parameters
        return f"{self.n_features} bits, {self.n_gates} gates, {n} parameters"
