"""``python -m torchreid_ptl``: the commands of ``torchreid_ptl``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
