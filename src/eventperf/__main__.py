"""``python -m eventperf``."""

import sys

from eventperf.cli.main import main

sys.exit(main())
