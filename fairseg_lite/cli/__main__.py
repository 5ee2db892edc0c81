"""`python -m fairseg_lite.cli` is `fairseg-lite`."""

import sys

from fairseg_lite.cli import main

sys.exit(main())
