"""``python -m torchreid_ptl``: the same commands as ``tools/``, for an installed package."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
