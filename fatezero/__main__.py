"""`python -m fatezero` is `fatezero`."""

import sys

from fatezero.cli import main

sys.exit(main())
