"""Logic gate networks as PyTorch modules.

Public functions take ``[batch, features]``; inside, activations are ``[features, batch]``.

Modes: **soft** = weights ``softmax(z / tau)``, no noise, for every relaxation; **noisy** = the
relaxation's own random draw; **discrete** = ``argmax z`` on bits. ``train()`` runs the relaxation's
training forward, ``eval()`` the discrete one.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, cast, get_args

import torch
from torch import Tensor, nn

from lgn_analysis.arguments import positive, real, seed_number, whole
from lgn_analysis.errors import InvalidInputError
from lgn_analysis.footprint import network_bytes
from lgn_analysis.gates import N_GATES, gate_coefficients
from lgn_analysis.initialisation import initial_logits
from lgn_analysis.kernels import Backend, NetworkBackend, select_backend, select_network_backend
from lgn_analysis.kernels.seam import Pass, is_transformed
from lgn_analysis.memory import require_memory
from lgn_analysis.noise import MAX_LAYERS, NoiseKey, Purpose, fresh_key, generator_for
from lgn_analysis.relaxations import (
    CAGE,
    RELAXATIONS,
    UNDECIDED,
    GumbelST,
    Relaxation,
    Soft,
    relaxation_config,
    relaxation_from,
    soft_weights,
)
from lgn_analysis.wiring import check_wiring, make_wiring

Mode = Literal["soft", "noisy", "discrete"]
MODES: Final[tuple[str, ...]] = get_args(Mode)

_REQUIRED: Final = ("n_features", "width", "depth", "n_classes", "group_tau", "relaxation", "tau")


class LogicLayer(nn.Module):
    """A layer of two-input gates, [batch, n_in] -> [batch, n_out].

    Args:
        n_in: number of inputs.
        n_out: number of gates; ``2·n_out >= n_in``.
        relaxation: how gates are relaxed; default ``GumbelST(tau=1.0)``.
        wiring: ``"random"``, ``"unique"``, or an integer tensor [2, n_out].
        init: ``"normal"`` or ``"residual"``.
        seed: draws wiring and logits; None takes one from torch's own generator.
        index: which layer of a network this is; layers that share a noise key need different ones.
        grad_factor: multiplies the gradient at the layer's input in the training forward.
        backend: force a kernel backend by name; None chooses by device.
        dtype: dtype of the logits; None is torch's default.

    Attributes:
        logits: Parameter [n_out, 16].
        wiring: buffer int64 [2, n_out], saved with the model.
        confidence: buffer [] of the logits' dtype, saved with the model, where the relaxation is
            CAGE; every training forward moves it, as batch normalisation moves its statistics
            (under ``torch.func`` it stays, and the gradient has the temperature it would have had).

    Raises:
        InvalidInputError: sizes, wiring or init do not fit.
    """

    logits: nn.Parameter
    wiring: Tensor
    confidence: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        relaxation: Relaxation | None = None,
        wiring: str | Tensor = "random",
        init: str = "normal",
        seed: int | None = None,
        index: int = 0,
        grad_factor: float = 1.0,
        backend: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        seed = fresh_key(Purpose.LOGITS).seed if seed is None else seed_number(seed)
        index = whole("index", index, least=0, most=MAX_LAYERS - 1)
        n_in, n_out = whole("n_in", n_in), whole("n_out", n_out)
        if not math.isfinite(real("grad_factor", grad_factor)):
            raise InvalidInputError(f"grad_factor must be finite, got {grad_factor}")
        dtype = _check_dtype(dtype)
        self.n_in = n_in
        self.n_out = n_out
        self.relaxation = _check_relaxation(relaxation)
        self.index = index
        self.grad_factor = float(grad_factor)
        self.backend = backend
        if not isinstance(wiring, str | Tensor) or (
            isinstance(wiring, Tensor) and wiring.is_complex()
        ):
            raise InvalidInputError(
                f'wiring must be "random", "unique" or an integer tensor [2, {n_out}], got '
                f"{type(wiring).__name__}"
            )
        if isinstance(wiring, str):
            pairs = make_wiring(
                wiring, n_in, n_out, generator=generator_for(seed, Purpose.WIRING, index)
            )
        else:
            pairs = check_wiring(wiring, n_in, n_out).clone()
        self.register_buffer("wiring", pairs)
        logits = initial_logits(
            init,
            n_out,
            generator=generator_for(seed, Purpose.LOGITS, index),
            dtype=dtype,
        )
        self.logits = nn.Parameter(logits)
        if self.relaxation.adaptive:
            self.register_buffer("confidence", torch.full((), UNDECIDED, dtype=logits.dtype))
        select_backend(self.logits.device, backend)  # refuses an unknown name now, not later

    def forward(
        self, x: Tensor, *, mode: Mode | None = None, draw: NoiseKey | None = None
    ) -> Tensor:
        """Return the gate outputs [batch, n_out] for x [batch, n_in].

        Args:
            x: inputs in [0, 1]; exactly 0 or 1 in discrete mode. Any number of batch dimensions.
            mode: None follows ``train()``/``eval()``.
            draw: the noise to use; None takes a fresh one from torch's own generator.
        """
        check_features(x, self.n_in)
        resolved = resolve_mode(mode, self.training, self.relaxation)
        if chooses_gates(resolved, self.relaxation):
            check_choices([self])
        if resolved == "discrete":
            bits = as_bits(x.reshape(-1, self.n_in)).T
            words = self._kernels.pack_bits(bits)
            outputs = self._kernels.unpack_bits(self.forward_packed(words), bits.shape[1])
            return outputs.T.reshape(*x.shape[:-1], self.n_out).to(self.logits.dtype)
        whole = select_network_backend(self.logits.device, self.backend)
        if whole and runs_whole(resolved, x, self.relaxation, [self.logits]):
            return self._forward_whole(whole, x, resolved, draw)
        noise = None
        if resolved != "soft" and self.relaxation.noisy:
            noise = self._kernels.gumbel(
                draw or fresh_key(Purpose.TRAINING),
                self.index,
                self.n_out,
                dtype=self.logits.dtype,
                device=self.logits.device,
            )
        features = x.to(self.logits.dtype).movedim(-1, 0)
        return self.forward_features(features, resolved, noise).movedim(0, -1)

    def _forward_whole(
        self, whole: NetworkBackend, x: Tensor, resolved: str, draw: NoiseKey | None
    ) -> Tensor:
        """Return the gate outputs by a backend for whole networks: one layer, a group a gate."""
        network = Pass(
            wirings=(self.wiring,),
            n_features=self.n_in,
            relaxation=Soft(self.relaxation.tau) if resolved == "soft" else self.relaxation,
            n_groups=self.n_out,
            group_tau=1.0,
            grad_factor=self.grad_factor if resolved == "train" else 1.0,
            first_layer=self.index,
            taus=temperatures([self]) if resolved == "train" else (),
        )
        key = (draw or fresh_key(Purpose.TRAINING)) if network.relaxation.noisy else None
        outputs = whole.training_forward(network, [self.logits], flat_values(x), key)
        return outputs.reshape(*x.shape[:-1], self.n_out)

    def forward_features(self, x: Tensor, resolved: str, noise: Tensor | None) -> Tensor:
        """Return [n_out, ...] for x [n_in, ...], ``resolved`` one of train, soft and noisy.

        ``noise`` [n_out, 16] is given exactly where the mode draws it.
        """
        if resolved == "soft":
            weights = soft_weights(self.logits, self.relaxation.tau)
        elif self.relaxation.adaptive:
            weights = self.relaxation.training_weights(self.logits, noise, tau=self.adapt())
        else:
            weights = self.relaxation.training_weights(self.logits, noise)
        if resolved == "train" and self.grad_factor != 1.0:
            x = scale_gradient(x, self.grad_factor)
        return self._kernels.gate_layer(x, self.wiring, gate_coefficients(weights))

    def adapt(self) -> Tensor:
        """Take the confidence to these logits and return the temperature of the gradient, [].

        Raises:
            InvalidInputError: the layer was made with another relaxation, and keeps no confidence.
        """
        relaxation = self.relaxation
        if not isinstance(relaxation, CAGE) or "confidence" not in self._buffers:
            raise InvalidInputError(
                "this layer was made without CAGE and keeps no confidence; "
                "make it anew with relaxation=CAGE()"
            )
        confidence = relaxation.next_confidence(self.confidence, self.logits)
        # Under a transform the logits may be many at once, and one buffer cannot hold them.
        if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
            self.confidence.copy_(confidence)
            confidence = self.confidence
        return relaxation.backward_tau(confidence)

    def forward_packed(self, words: Tensor) -> Tensor:
        """Return the discrete outputs as packed words [n_out, n_words] for words [n_in, n_words]."""
        return self._kernels.gate_layer_packed(words, self.wiring, self.gates)

    @property
    def gates(self) -> Tensor:
        """The discrete gates, ``argmax z``: int64 [n_out]; refused where a logit is NaN."""
        check_choices([self])
        return self.logits.detach().argmax(-1)

    @property
    def _kernels(self) -> Backend:
        return select_backend(self.logits.device, self.backend)

    def extra_repr(self) -> str:
        return f"{self.n_in}, {self.n_out}, relaxation={self.relaxation}, index={self.index}"


class GroupSum(nn.Module):
    """Sum contiguous blocks of features and divide by ``group_tau``: [batch, n] -> [batch, groups].

    Args:
        n_groups: number of groups; the features must be a multiple of it.
        group_tau: group-sum temperature, above zero.
    """

    def __init__(self, n_groups: int, group_tau: float = 1.0) -> None:
        super().__init__()
        self.n_groups = whole("n_groups", n_groups, least=1)
        self.group_tau = positive("group_tau", group_tau)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., n_groups] for x [..., n]."""
        if x.ndim == 0:
            raise InvalidInputError(f"expected values [batch, n], got shape {tuple(x.shape)}")
        check_divisible("n", x.shape[-1], "n_groups", self.n_groups)
        return x.unflatten(-1, (self.n_groups, -1)).sum(-1) / self.group_tau

    def extra_repr(self) -> str:
        return f"{self.n_groups}, group_tau={self.group_tau}"


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
        relaxation = _check_relaxation(relaxation)
        n_features = whole("n_features", n_features)
        width, depth = whole("width", width), whole("depth", depth, least=1)
        n_classes = whole("n_classes", n_classes)
        n_groups = n_classes if n_groups is None else whole("n_groups", n_groups)
        seed = seed_number(seed)
        if not isinstance(wiring, str):
            raise InvalidInputError(
                f'wiring must be "random" or "unique", got {type(wiring).__name__}; a wiring of '
                "your own goes into each layer: LogicLayer(wiring=…)"
            )
        if n_classes < 1 or n_groups < n_classes:
            raise InvalidInputError(
                f"n_classes must be at least 1 and n_groups at least n_classes, got "
                f"n_classes={n_classes}, n_groups={n_groups}"
            )
        check_divisible(
            "width", width, "n_classes" if n_groups == n_classes else "n_groups", n_groups
        )
        if gradient_dtype not in (torch.float32, torch.bfloat16):
            raise InvalidInputError(
                f"gradient_dtype must be torch.float32 or torch.bfloat16, got {gradient_dtype}"
            )
        dtype = _check_dtype(dtype)
        require_memory(
            network_bytes(n_features, width, depth, dtype),
            f"the logits and the wiring of {depth} x {width} gates",
            "lower width or depth",
        )
        # Plain numbers: NumPy's do not go into a file's JSON.
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "width": width,
            "depth": depth,
            "n_classes": n_classes,
            "group_tau": positive("group_tau", group_tau),
            **relaxation_config(relaxation),
            "wiring": wiring,
            "init": init,
            "seed": seed,
            "n_groups": n_groups,
            "grad_factor": real("grad_factor", grad_factor),
        }
        layers = nn.ModuleList(
            LogicLayer(
                n_features if index == 0 else width,
                width,
                relaxation=relaxation,
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
        # A ModuleList, which type checkers take for a list of plain modules.
        self.layers = cast("Sequence[LogicLayer]", layers)
        self.group_sum = GroupSum(n_groups, group_tau)
        self.backend = backend
        self.gradient_dtype = gradient_dtype
        self.relaxation = relaxation
        self.n_features = n_features
        self.width = width
        self.depth = depth
        self.n_classes = n_classes
        self.seed = seed

    @classmethod
    def from_config(cls, config: dict[str, Any], **overrides: Any) -> LogicNetwork:
        """Return a network built from :attr:`config`, the inverse of reading it."""
        arguments = {**config, **overrides}
        if lacking := [name for name in _REQUIRED if name not in arguments]:
            raise InvalidInputError(
                f"a network's configuration needs {', '.join(lacking)} too; give that of a network, "
                "model.config"
            )
        relaxation = relaxation_from(arguments)
        known = inspect.signature(cls.__init__).parameters
        if unknown := [name for name in arguments if name not in known]:
            raise InvalidInputError(
                f"a network's configuration has no {', '.join(map(repr, unknown))}; leave it out"
            )
        return cls(**arguments, relaxation=relaxation)

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
        check_features(x, self.n_features)
        resolved = resolve_mode(mode, self.training, self.relaxation)
        if chooses_gates(resolved, self.relaxation):
            check_choices(self.layers)
        whole = self.network_backend
        if whole and (
            resolved == "discrete"
            or runs_whole(resolved, x, self.relaxation, [layer.logits for layer in self.layers])
        ):
            return self._forward_whole(whole, x, resolved, draw)
        if resolved == "discrete":
            return self._forward_discrete(x)
        noise: Tensor | list[None] = [None] * self.depth
        if resolved != "soft" and self.relaxation.noisy:
            noise = self._draw_noise(draw)
        features = x.to(self.dtype).movedim(-1, 0)
        for layer, layer_noise in zip(self.layers, noise, strict=True):
            features = layer.forward_features(features, resolved, layer_noise)
        outputs: Tensor = self.group_sum(features.movedim(0, -1))
        return outputs

    def as_pass(self, resolved: str = "train") -> Pass:
        """Return what a backend needs to know of this network; ``resolved``: train, noisy or soft."""
        soft = resolved == "soft"
        keeps = resolved == "train" and self.relaxation.adaptive
        return Pass(
            wirings=tuple(layer.wiring for layer in self.layers),
            n_features=self.n_features,
            relaxation=Soft(self.relaxation.tau) if soft else self.relaxation,
            n_groups=self.group_sum.n_groups,
            group_tau=self.group_sum.group_tau,
            grad_factor=self.layers[0].grad_factor if resolved == "train" else 1.0,
            gradient_dtype=self.gradient_dtype,
            confidences=tuple(layer.confidence for layer in self.layers) if keeps else (),
        )

    def set_tau(self, tau: float) -> None:
        """Set the gate temperature of every layer, for training and for soft mode."""
        tau = positive("tau", tau)
        for layer in self.layers:
            layer.relaxation = replace(layer.relaxation, tau=tau)
        self.relaxation = replace(self.relaxation, tau=tau)
        self.config["tau"] = self.relaxation.tau

    def set_backend(self, backend: str | None) -> None:
        """Force a kernel backend by name, in the layers too; None chooses by device."""
        select_backend(self.device, backend)  # refuses an unknown name now, not later
        self.backend = backend
        for layer in self.layers:
            layer.backend = backend

    def packed_activations(self, x: Tensor) -> Iterator[Tensor]:
        """Yield each layer's discrete outputs for bits x [batch, n_features], packed as int64.

        Each item is [width, ceil(batch / 64)]; see ``kernels.Backend.unpack_bits``.
        """
        check_features(x, self.n_features)
        words = self._kernels.pack_bits(as_bits(x).T)
        for layer in self.layers:
            words = layer.forward_packed(words)
            yield words

    def _forward_whole(
        self, whole: NetworkBackend, x: Tensor, resolved: str, draw: int | NoiseKey | None
    ) -> Tensor:
        """Return class logits by a backend that runs the whole network at once."""
        logits = [layer.logits for layer in self.layers]
        if resolved == "discrete":
            bits = as_bits(x.reshape(-1, self.n_features))
            counts = whole.discrete_forward(self.as_pass(), logits, bits)
            outputs = counts.to(self.dtype) / self.group_sum.group_tau
        else:
            network = self.as_pass(resolved)
            if resolved == "train":
                network = replace(network, taus=temperatures(self.layers))
            key = self._noise_key(draw) if network.relaxation.noisy else None
            outputs = whole.training_forward(network, logits, flat_values(x), key)
        return outputs.reshape(*x.shape[:-1], self.group_sum.n_groups)

    def _forward_discrete(self, x: Tensor) -> Tensor:
        bits = x.reshape(-1, self.n_features)
        words = deque(self.packed_activations(bits), maxlen=1).pop()
        outputs = self._kernels.unpack_bits(words, bits.shape[0]).T
        sums: Tensor = self.group_sum(outputs.to(self.dtype))
        return sums.reshape(*x.shape[:-1], self.group_sum.n_groups)

    def _noise_key(self, draw: int | NoiseKey | None) -> NoiseKey:
        if draw is None:
            return fresh_key(Purpose.TRAINING)
        if isinstance(draw, NoiseKey):
            return draw
        return NoiseKey(self.seed, Purpose.EVALUATION, whole("draw", draw))

    def _draw_noise(self, draw: int | NoiseKey | None) -> Tensor:
        """Return the noise of the whole network in one go: [depth, width, 16]."""
        return self._kernels.gumbel(
            self._noise_key(draw),
            torch.arange(self.depth),
            self.width,
            dtype=self.dtype,
            device=self.device,
        )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the logits and of every output."""
        return self.layers[0].logits.dtype

    @property
    def device(self) -> torch.device:
        """The device of the logits."""
        return self.layers[0].logits.device

    @property
    def _kernels(self) -> Backend:
        return select_backend(self.device, self.backend)

    @property
    def network_backend(self) -> NetworkBackend | None:
        """The backend if it runs whole networks; None also where a layer was changed by hand."""
        whole = select_network_backend(self.device, self.backend)
        factor = self.layers[0].grad_factor
        for index, layer in enumerate(self.layers):
            mine = (index, self.width, self.relaxation, factor)
            if mine != (layer.index, layer.n_out, layer.relaxation, layer.grad_factor):
                return None
        return whole

    @property
    def n_gates(self) -> int:
        """Gates in the whole network."""
        return self.width * self.depth

    def extra_repr(self) -> str:
        return f"{self.n_features} bits, {self.n_gates} gates, {self.n_gates * N_GATES} parameters"


def _check_relaxation(relaxation: Relaxation | None) -> Relaxation:
    """Return the relaxation, or the default one for None."""
    if relaxation is None:
        return GumbelST()
    if not isinstance(relaxation, Relaxation):
        kinds = ", ".join(f"{kind.__name__}()" for kind in RELAXATIONS.values())
        raise InvalidInputError(f"relaxation must be one of {kinds}, got {relaxation!r}")
    return relaxation


def _check_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype of logits, or torch's default for None."""
    if dtype is None:
        return torch.get_default_dtype()
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InvalidInputError(
            f"dtype must be a floating one, such as torch.float32, got {dtype!r}"
        )
    return dtype


def temperatures(layers: Sequence[LogicLayer]) -> tuple[float, ...]:
    """Return what layers of CAGE have as temperatures of this training forward; none for others."""
    if not layers[0].relaxation.adaptive:
        return ()
    return tuple(torch.stack([layer.adapt() for layer in layers]).tolist())


def runs_whole(resolved: str, x: Tensor, relaxation: Relaxation, logits: Sequence[Tensor]) -> bool:
    """Return whether a backend for whole networks may run this pass, ``resolved`` not discrete."""
    if any(z.dtype != torch.float32 for z in logits) or is_transformed():
        return False
    if resolved != "soft":
        return type(relaxation) in RELAXATIONS.values()
    # Soft mode is what curvature is made of: layer by layer it can be differentiated on.
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *logits)))


