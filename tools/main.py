import sys

from torchreid_ptl.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
