import sys

from torchreid_ptl.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
