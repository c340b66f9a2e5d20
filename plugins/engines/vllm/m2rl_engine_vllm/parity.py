"""Does vLLM compute with the weights that it was given? A short text's log-probs, beside those of transformers.

transformers' model is a skeleton without memory: each module's parameters are read from the safetensors files just
before it runs, and forgotten after. So it costs one module's memory and one forward pass over a few tokens, for a model
of any size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2rl_core.errors import ConfigError, StageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TOLERANCE", "Reference", "compare", "probe", "vocabulary"]

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Largest mean difference [nats]: wide, as sharp distributions magnify rounding."""


def vocabulary(model: Path) -> int:
    """Tokens that the Hugging Face folder's model knows."""
    config = json.loads((model / "config.json").read_text())
    return int((config.get("text_config") or config)["vocab_size"])


def probe(length: int, vocab: int) -> list[int]:
    """Tokens from all over the vocabulary, always the same."""
    return [(7919 * (i + 1) + 104729 * i * i) % vocab for i in range(length)]


class Reference:
    """A transformers causal LM whose parameters stay in files.

    Args:
        model: Hugging Face folder with the configuration.
    """

    def __init__(self, model: Path) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
        self._lm = lm.eval().requires_grad_(False)
        _renew_buffers(self._lm, config)
        first: dict[int, str] = {}
        for name, parameter in self._lm.named_parameters(remove_duplicate=False):
            first.setdefault(id(parameter), name)
        self._saved = {
            name: {name, first[id(parameter)]} for name, parameter in self._lm.named_parameters(remove_duplicate=False)
        }
        """Name of a parameter → the names under which it may have been saved: a tied one has two."""
        self._source: dict[str, Any] = {}
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        for prefix, module in self._lm.named_modules():
            if any(p is not None for p in module._parameters.values()):
                self._stream(prefix, module)

    def logps(self, files: Sequence[Path], ids: Sequence[int]) -> list[float]:
        """Log-probs [nats] of all of ``ids`` but the first, with the weights in ``files``, in float32."""
        import torch
        from safetensors import safe_open

        with ExitStack() as stack, torch.inference_mode():
            opened = [stack.enter_context(safe_open(path, framework="pt")) for path in files]
            self._source = {name: file for file in opened for name in file.keys()}  # noqa: SIM118
            ids_T = torch.tensor(ids, device=self._device)
            logits = self._lm(input_ids=ids_T[None], use_cache=False).logits[0, :-1]
            found = torch.log_softmax(logits.float(), -1).gather(1, ids_T[1:, None])[:, 0].tolist()
            self._source = {}
        return list(found)

    def _stream(self, prefix: str, module: Any) -> None:
        """Give ``module`` its parameters while it runs, and only then."""
        empty: Mapping[str, Tensor] = {k: p for k, p in module._parameters.items() if p is not None}

        def fill(*_: object) -> None:
            for key in empty:
                module._parameters[key] = self._read(f"{prefix}.{key}")

        def forget(*_: object) -> None:
            module._parameters.update(empty)

        module.register_forward_pre_hook(fill)
        module.register_forward_hook(forget)

    def _read(self, name: str) -> Tensor:
        import torch

        saved = next(each for each in sorted(self._saved[name]) if each in self._source)
        tensor: Tensor = self._source[saved].get_tensor(saved)
        return tensor.to(self._device, torch.float32)


def _renew_buffers(lm: Any, config: Any) -> None:
    """Build modules with buffers (rotary frequencies) anew: theirs are computed, not loaded."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, module in list(lm.named_modules()):
        if module._buffers:
            parent, _, key = name.rpartition(".")
            try:
                setattr(lm.get_submodule(parent), key, type(module)(config).to(device))
            except TypeError as error:
                raise ConfigError(
                    f"engine.parity_tokens: the check does not know how to build {type(module).__name__}",
                    then="set it to 0",
                ) from error


def compare(found: Sequence[float], expected: Sequence[float], dtype: str, version: int) -> float:
    """The mean difference [nats].

    Raises:
        StageError: vLLM does not compute with the weights that it was given.
    """
    mean = sum(abs(a - b) for a, b in zip(found, expected, strict=True)) / len(expected)
    if not mean <= TOLERANCE[dtype]:
        raise StageError(
            f"vLLM's log-probs are not those of the weights that it was given (version {version}), so its weights are"
            " stale or wrong",
            found=f"a mean difference of {mean:.2g} nats over {len(expected)} tokens",
            allowed=f"up to {TOLERANCE[dtype]:g} in {dtype}",
            then="report it with the versions of vLLM and of the model; engine: {use: embedded} goes on meanwhile",
        )
    return mean
