"""Whether the machines that compute have a CUDA device; without Prefect, which plans do not need."""

from __future__ import annotations

from flows.settings import WaveSettings
from tasks.errors import TaskInputError
from tasks.models.devices import cuda_available

__all__ = ["cuda_where_stages_run"]

_SECONDS_TO_CONNECT = 30


def cuda_where_stages_run(settings: WaveSettings) -> bool:
    """Return whether there is a CUDA device where stages that need a GPU run: here, or on workers of the Dask cluster.

    The cluster is asked only if the settings leave it to the machine what is computed.

    Raises:
        TaskInputError: if the cluster does not answer, has no worker with the resource GPU, or some of these workers
            have a CUDA device and others have none.
    """
    if settings.dask_address is None:
        return cuda_available()
    if settings.device != "auto":
        return settings.device == "cuda" or settings.propagation_device == "cuda"
    if "auto" not in (settings.dtype, settings.propagation_device):
        return settings.propagation_device == "cuda"
    found = _cuda_of_gpu_workers(settings.dask_address)
    if not found:
        raise TaskInputError(
            f"No worker of the Dask cluster at {settings.dask_address} has the resource GPU: start one, "
            "or choose WAVE_DEVICE."
        )
    if len(set(found.values())) > 1:
        without = ", ".join(sorted(worker for worker, cuda in found.items() if not cuda))
        raise TaskInputError(
            f"Of the Dask workers with the resource GPU some have a CUDA device, and {without} none: "
            "start these without that resource, or use WAVE_DEVICE=cpu."
        )
    return all(found.values())


def _cuda_of_gpu_workers(address: str) -> dict[str, bool]:
    """Ask every worker with the resource GPU, by its address, whether it has a CUDA device, however busy it is."""
    from distributed import Client  # noqa: PLC0415

    try:
        with Client(address, set_as_default=False, timeout=_SECONDS_TO_CONNECT) as client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            names = [name for name, facts in workers.items() if "GPU" in facts.get("resources", {})]
            return dict(client.run(cuda_available, workers=names)) if names else {}
    except OSError as error:
        raise TaskInputError(f"The Dask cluster at {address} does not answer: {error}") from error
