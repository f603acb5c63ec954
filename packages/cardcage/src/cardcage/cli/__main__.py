"""`python -m cardcage.cli` is the `cardcage` command."""

import sys

from cardcage.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
