import sys

from torchreid_ptl.cli.compatibility import main

if __name__ == "__main__":
    sys.exit(main())
