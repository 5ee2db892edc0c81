"""Fixtures for every test: what may be absent here is skipped with a reason."""

import os
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("calm", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no clock on a busy machine
settings.load_profile("calm")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Photographs, weights and full oracle files that developers have beside the repository (or at FAIRSEG_SHARED)."""
    path = Path(os.environ.get("FAIRSEG_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not (path / "oracle").is_dir():
        pytest.skip(f"the developers' shared folder is not at {path.name}/ beside the repository")
    return path


@pytest.fixture
def cuda():
    """A GPU: this machine's, or where it has none a pretended one."""
    import torch

    from tests.pretended_gpu import pretended_gpu

    with nullcontext() if torch.cuda.is_available() else pretended_gpu():
        yield torch.device("cuda")
