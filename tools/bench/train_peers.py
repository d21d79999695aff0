"""Train steps as calls, one engine each: irc's compiled step, torch eager, torch.compile.

All begin with the same parameters and get the same batch, so that their losses can be compared.
Imports: each engine in its own function only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .train_nets import NETS, Adam, Net, Sizes

Call = Callable[[], float]


def irc(name: str, threads: int) -> Call:
    """The step compiled for this machine, its state bound."""
    from ...backends import compiler
    from ...backends.bound import Bound
    from ...backends.targets import choose
    from .train_nets import step

    net, choice = NETS[name](), choose("cpu", threads)
    exe: Any = compiler.executable(step(net), choice)
    state = net.state()
    bound = Bound(exe, dict(zip(exe.names, state, strict=False)))
    batch = net.batches()
    return lambda: float(bound(*batch)[-1])


def eager(name: str, threads: int) -> Call:
    """torch as it is written; the optimizer's quickest form (fused)."""
    loss, optimizer = _torch(name, threads)
    return _step(loss, optimizer, optimizer.step)


def compiled(name: str, threads: int) -> Call:
    """torch.compile of the forward and backward pass, with the fused optimizer beside it."""
    import torch

    loss, optimizer = _torch(name, threads)
    return _step(torch.compile(loss), optimizer, optimizer.step)


def compiled_whole(name: str, threads: int) -> Call:
    """torch.compile of forward, backward and of the optimizer, in its plain form."""
    import torch

    loss, optimizer = _torch(name, threads, fused=False)
    return _step(torch.compile(loss), optimizer, torch.compile(optimizer.step))


ENGINES: dict[str, Callable[[str, int], Call]] = {
    "irc": irc,
    "eager": eager,
    "compile": compiled,
    "compile all": compiled_whole,
}
"""Engine by name: (network, threads) to a call that takes one step and gives its loss."""


def _step(loss: Callable[[], Any], optimizer: Any, move: Callable[[], Any]) -> Call:
    def call() -> float:
        optimizer.zero_grad(set_to_none=True)
        found = loss()
        found.backward()
        move()
        return float(found.detach())

    return call


def _torch(name: str, threads: int, fused: bool = True) -> tuple[Callable[[], Any], Any]:
    """The loss as a function of nothing, and the optimizer."""
    import torch

    torch.set_num_threads(threads)
    net = NETS[name]()
    drawn = [torch.from_numpy(p).requires_grad_() for p in net.draw()]
    named = dict(zip([n for n, _ in net.parameters], drawn, strict=True))
    batch = [torch.from_numpy(x) for x in net.batches()]
    forward = LOSSES[name]
    optimizer = _optimizer(net, drawn, fused)
    return lambda: forward(named, batch), optimizer


def _optimizer(net: Net, parameters: Sequence[Any], fused: bool) -> Any:
    import torch

    rule = net.rule
    if isinstance(rule, Adam):
        kind = torch.optim.AdamW if rule.decay else torch.optim.Adam
        given = {"lr": rule.lr, "betas": (rule.beta1, rule.beta2), "eps": rule.epsilon}
        return kind(parameters, weight_decay=rule.decay, fused=fused, **given)
    return torch.optim.SGD(parameters, lr=rule.lr, momentum=rule.momentum, fused=fused)


Named = Mapping[str, Any]


def mlp_loss(p: Named, batch: Sequence[Any]) -> Any:
    """As `train_nets.mlp`."""
    from torch.nn import functional as F  # noqa: N812

    x, count = batch[0], len(p) // 2
    for k in range(count):
        x = F.linear(x, p[f"l{k}.weight"], p[f"l{k}.bias"])
        x = F.relu(x) if k + 1 < count else x
    return F.cross_entropy(x, batch[1])


def gpt_loss(p: Named, batch: Sequence[Any]) -> Any:
    """As `train_nets.gpt`, with torch's own attention."""
    from torch.nn import functional as F  # noqa: N812

    s = Sizes()

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (s.width,), p[f"{name}.weight"], p[f"{name}.bias"])

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    x = F.embedding(batch[0], p["embed.weight"]) + p["position.embed.weight"]
    for k in range(s.layers):
        mixed = linear(norm(x, f"block{k}.norm1"), f"block{k}.qkv")
        q, key, v = [
            t.view(s.rows, s.length, s.heads, -1).transpose(1, 2) for t in mixed.split(s.width, 2)
        ]
        y = F.scaled_dot_product_attention(q, key, v, is_causal=True)
        x = x + linear(y.transpose(1, 2).reshape(x.shape), f"block{k}.out")
        up = F.gelu(linear(norm(x, f"block{k}.norm2"), f"block{k}.up"))
        x = x + linear(up, f"block{k}.down")
    logits = F.linear(norm(x, "norm"), p["head.weight"])
    return F.cross_entropy(logits.view(-1, s.words), batch[1].view(-1))


LOSSES: dict[str, Callable[[Named, Sequence[Any]], Any]] = {"mlp": mlp_loss, "gpt": gpt_loss}


def losses(engine: str, name: str, steps: int = 5) -> list[float]:
    """The first losses of an engine."""
    call = ENGINES[engine](name, 1)
    return [call() for _ in range(steps)]


__all__ = ["ENGINES", "LOSSES", "losses"]
