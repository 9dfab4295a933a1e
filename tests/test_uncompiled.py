"""What `torch.compile` leaves as it is. That the compiler is not imported for that: `test_install.py`."""

from __future__ import annotations

import torch
from torch import nn

from pyiqa_ma_agiqa.uncompiled import uncompiled


class Scored(nn.Module):
    @uncompiled
    def score(self, x, times=1):
        """The sum."""
        self.was_compiled = torch.compiler.is_compiling()
        return x.exp().sum() * times

    def forward(self, x):
        return self.score(x + 1, times=3) + 1


def compiled_forms(function) -> int:
    return len(torch._dynamo.eval_frame._debug_get_cache_entry_list(function.__code__))


def test_it_is_left_as_it_is_whatever_is_compiled_around_it(monkeypatch):
    """Also once the compiler has given up on what is around it, since it has compiled that too often."""
    import torch._dynamo

    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    net = Scored()
    whole = torch.compile(net, backend="eager")
    for shape in ((4,), (2, 3), (2, 3, 4)):
        x = torch.rand(shape)
        assert torch.equal(whole(x), net(x)) and net.was_compiled is False
    assert compiled_forms(Scored.forward) > 0
    assert compiled_forms(Scored.score.__wrapped__) == 0
    assert Scored.score.__doc__ == "The sum."
