"""The losses as modules, with torch's arguments.  May import: ir, its siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from ...ir.errors import Error
from . import losses as f
from .dispatch import as_tensor
from .layers import Layer
from .tensor import Tensor


class Loss(Layer):
    """Base: a function of inputs and target, and its settings with their defaults.

    `buffers` among them (weights of classes) go with the state.
    """

    function: ClassVar[Callable[..., Tensor]]
    settings: ClassVar[dict[str, Any]] = {}
    buffered: ClassVar[tuple[str, ...]] = ("weight", "pos_weight")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        names = [*self.settings, "reduction"]
        given = dict(zip(names, args)) | kwargs
        unknown = [name for name in given if name not in names]
        if unknown or len(args) > len(names):
            raise Error("E0641", f"{type(self).__name__} takes no '{(unknown or ['more'])[0]}'",
                        hint=f"it takes {', '.join(names)}")  # fmt: skip
        for name, default in {**self.settings, "reduction": "mean"}.items():
            value = given.get(name, default)
            if name in self.buffered:
                self.register_buffer(name, None if value is None else as_tensor(value))
            else:
                setattr(self, name, value)

    def describe(self) -> str:
        return type(self).__name__

    def forward(self, *inputs: Any) -> Tensor:
        names = [*self.settings, "reduction"]
        return type(self).function(*inputs, **{name: getattr(self, name) for name in names})


class CrossEntropyLoss(Loss):
    """`cross_entropy` as a module."""

    function = staticmethod(f.cross_entropy)
    settings: ClassVar[dict[str, Any]] = {
        "weight": None, "ignore_index": -100, "label_smoothing": 0.0,
    }  # fmt: skip


class NLLLoss(Loss):
    """`nll_loss` as a module."""

    function = staticmethod(f.nll_loss)
    settings: ClassVar[dict[str, Any]] = {"weight": None, "ignore_index": -100}


class CTCLoss(Loss):
    """`ctc_loss` as a module, called with log_probs, targets, input_lengths, target_lengths."""

    function = staticmethod(f.ctc_loss)
    settings: ClassVar[dict[str, Any]] = {"blank": 0, "zero_infinity": False}

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(blank, zero_infinity, reduction)


class MSELoss(Loss):
    """`mse_loss` as a module."""

    function = staticmethod(f.mse_loss)


class L1Loss(Loss):
    """`l1_loss` as a module."""

    function = staticmethod(f.l1_loss)


class HuberLoss(Loss):
    """`huber_loss` as a module."""

    function = staticmethod(f.huber_loss)
    settings: ClassVar[dict[str, Any]] = {"delta": 1.0}


class SmoothL1Loss(Loss):
    """`smooth_l1_loss` as a module."""

    function = staticmethod(f.smooth_l1_loss)
    settings: ClassVar[dict[str, Any]] = {"beta": 1.0}


class BCELoss(Loss):
    """`binary_cross_entropy` as a module."""

    function = staticmethod(f.binary_cross_entropy)
    settings: ClassVar[dict[str, Any]] = {"weight": None}


class BCEWithLogitsLoss(Loss):
    """`binary_cross_entropy_with_logits` as a module."""

    function = staticmethod(f.binary_cross_entropy_with_logits)
    settings: ClassVar[dict[str, Any]] = {"weight": None, "pos_weight": None}


class KLDivLoss(Loss):
    """`kl_div` as a module."""

    function = staticmethod(f.kl_div)
    settings: ClassVar[dict[str, Any]] = {"log_target": False}


class PoissonNLLLoss(Loss):
    """`poisson_nll_loss` as a module."""

    function = staticmethod(f.poisson_nll_loss)
    settings: ClassVar[dict[str, Any]] = {"log_input": True, "full": False, "eps": 1e-8}


class GaussianNLLLoss(Loss):
    """`gaussian_nll_loss` as a module, called with input, target and variance."""

    function = staticmethod(f.gaussian_nll_loss)
    settings: ClassVar[dict[str, Any]] = {"full": False, "eps": 1e-6}


class HingeLoss(Loss):
    """`hinge_loss` as a module."""

    function = staticmethod(f.hinge_loss)


class SoftMarginLoss(Loss):
    """`soft_margin_loss` as a module."""

    function = staticmethod(f.soft_margin_loss)


class MultiLabelSoftMarginLoss(Loss):
    """`multilabel_soft_margin_loss` as a module."""

    function = staticmethod(f.multilabel_soft_margin_loss)
    settings: ClassVar[dict[str, Any]] = {"weight": None}


class HingeEmbeddingLoss(Loss):
    """`hinge_embedding_loss` as a module."""

    function = staticmethod(f.hinge_embedding_loss)
    settings: ClassVar[dict[str, Any]] = {"margin": 1.0}


class MultiMarginLoss(Loss):
    """`multi_margin_loss` as a module."""

    function = staticmethod(f.multi_margin_loss)
    settings: ClassVar[dict[str, Any]] = {"p": 1, "margin": 1.0, "weight": None}


class MarginRankingLoss(Loss):
    """`margin_ranking_loss` as a module."""

    function = staticmethod(f.margin_ranking_loss)
    settings: ClassVar[dict[str, Any]] = {"margin": 0.0}


class CosineEmbeddingLoss(Loss):
    """`cosine_embedding_loss` as a module."""

    function = staticmethod(f.cosine_embedding_loss)
    settings: ClassVar[dict[str, Any]] = {"margin": 0.0}


class TripletMarginLoss(Loss):
    """`triplet_margin_loss` as a module."""

    function = staticmethod(f.triplet_margin_loss)
    settings: ClassVar[dict[str, Any]] = {"margin": 1.0, "p": 2.0, "eps": 1e-6, "swap": False}


class CosineSimilarity(Layer):
    """`cosine_similarity` as a module."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return f.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Layer):
    """`pairwise_distance` as a module."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.p, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return f.pairwise_distance(x1, x2, self.p, self.eps, self.keepdim)


__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CosineSimilarity",
    "CrossEntropyLoss", "GaussianNLLLoss", "HingeEmbeddingLoss", "HingeLoss", "HuberLoss",
    "KLDivLoss", "L1Loss", "MSELoss", "MarginRankingLoss", "MultiLabelSoftMarginLoss",
    "MultiMarginLoss", "NLLLoss", "PairwiseDistance", "PoissonNLLLoss", "SmoothL1Loss",
    "SoftMarginLoss", "TripletMarginLoss",
]  # fmt: skip