def flat_values(x: Tensor) -> Tensor:
    """Return x [..., n] as bool or float32 [batch, n]."""
    flat = x.reshape(-1, x.shape[-1])
    return flat if flat.dtype == torch.bool else flat.to(torch.float32)


def resolve_mode(mode: str | None, training: bool, relaxation: Relaxation) -> str:
    """Return ``"train"``, ``"soft"``, ``"noisy"`` or ``"discrete"``; None follows ``training``."""
    if mode is None:
        return "train" if training else "discrete"
    if mode not in MODES:
        raise InvalidInputError(f"unknown mode {mode!r}; use one of {', '.join(MODES)}, or None")
    if mode == "noisy" and not relaxation.noisy:
        raise InvalidInputError(
            f"{type(relaxation).__name__} draws no noise, so it has no noisy mode; "
            'use mode="soft" or mode="discrete"'
        )
    return mode


def chooses_gates(resolved: str, relaxation: Relaxation) -> bool:
    """Return whether a pass takes one gate each, ``resolved`` one of train, soft, noisy, discrete."""
    return resolved == "discrete" or (resolved != "soft" and relaxation.hard)


def check_choices(layers: Sequence[LogicLayer]) -> None:
    """Raise where a gate is to be chosen by logits that are NaN: what argmax then says is arbitrary.

    Where values cannot be looked at, in a transform, nothing is checked, nor on a GPU, where looking
    would wait for it; an evaluation finds such logits there by its loss.
    """
    logits = [layer.logits.detach() for layer in layers]
    if is_transformed() or logits[0].is_cuda:
        return
    # A sum is NaN where a term is, and costs a fraction of looking at each.
    if not bool(torch.stack([z.sum() for z in logits]).isnan().any()):
        return
    for layer, z in zip(layers, logits, strict=True):
        n_gates = int(z.isnan().any(-1).sum())
        if n_gates:
            raise InvalidInputError(
                f"{n_gates} of the {len(z)} gates of layer {layer.index} have logits that are NaN, by "
                "which none can be chosen; go back to a checkpoint from before the training diverged"
            )


