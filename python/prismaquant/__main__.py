"""``python -m prismaquant`` is the ``prismaquant`` command."""

import sys

from prismaquant.cli import main

sys.exit(main())
