"""Inside vLLM's workers: weights arrive as safetensors files, through vLLM's own weight-transfer seam.

vLLM imports this module in every worker because :class:`Extension` is its ``worker_extension_cls``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from m2rl_engine_vllm.arguments import BACKEND

__all__ = ["Extension", "FileTransfer"]


class Extension:
    """Adds nothing to a worker."""


@dataclass
class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Nothing to agree on."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """One bucket."""

    path: str
    """A safetensors file of tensors under their Hugging Face names."""


class FileTransfer(WeightTransferEngine):  # type: ignore[misc]
    """Reads buckets; vLLM assembles a layer once all its tensors are there, and copies it over the old one."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """No connection to be made."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        with safe_open(update_info.path, framework="pt") as file:
            self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        repack(self.model)

    def shutdown(self) -> None:
        """Nothing is held."""


def repack(model: Any) -> None:
    """Renew the packed copies of weights that were kept beside them; CPU only.

    vLLM packs linear weights for the CPU and drops the originals; a tied head keeps its own, because it is the
    embedding too, and an update that reaches the original leaves the packed copy stale.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    for module in model.modules():
        if hasattr(module, "cpu_linear") and module.weight.numel():
            dispatch_cpu_unquantized_gemm(module, remove_weight=False)


def end_with_parent() -> None:
    """End this process when the one that started it ends, however that ends.

    vLLM 0.32's engine process would otherwise outlive a trainer that was killed, and keep the device's memory.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


threading.Thread(target=end_with_parent, name="m2rl-end-with-parent", daemon=True).start()
if BACKEND not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND, FileTransfer)
