"""What keeps the requests of one pipeline apart.

A stock pipeline is written to make one thing at a time. What changes while it does lies in three places: in the
pipeline (``_guidance_scale``), in components that are no modules (its sampler, its guider's momentum) and, seldom, in
its denoiser (attention processors that it exchanges, caches that hooks keep from step to step). The first two are
copied for every request, whatever their names. The third cannot be, as the denoiser runs several requests at once; so
a pipeline that does so is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from diffusers.guiders.guider_utils import BaseGuidance
from transformers import PreTrainedTokenizerBase

from backend.identity import Itself
from traces.errors import BadInput

_LEAVES = (str, bytes, int, float, complex, torch.Tensor, type, FunctionType, BuiltinFunctionType, ModuleType)
_CONTAINERS = (list, tuple, set, frozenset)


def own_pipeline(pipeline: Any, instead: Callable[[Any], Any] = lambda tokenizer: tokenizer) -> Any:
    """A copy of a pipeline for one request: it shares the modules and nothing else that a request can change.

    Args:
        pipeline: any diffusers pipeline.
        instead: what the copy has in the place of a tokenizer; by default the same one.

    Raises:
        BadInput: an attribute of the pipeline cannot be copied.
    """
    own = copy.copy(pipeline)
    memo: dict[int, Any] = {id(pipeline): own}
    for part in _shared(vars(pipeline), set()):
        memo[id(part)] = instead(part) if isinstance(part, PreTrainedTokenizerBase) else part
    for name, value in vars(pipeline).items():
        try:
            vars(own)[name] = copy.deepcopy(value, memo)
        except Exception as error:
            raise BadInput(
                f"{type(pipeline).__name__}.{name} cannot be copied ({error}), so requests would share it"
            ) from error
    return own


def _shared(value: Any, seen: set[int]) -> Iterator[Any]:
    """Every module and tokenizer in a nest of containers and objects; the parts of a module are not looked at."""
    if isinstance(value, _LEAVES) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.nn.Module | PreTrainedTokenizerBase):
        yield value
        return
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, _CONTAINERS) else ()
    for item in (*items, *getattr(value, "__dict__", {}).values()):
        yield from _shared(item, seen)


def intercepted(sampler: Any, step: Callable[..., Any]) -> None:
    """Give a sampler another ``step``. Deep copies of it have their own again: some pipelines make one for sound."""
    vars(sampler)["step"] = step
    vars(sampler)["__deepcopy__"] = lambda memo: _stock_copy(sampler, memo)


def _stock_copy(sampler: Any, memo: dict[int, Any]) -> Any:
    kind: Any = type(sampler)
    memo[id(sampler)] = stock = kind.__new__(kind)
    kept = {name: value for name, value in vars(sampler).items() if not callable(getattr(kind, name, None))}
    kept.pop("__deepcopy__", None)
    vars(stock).update(copy.deepcopy(kept, memo))
    return stock


def check_stateless(pipeline: Any, denoiser: torch.nn.Module) -> None:
    """Refuse a pipeline whose denoiser would remember one request while it runs another.

    Raises:
        BadInput: the denoiser has a cache of diffusers' own or another hook with a state, or a guider that puts hooks
            into it for single calls.
    """
    for module in denoiser.modules():
        for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values():
            if hook._is_stateful:
                raise BadInput(
                    f"{type(denoiser).__name__} has a {type(hook).__name__}, which keeps what the last call left, "
                    "whosever it was: disable_cache takes it off; the caches of [policies.caching] tell requests apart"
                )
    for name, guider in vars(pipeline).items():
        if isinstance(guider, BaseGuidance) and type(guider).prepare_models is not BaseGuidance.prepare_models:
            raise BadInput(
                f"{type(pipeline).__name__}.{name} is a {type(guider).__name__}, which changes the denoiser for single "
                "calls, while it runs other requests too: use a guider that only combines predictions"
            )


class Changes:
    """Notices that a pipeline has exchanged processors, forwards or hooks in its denoiser.

    Args:
        denoiser: as every request is to find it.
    """

    def __init__(self, denoiser: torch.nn.Module) -> None:
        self._modules = dict(denoiser.named_modules())
        self._before = {name: _marks(module) for name, module in self._modules.items()}

    def check(self) -> None:
        """Refuse the request that has just begun, if its pipeline has changed the denoiser for it.

        Raises:
            BadInput: something is not as it was.
        """
        for name, module in self._modules.items():
            if _marks(module) != self._before[name]:
                raise BadInput(
                    f"its pipeline changes {name or 'the denoiser'} while it runs: requests would change each other"
                )


def _marks(module: torch.nn.Module) -> tuple[Any, ...]:
    own = vars(module)
    processor = own.get("processor", own["_modules"].get("processor"))
    hooks = (*own["_forward_hooks"].values(), *own["_forward_pre_hooks"].values())
    return Itself(processor), own.get("forward"), hooks
