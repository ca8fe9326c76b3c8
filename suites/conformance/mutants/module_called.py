"""Layers whose own way of being called passes hooks by."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor
from torch.nn.modules import module as for_all
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from suites.conformance.mutants.base import Sound, mutant


@mutant("module.other_hooks_called")
class HooksForAllModulesSkipped(Sound):
    """Its call knows the module's own hooks, and not those that are registered for all modules."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        known = [for_all._global_forward_hooks, for_all._global_forward_pre_hooks, for_all._global_backward_hooks]
        known.append(for_all._global_backward_pre_hooks)
        kept = [dict(hooks) for hooks in known]
        for hooks in known:
            hooks.clear()
        try:
            return super().__call__(*arguments, **options)
        finally:
            for hooks, own in zip(known, kept, strict=True):
                hooks.update(own)


@mutant("module.other_hooks_called")
class KeywordHooksNeverCalled(Sound):
    """A forward pre-hook that is registered with_kwargs is not called."""

    def register_forward_pre_hook(self, hook: Any, *, prepend: bool = False, with_kwargs: bool = False) -> Any:
        if with_kwargs:
            return RemovableHandle(OrderedDict())
        return super().register_forward_pre_hook(hook, prepend=prepend)


@mutant("module.other_hooks_called")
class BackwardPreHooksNeverCalled(Sound):
    """Full backward pre-hooks are taken and never called."""

    def register_full_backward_pre_hook(self, *arguments: Any, **options: Any) -> Any:
        return RemovableHandle(OrderedDict())


@mutant("module.hooks_called")
class HooksSkippedInEval(Sound):
    """In eval mode the call goes straight to forward, past the hooks."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return super().__call__(*arguments, **options) if self.training else self.forward(*arguments, **options)


@mutant("module.called_by_keyword")
class NamedStateOfOneSequenceIgnored(Sound):
    """A state given by keyword beside an input without a batch axis is ignored."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        if given and isinstance(given[0], Tensor) and given[0].dim() == 2:
            named.pop("hx", None)
        return super().__call__(*given, **named)


@mutant("module.hooks_called")
class HooksOfPacksSkipped(Sound):
    """A call with a packed input calls no hooks."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        packed = given and isinstance(given[0], PackedSequence)
        return self.forward(*given, **named) if packed else super().__call__(*given, **named)


@mutant("module.other_hooks_called")
class HooksForAllModulesSkippedInEval(Sound):
    """In eval mode its call does not know the hooks that are registered for all modules."""

    def __call__(self, *given: Any, **named: Any) -> Any:
        own = self._forward_hooks or self._forward_pre_hooks or self._backward_hooks or self._backward_pre_hooks
        return super().__call__(*given, **named) if self.training or own else self.forward(*given, **named)
