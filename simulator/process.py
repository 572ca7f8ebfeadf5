"""Run the simulator as a process from a test or a benchmark, with access to its dials and its ledger."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

_CHECKOUT = Path(__file__).parent.parent
_TIMEOUT_S = 30


class ControlError(RuntimeError):
    """The control port refused the call; the text gives the reason."""


class Simulator:
    """A running simulator on free ports. Use it in a `with` block, or call `stop`."""

    def __init__(self, **dials: object) -> None:
        settings = [f"--dial={name}={json.dumps(value)}" for name, value in dials.items()]
        command = [sys.executable, "-m", "simulator", "--port=0", "--control-port=0", *settings]
        self.process = subprocess.Popen(command, cwd=_CHECKOUT, stdout=subprocess.PIPE, text=True)  # noqa: S603
        #: Base URLs, without a slash at the end.
        self.api_url, self.control_url = self._announced()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.stop()

    def dials(self) -> dict[str, Any]:
        """Return all dials by name."""
        return self.control("GET", "/dials")

    def set_dials(self, **dials: object) -> None:
        """Set some dials, all or none. Raises ControlError for an unknown dial or an invalid value."""
        self.control("PATCH", "/dials", dials)

    def ledger(self, *, charges: bool = True) -> dict[str, Any]:
        """Return calls, charges and deliveries; without the charges the size is bounded."""
        return self.control("GET", f"/ledger?charges={charges:d}")

    def reset(self) -> None:
        """Remove all tasks and counts; the dials are kept."""
        self.control("POST", "/reset")

    def add_credits(self, number: int) -> None:
        """Top up the account."""
        self.control("POST", "/credits", {"add": number})

    def refuse_connections(self, for_s: float) -> None:
        """Refuse connections to the API for `for_s` seconds from now on."""
        self.control("POST", "/refuse", {"for_s": for_s})

    def complete_task(self, task_id: str) -> None:
        """Make a task in progress ready now."""
        self.control("POST", f"/tasks/{task_id}/finish")

    def fail_task(self, task_id: str) -> None:
        """Make a task in progress fail now."""
        self.control("POST", f"/tasks/{task_id}/fail")

    def control(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Call the control port and return its JSON object. Raises ControlError with the text of an error."""
        with requests.Session() as session:
            session.trust_env = False  # a proxy could not reach this machine
            response = session.request(method, self.control_url + path, json=body, timeout=_TIMEOUT_S)
        answer: dict[str, Any] = response.json()
        if response.status_code != 200:
            raise ControlError(answer["error"])
        return answer

    def stop(self) -> int:
        """Stop the process and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(_TIMEOUT_S)
        finally:
            self.process.kill()
            if self.process.stdout:
                self.process.stdout.close()

    def _announced(self) -> tuple[str, str]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            self.stop()
            raise ControlError("the simulator did not start; its standard error says why")
        _, _, api_url, _, control_url = line.split()
        return api_url, control_url
