import sys

from torchreid_ptl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
