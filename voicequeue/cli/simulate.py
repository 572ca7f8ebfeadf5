"""`simulate`: run a simulator of MusicAPI, for tests of whole apps."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from voicequeue.cli.terminal import AsJson, CommandSetupError, option, print_json
from voicequeue.texts import parse_float

#: The folders that may contain the package `simulator`: that of an installed package, and a checkout.
_FOLDERS = (Path(__file__).parents[1] / "bundled", Path(__file__).parents[2])


def simulate(
    port: Annotated[int, option("PORT", min=0, max=65_535, help="Port of the API; 0 selects a free one.")] = 8900,
    control_port: Annotated[
        int, option("PORT", min=0, max=65_535, help="Port of dials and ledger; 0 selects a free one.")
    ] = 8901,
    host: Annotated[str, option("HOST", help="Address to listen at.")] = "127.0.0.1",
    state: Annotated[Path | None, option("FILE", help="Keep tasks, credits and charges in this file.")] = None,
    dial: Annotated[
        list[str] | None, option("NAME=VALUE", help="Set a dial, such as voice_s=0.5; repeat it for several.")
    ] = None,
    fault: Annotated[
        list[str] | None, option("NAME=ODDS", help="Let requests fail, such as reset_after=0.1; repeat it for several.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a simulator of MusicAPI, which charges nothing.

    It prints the settings with which workers use it, and runs until Ctrl-C. An unknown dial or fault is answered with a
    list of those that exist. Needs the extra voicequeue[dev]; runs on Linux and macOS.
    """
    simulator = _load()
    try:
        dials = simulator.parse_dials([*(dial or ()), *_fault_dials(fault or ())])
    except simulator.InvalidDial as error:
        raise typer.BadParameter(str(error), param_hint="--dial") from None
    options = simulator.Options(host=host, port=port, control_port=control_port, dials=dials, state=state)
    announce: Callable[[str, str], None] = _announce_as_json if as_json else _announce
    try:
        simulator.run(options, announce)
    except (OSError, simulator.StateFileError) as error:
        raise CommandSetupError(f"the simulator cannot run: {error}") from None


def _load() -> Any:
    """Return the module of the simulator's command. Raises CommandSetupError."""
    folder = next((folder for folder in _FOLDERS if (folder / "simulator" / "__main__.py").is_file()), None)
    if folder is None:
        raise CommandSetupError("this package has no simulator; install the wheel of voicequeue, or use a checkout")
    sys.path.insert(0, str(folder))
    try:
        return import_module("simulator.__main__")
    except ModuleNotFoundError as error:
        if error.name == "resource":
            raise CommandSetupError("the simulator runs on Linux and macOS") from None
        raise CommandSetupError(f"{error.name} is missing: pip install 'voicequeue[dev]'") from None


def _fault_dials(faults: Sequence[str]) -> list[str]:
    """Return the dials of faults: those of orders, of polls, or of both. Raises BadParameter."""
    module = import_module("simulator.engine.faults")
    names_by_dial = {"post_faults": module.POST_FAULTS, "get_faults": module.GET_FAULTS}
    odds_by_name = dict(_fault(text, {*module.POST_FAULTS, *module.GET_FAULTS}) for text in faults)
    dials = {
        dial: {name: odds for name, odds in odds_by_name.items() if name in names}
        for dial, names in names_by_dial.items()
    }
    return [f"{dial}={json.dumps(faults)}" for dial, faults in dials.items() if faults]


def _fault(text: str, names: set[str]) -> tuple[str, float]:
    """Return the name and the odds of a fault. Raises BadParameter."""
    name, _, odds_text = text.partition("=")
    if name not in names:
        raise typer.BadParameter(f"there is no fault {name!r}; there are {', '.join(sorted(names))}")
    odds = parse_float(odds_text)
    if odds is None or not 0 <= odds <= 1:
        raise typer.BadParameter(f"{name}: the odds must be from 0 to 1, such as {name}=0.1")
    return name, odds


def _announce(api_url: str, control_url: str) -> None:
    lines = [f"{name}={value}" for name, value in _settings(api_url).items()]
    lines.append(f"# dials and ledger: {control_url} (Ctrl-C ends the simulator)")
    typer.echo("\n".join(lines))  # at once: a script may close the pipe after the first line


def _announce_as_json(api_url: str, control_url: str) -> None:
    print_json({"settings": _settings(api_url), "control_url": control_url})


def _settings(api_url: str) -> dict[str, str]:
    """Return the settings with which workers use the simulator."""
    return {"MUSICAPI_BASE_URL": api_url, "MUSICAPI_KEY": "any"}
