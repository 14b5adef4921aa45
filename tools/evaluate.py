import sys

from torchreid_ptl.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
