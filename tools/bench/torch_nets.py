"""The networks that `exported` exports, in plain torch.nn; nothing is downloaded.

Each is written the way people write it: attention by scaled_dot_product_attention, with a mask from
padding (Bert), causal (Gpt), by nn.MultiheadAttention (Vit); batch norms with statistics; heads
split by view and transpose.  Imports: torch (the extra `oracle`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fill(network: nn.Module) -> None:
    """Weights that keep activations near unit variance; batch norms with own statistics."""
    rectified = isinstance(network, MobileNetV2 | UNet)
    for parameter in network.parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, -0.1, 0.1)
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            gain = 2.0 if rectified and getattr(module, "halved", True) else 1.0
            nn.init.normal_(module.weight, 0.0, math.sqrt(gain / _fan_in(module)))
        elif isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.8, 1.2)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, 1.0)
    if isinstance(network, Gpt):  # the head is the embedding: logits near unit variance
        nn.init.normal_(network.tokens.weight, 0.0, network.tokens.embedding_dim**-0.5)


def _fan_in(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.ConvTranspose2d):  # each result sees kernel / stride of each input
        return weight.shape[0] * math.prod(weight.shape[2:]) // math.prod(module.stride)
    return math.prod(weight.shape[1:])


class SelfAttention(nn.Module):
    """Heads split by view and transpose around scaled_dot_product_attention."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] to [batch, heads, tokens, width / heads]."""
        batch, tokens, width = x.shape
        return x.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = [self.split(f(x)) for f in (self.query, self.key, self.value)]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class BertLayer(nn.Module):
    """Attention and two linear layers, each with a residual sum and a norm after it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, causal=False)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Bert(nn.Module):
    """An encoder of text: ids and mask [1, tokens] to [1, tokens, width]."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(tokens, width)
        self.kinds = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList([BertLayer(width, heads) for _ in range(layers)])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        x = self.tokens(ids) + self.positions(places) + self.kinds(torch.zeros_like(ids))
        x = self.norm(x)
        unseen = (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        unseen = unseen.expand(ids.shape[0], 1, ids.shape[1], ids.shape[1])
        for layer in self.layers:
            x = layer(x, unseen)
        return x


class GptLayer(nn.Module):
    """Norms before a causal attention and two linear layers, tanh's gelu."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attend(self, x: Tensor) -> Tensor:
        """Causal attention of heads cut from one product."""
        batch, tokens, width = x.shape
        q, k, v = [
            part.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(width, dim=2)
        ]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().view(batch, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """A decoder of text whose head is its embedding: ids [1, tokens] to logits."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList([GptLayer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class VitLayer(nn.Module):
    """Norms before nn.MultiheadAttention and two linear layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Patches of an image through a transformer, a class token: image to [1, classes]."""

    def __init__(
        self, layers: int, width: int, heads: int, image: int, patch: int, classes: int
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (image // patch) ** 2 + 1, width) * 0.1)
        self.layers = nn.Sequential(*[VitLayer(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.layers(x))[:, 0])


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    halved: bool = True,
    act: type[nn.Module] | None = nn.ReLU6,
) -> nn.Sequential:
    """A convolution, a batch norm, an activation; `halved` where a rectifier made the input."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    conv.halved = halved  # type: ignore[assignment]
    parts = [conv, nn.BatchNorm2d(outputs)]
    return nn.Sequential(*parts, *([act()] if act else []))


class Inverted(nn.Module):
    """MobileNetV2's block: widen, one convolution a channel, narrow; a sum where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int) -> None:
        super().__init__()
        hidden = inputs * widen
        self.sums = stride == 1 and inputs == outputs
        first = [conv_norm(inputs, hidden, 1, halved=False)] if widen != 1 else []
        self.body = nn.Sequential(
            *first,
            conv_norm(hidden, hidden, 3, stride, hidden),
            conv_norm(hidden, outputs, 1, act=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.sums else self.body(x)


class MobileNetV2(nn.Module):
    """The published table of blocks, channels times `quarters` / 4: image to [1, classes]."""

    TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
             (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip

    def __init__(self, image: int, quarters: int, classes: int) -> None:
        super().__init__()
        self.image = image
        width = 32 * quarters // 4
        parts: list[nn.Module] = [conv_norm(3, width, 3, 2, halved=False)]
        for widen, channels, count, stride in self.TABLE:
            outputs = channels * quarters // 4
            for k in range(count):
                parts.append(Inverted(width, outputs, stride if k == 0 else 1, widen))
                width = outputs
        last = max(1280 * quarters // 4, 16)
        self.features = nn.Sequential(*parts, conv_norm(width, last, 1, halved=False))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, image: Tensor) -> Tensor:
        x = self.features(image)
        return self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))


class Double(nn.Sequential):
    """Two 3x3 convolutions with batch norms and relu."""

    def __init__(self, inputs: int, outputs: int, halved: bool = True) -> None:
        super().__init__(
            conv_norm(inputs, outputs, 3, halved=halved, act=nn.ReLU),
            conv_norm(outputs, outputs, 3, act=nn.ReLU),
        )


class UNet(nn.Module):
    """Down `levels` times and up again, with the way down beside: image to one map."""

    def __init__(self, image: int, base: int, levels: int) -> None:
        super().__init__()
        self.image = image
        widths = [base << level for level in range(levels + 1)]
        self.first = Double(3, base, halved=False)
        self.down = nn.ModuleList([Double(a, b) for a, b in zip(widths, widths[1:])])
        pairs = list(zip(widths[:0:-1], widths[-2::-1]))
        self.up = nn.ModuleList([nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs])
        self.join = nn.ModuleList([Double(2 * b, b) for _, b in pairs])
        self.last = nn.Conv2d(base, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        beside = []
        for down in self.down:
            beside.append(x)
            x = down(F.max_pool2d(x, 2))
        for up, join in zip(self.up, self.join):
            x = join(torch.cat([beside.pop(), up(x)], dim=1))
        return self.last(x)


class Recurrent(nn.Module):
    """Recurrent layers and a linear layer on the last step: x [1, steps, inputs] to classes."""

    CELL: type[nn.RNNBase]

    def __init__(self, layers: int, units: int, inputs: int, classes: int) -> None:
        super().__init__()
        self.cell = self.CELL(inputs, units, layers, batch_first=True)
        self.head = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Lstm(Recurrent):
    """Long short-term memory."""

    CELL = nn.LSTM


class Gru(Recurrent):
    """Gated recurrent units."""

    CELL = nn.GRU
