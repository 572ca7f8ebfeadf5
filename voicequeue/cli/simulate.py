"""`simulate`: run a simulator of MusicAPI, for tests of whole apps."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from voicequeue.cli.terminal import CommandSetupError, option
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
) -> None:
    """Run a simulator of MusicAPI, which charges nothing.

    It prints the settings with which workers use it, and runs until Ctrl-C. An unknown dial or fault is answered with a
    list of those that exist. Needs the extra voicequeue[dev]; runs on Linux and macOS.
    """
    run = _load()
    arguments = [f"--host={host}", f"--port={port}", f"--control-port={control_port}"]
    _check_dials(dial or ())
    arguments += [f"--dial={one}" for one in [*(dial or ()), *_fault_dials(fault or ())]]
    arguments += [f"--state={state}"] if state else []
    raise typer.Exit(run(arguments, announce=_announce))


def _load() -> Any:
    """Return the main function of the simulator. Raises CommandSetupError."""
    folder = next((folder for folder in _FOLDERS if (folder / "simulator" / "__main__.py").is_file()), None)
    if folder is None:
        raise CommandSetupError("this package has no simulator; install the wheel of voicequeue, or use a checkout")
    sys.path.insert(0, str(folder))
    try:
        return import_module("simulator.__main__").main
    except ModuleNotFoundError as error:
        if error.name == "resource":
            raise CommandSetupError("the simulator runs on Linux and macOS") from None
        raise CommandSetupError(f"{error.name} is missing: pip install 'voicequeue[dev]'") from None


def _check_dials(settings: Sequence[str]) -> None:
    """Raise BadParameter for an unknown dial or a wrong value, before the simulator does in its own words."""
    if wrong := [text for text in settings if "=" not in text]:
        raise typer.BadParameter(f"must be NAME=VALUE, not {wrong[0]!r}", param_hint="--dial")
    module, parse = import_module("simulator.engine.dials"), import_module("simulator.__main__").setting
    try:
        module.Dials().changed(dict(map(parse, settings)))
    except module.InvalidDial as error:
        raise typer.BadParameter(str(error), param_hint="--dial") from None


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
        raise typer.BadParameter(
            f"there is no fault {name!r}; there are {', '.join(sorted(names))}", param_hint="--fault"
        )
    odds = parse_float(odds_text)
    if odds is None or not 0 <= odds <= 1:
        raise typer.BadParameter(f"{name}: the odds must be from 0 to 1, such as {name}=0.1", param_hint="--fault")
    return name, odds


def _announce(api_url: str, control_url: str) -> None:
    typer.echo(f"MUSICAPI_BASE_URL={api_url}")
    typer.echo("MUSICAPI_KEY=any")
    typer.echo(f"# dials and ledger: {control_url} (Ctrl-C ends the simulator)")
    sys.stdout.flush()