def require_network(model: object, what: str) -> None:
    """Raise unless ``model`` is a LogicNetwork, which ``what`` needs."""
    if not isinstance(model, LogicNetwork):
        kind = model.__name__ if isinstance(model, type) else type(model).__name__
        raise InvalidInputError(f"{what} needs a LogicNetwork, got {kind}")


def check_features(x: Tensor, n_features: int) -> None:
    """Raise unless x is a tensor of real numbers [..., n_features]."""
    if not isinstance(x, Tensor):
        raise InvalidInputError(
            f"expected a tensor [batch, {n_features}], got {type(x).__name__}; convert it, for "
            "instance by torch.as_tensor"
        )
    if x.is_complex():
        raise InvalidInputError(f"inputs must be real numbers, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != n_features:
        raise InvalidInputError(
            f"expected inputs [batch, {n_features}], got shape {tuple(x.shape)}"
        )


def check_divisible(name: str, size: int, divisor_name: str, divisor: int) -> None:
    """Raise unless ``size`` is a positive multiple of ``divisor``, naming its neighbours that are."""
    if size >= 1 and size % divisor == 0:
        return
    if size < 1:
        raise InvalidInputError(
            f"{name} must be a positive multiple of {divisor_name} {divisor}, got {size}; use "
            f"{divisor}"
        )
    below = size // divisor * divisor
    choices = f"{below} or {below + divisor}" if below > 0 else str(divisor)
    raise InvalidInputError(
        f"{name} {size} is not divisible by {divisor_name} {divisor}; use {choices}"
    )


def as_bits(x: Tensor) -> Tensor:
    """Return x as bool, or raise where it holds anything but 0 and 1."""
    if x.dtype == torch.bool:
        return x
    if not bool(((x == 0) | (x == 1)).all()):
        raise InvalidInputError(
            "discrete mode works on bits, and the inputs hold values other than 0 and 1; "
            'threshold them first (lgn.thermometer), or use mode="soft"'
        )
    return x.to(torch.bool)


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x, its gradient multiplied by ``factor``."""
    # x - x.detach() is zero in value and x in every derivative.
    return x.detach() + factor * (x - x.detach())
