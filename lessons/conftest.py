"""Settings for lessons that run under pytest --nbval: kernels inherit them."""

import os

os.environ.setdefault("FAIRSEG_SCALE", "smoke")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
