"""Commands of ours with a terminal of their own, which can be closed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path


class Terminal:
    """A command with a terminal of its own as the one that controls it."""

    def __init__(self, *command: str, cwd: Path) -> None:
        self._master, slave = pty.openpty()

        def take() -> None:
            os.setsid()
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "eventperf", *command],
            stdin=slave, stdout=slave, stderr=slave, preexec_fn=take, cwd=cwd,
        )  # fmt: skip
        os.close(slave)
        self.said = ""

    def wait_for(self, text: str) -> None:
        while text not in self.said:
            data = os.read(self._master, 4096)
            assert data, self.said
            self.said += data.decode(errors="replace")

    def close(self) -> int:
        """Close the terminal; return how the command ended."""
        os.close(self._master)
        return self.process.wait(60)
