"""One layer of logic gates as a PyTorch module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from lgn_analysis.base.errors import InvalidInputError
from lgn_analysis.base.validation import real, seed_number, whole
from lgn_analysis.gates.noise import MAX_LAYERS, NoiseKey, Purpose, fresh_key, generator_for
from lgn_analysis.gates.parametrisations import (
    GATES16,
    PARAMETRISATIONS,
    Parametrisation,
    get_parametrisation,
)
from lgn_analysis.gates.relaxations import (
    CAGE,
    RELAXATIONS,
    UNDECIDED,
    GumbelST,
    Relaxation,
    Soft,
)
from lgn_analysis.gates.wiring import check_wiring, make_wiring
from lgn_analysis.kernels import Backend, NetworkBackend, select_backend, select_network_backend
from lgn_analysis.kernels.interface import NetworkSpec, is_transformed
from lgn_analysis.network import parts
from lgn_analysis.network.inputs import as_bits, check_features, flat_values
from lgn_analysis.network.modes import Mode, chooses_gates, is_fusible, resolve_mode

_PARAMETERS: Final = frozenset({"logits"})
_BUFFERS: Final = frozenset({"wiring", "confidence"})


@parts.unpatched
class LogicLayer(nn.Module):
    """A layer of two-input gates, [batch, n_in] -> [batch, n_out].

    Args:
        n_in: number of inputs.
        n_out: number of gates; ``2·n_out >= n_in``.
        relaxation: how gates are relaxed; default ``GumbelST(tau=1.0)``.
        parametrisation: what the trainable numbers of a gate are: ``"gates16"``, ``"light"``,
            ``"light-sigmoid"`` or ``"walsh"``; see :mod:`lgn_analysis.gates.parametrisations`.
        wiring: ``"random"``, ``"unique"``, or an integer tensor [2, n_out].
        init: ``"normal"`` or ``"residual"``.
        seed: draws wiring and logits; None takes one from torch's own generator.
        index: which layer of a network this is; layers that share a noise key need different ones.
        grad_factor: multiplies the gradient at the layer's input in the training forward.
        backend: force a kernel backend by name; None chooses by device.
        dtype: dtype of the logits; None is torch's default.

    Attributes:
        logits: Parameter [n_out, 16], or where the parametrisation is another [n_out, 4], its numbers.
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
        parametrisation: str = GATES16,
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
        dtype = check_dtype(dtype)
        self.n_in = n_in
        self.n_out = n_out
        self.relaxation = check_relaxation(relaxation, parametrisation)
        self.parametrisation = parametrisation
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
        logits = self._law.initial(
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
        shape = (self.n_out, self._law.n_parameters)
        if self.logits.shape[-2:] != shape or self.wiring.shape != (2, self.n_out):
            raise InvalidInputError(
                f"layer {self.index} has {self.n_out} gates, and by hand it was given logits of shape "
                f"{tuple(self.logits.shape)} and a wiring of shape {tuple(self.wiring.shape)}; make it "
                "anew with n_out gates"
            )
        if self.wiring.dtype not in (torch.int64, torch.int32):
            raise InvalidInputError(
                f"the wiring of layer {self.index} must hold int64, and by hand it was given "
                f"{self.wiring.dtype}; store wiring.long()"
            )
        resolved = resolve_mode(mode, self.training, self.relaxation)
        if chooses_gates(resolved, self.relaxation):
            check_choices([self])
        if resolved == "discrete":
            bits = as_bits(x.reshape(-1, self.n_in)).T
            words = self._kernels.pack_bits(bits)
            outputs = self._kernels.unpack_bits(self.forward_packed(words), bits.shape[1])
            return outputs.T.reshape(*x.shape[:-1], self.n_out).to(self.logits.dtype)
        if is_fusible(resolved, x, [self.logits], self.relaxation) and not (
            parts.patches() or layer_departure(self)
        ):
            backend = select_network_backend(
                self.logits.device, self.backend, parametrisation=self.parametrisation
            )
            if backend is not None:
                return self._forward_whole(backend, x, resolved, draw)
        noise = None
        if resolved != "soft" and self.relaxation.noisy:
            own = self.parametrisation != GATES16
            noise = (self._law.draw_noise if own else self._kernels.gumbel)(
                draw or fresh_key(Purpose.TRAINING),
                whole("index", self.index, least=0, most=MAX_LAYERS - 1),
                self.n_out,
                dtype=self.logits.dtype,
                device=self.logits.device,
            )
        features = x.to(self.logits.dtype).movedim(-1, 0)
        return self.forward_features(features, resolved, noise).movedim(0, -1)

    def _forward_whole(
        self, backend: NetworkBackend, x: Tensor, resolved: str, draw: NoiseKey | None
    ) -> Tensor:
        """Return the gate outputs by a backend for whole networks: one layer, a group a gate."""
        network = NetworkSpec(
            wirings=(self.wiring,),
            n_features=self.n_in,
            relaxation=Soft(self.relaxation.tau) if resolved == "soft" else self.relaxation,
            parametrisation=self.parametrisation,
            n_groups=self.n_out,
            group_tau=1.0,
            grad_factor=self.grad_factor if resolved == "train" else 1.0,
            first_layer=self.index,
            taus=temperatures([self]) if resolved == "train" else (),
        )
        key = (draw or fresh_key(Purpose.TRAINING)) if network.relaxation.noisy else None
        outputs = backend.training_forward(network, [self.logits], flat_values(x), key)
        return outputs.reshape(*x.shape[:-1], self.n_out)

    def forward_features(self, x: Tensor, resolved: str, noise: Tensor | None) -> Tensor:
        """Return [n_out, ...] for x [n_in, ...], ``resolved`` one of train, soft and noisy.

        ``noise``, of the shape of the logits, is given exactly where the mode draws it.
        """
        if resolved == "soft":
            coefficients = self._law.soft_coefficients(self.logits, self.relaxation.tau)
        else:
            tau = self.adapt() if self.relaxation.adaptive else None
            coefficients = self._law.training_coefficients(
                self.logits, self.relaxation, noise, tau=tau
            )
        if resolved == "train" and self.grad_factor != 1.0:
            x = scale_gradient(x, self.grad_factor)
        return self._kernels.gate_layer(x, self.wiring, coefficients)

    def adapt(self) -> Tensor:
        """Take the confidence to these logits and return the temperature of the gradient, [].

        Raises:
            InvalidInputError: the layer was made with another relaxation, and keeps no confidence.
        """
        relaxation = self.relaxation
        if not isinstance(relaxation, CAGE) or self._buffers.get("confidence") is None:
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
        """The discrete gates, ``argmax z`` of sixteen logits: int64 [n_out]; refused where one is NaN."""
        check_choices([self])
        return self._law.gates(self.logits)

    @property
    def _law(self) -> Parametrisation:
        return get_parametrisation(self.parametrisation)

    @property
    def _kernels(self) -> Backend:
        return select_backend(self.logits.device, self.backend)

    def extra_repr(self) -> str:
        own = "" if self.parametrisation == GATES16 else f"{self.parametrisation}, "
        return f"{self.n_in}, {self.n_out}, {own}relaxation={self.relaxation}, index={self.index}"


def layer_departure(layer: nn.Module) -> str:
    """Return how a layer departs from :class:`LogicLayer`, hooks apart, in words; "" if it does not.

    While it is "" and so is :func:`lgn_analysis.network.parts.patches`, the kernels compute what the
    layer's own ``forward`` would.
    """
    if reason := parts.departure(layer, LogicLayer, _PARAMETERS, _BUFFERS, ()):
        return reason
    own = vars(layer)  # several times faster than attributes of modules
    z, wiring = own["_parameters"]["logits"], own["_buffers"]["wiring"]
    n_out, relaxation = own["n_out"], own["relaxation"]
    if type(z) not in (nn.Parameter, Tensor) or type(wiring) is not Tensor:
        return "holds tensors of a class of their own"
    law = own.get("parametrisation")
    if type(law) is not str or law not in PARAMETRISATIONS:
        return f"has the parametrisation {law!r}"
    if z.shape != (n_out, PARAMETRISATIONS[law].n_parameters) or wiring.shape != (2, n_out):
        return f"has logits {tuple(z.shape)} and a wiring {tuple(wiring.shape)} for {n_out} gates"
    if wiring.dtype != torch.int64 or wiring.device != z.device:
        return f"has a wiring of {wiring.dtype} on {wiring.device}"
    if type(relaxation) not in _RELAXATIONS:
        return f"has a relaxation of a class of its own, {type(relaxation).__name__}"
    if vars(relaxation).keys() != _RELAXATIONS[type(relaxation)]:
        return "has a relaxation with attributes of its own"
    if relaxation.adaptive:
        confidence = own["_buffers"].get("confidence")
        if confidence is None:
            return "was made without CAGE and keeps no confidence"
        if confidence.shape != ():
            return f"has a confidence of shape {tuple(confidence.shape)}"
    grad_factor, index = own["grad_factor"], own["index"]
    if not (type(grad_factor) in (int, float) and math.isfinite(grad_factor)):
        return f"has a grad_factor of {grad_factor}"
    if not (type(index) is int and 0 <= index < MAX_LAYERS):
        return f"has the index {index!r}"
    return "has logits that are a view of their negative" if z.is_neg() else ""


_RELAXATIONS: Final[dict[type[Relaxation], frozenset[str]]] = {
    kind: frozenset(item.name for item in fields(kind)) for kind in RELAXATIONS.values()
}
_KINDS: Final[tuple[type[Relaxation], ...]] = (Relaxation, *RELAXATIONS.values())
for _kind in _KINDS:
    parts.unpatched(_kind)
for _law in PARAMETRISATIONS.values():
    parts.unpatched(type(_law))


def check_relaxation(relaxation: Relaxation | None, parametrisation: str = GATES16) -> Relaxation:
    """Return the relaxation of gates of a parametrisation, or the default one for None."""
    law = get_parametrisation(parametrisation)
    if relaxation is None:
        relaxation = GumbelST()
    if not isinstance(relaxation, Relaxation):
        kinds = ", ".join(f"{kind.__name__}()" for kind in RELAXATIONS.values())
        raise InvalidInputError(f"relaxation must be one of {kinds}, got {relaxation!r}")
    law.check(relaxation)
    return relaxation


def common_attribute(layers: Sequence[LogicLayer], name: str) -> Any:
    """Return the attribute that all layers agree in."""
    first = getattr(layers[0], name)
    for index, layer in enumerate(layers):
        value = getattr(layer, name)
        if value is not first and value != first:
            raise InvalidInputError(
                f"the layers differ in {name}: {first} in the first and {value} in layer "
                f"{index}; the network has none as a whole"
            )
    return first


def check_dtype(dtype: torch.dtype | None) -> torch.dtype:
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


def check_choices(layers: Sequence[LogicLayer]) -> None:
    """Raise where a gate is to be chosen by logits that are NaN: what argmax then says is arbitrary.

    Nothing is checked in a transform, where there are no values, nor on a GPU, where reading them would
    wait for it; an evaluation finds such logits there by its loss.
    """
    logits = [layer.logits.detach() for layer in layers]
    if is_transformed() or logits[0].is_cuda:
        return
    if not any(math.isnan(_sum(z)) for z in logits):
        return
    for layer, z in zip(layers, logits, strict=True):
        n_gates = int(z.isnan().any(-1).sum())
        if n_gates:
            raise InvalidInputError(
                f"{n_gates} of the {len(z)} gates of layer {layer.index} have logits that are NaN, by "
                "which none can be chosen; go back to a checkpoint from before the training diverged"
            )


def _sum(z: Tensor) -> float:
    """Return a sum that is NaN where a term is, for a fraction of what looking at each costs."""
    if z.dtype == torch.bfloat16:  # NumPy has none
        return float(z.sum())
    # On one thread: torch's wait for one another longer than they add up.
    with np.errstate(over="ignore", invalid="ignore"):
        return float(z.cpu().resolve_neg().numpy().sum())


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x, its gradient multiplied by ``factor``."""
    # x - x.detach() is zero in value and x in every derivative.
    return x.detach() + factor * (x - x.detach())
